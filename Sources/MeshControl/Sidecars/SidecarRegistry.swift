package import MeshCore
package import MeshXDS

/// What is known of every sidecar, from its streams: a value on the loop that answers queries.
///
/// A sidecar that disconnected is remembered for ten minutes, or until its pod goes; at most `limit` are kept.
package struct SidecarRegistry: Sendable {
    package static let limit = 20_000
    package static let memorySeconds: Int64 = 600

    struct Entry: Sendable {
        var status: DiscoverySubscriberStatus?
        var connectedAt: Timestamp?
        var disconnectedSecond: Int64?
        var version = ""
        var certificateNotAfter: Timestamp?
        var lastReportAt: Timestamp?
        /// When each refusal was first seen.
        var refusedAt: [ResourceRefusal: Timestamp] = [:]
    }

    private var entries: [ObjectName: Entry] = [:]
    /// Sidecars that were not remembered because there was no room.
    package private(set) var overflowed: UInt64 = 0

    package init() {}

    package var count: Int { entries.count }
    package var connectedCount: Int {
        entries.values.reduce(0) { $0 + ($1.status != nil && $1.disconnectedSecond == nil ? 1 : 0) }
    }

    package mutating func discoveryChanged(_ status: DiscoverySubscriberStatus, now: HealthClock) {
        change(status.pod) { entry in
            // Streams are numbered as they are opened: what an older one still has to say of the pod is past.
            if let known = entry.status, known.stream > status.stream { return }
            if entry.status?.stream != status.stream {
                entry.connectedAt = now.wall
                entry.disconnectedSecond = nil
            }
            let old = entry.refusedAt
            entry.refusedAt = Dictionary(status.refusals.map { ($0, old[$0] ?? now.wall) }) { first, _ in first }
            entry.status = status
            if !status.version.isEmpty { entry.version = status.version }
        }
    }

    package mutating func discoveryEnded(_ status: DiscoverySubscriberStatus, now: HealthClock) {
        guard entries[status.pod]?.status?.stream == status.stream else { return }
        entries[status.pod]?.disconnectedSecond = now.monotonicSeconds
    }

    package mutating func reported(_ report: TelemetryReport, now: HealthClock) {
        change(report.pod) { entry in
            entry.lastReportAt = now.wall
            if !report.sidecarVersion.isEmpty { entry.version = report.sidecarVersion }
            entry.certificateNotAfter =
                report.certificateNotAfterUnixSeconds > 0
                ? Timestamp(unixSeconds: report.certificateNotAfterUnixSeconds) : nil
        }
    }

    /// What the authority handed out is known before the sidecar reports it.
    package mutating func certified(pod: ObjectName, notAfter: Timestamp) {
        change(pod) { $0.certificateNotAfter = notAfter }
    }

    package mutating func podRemoved(_ pod: ObjectName) { entries[pod] = nil }

    package mutating func tick(now: HealthClock) {
        entries = entries.filter { _, entry in
            guard let since = entry.disconnectedSecond else { return true }
            return now.monotonicSeconds - since < Self.memorySeconds
        }
    }

    package func certificateNotAfter(of pod: ObjectName) -> Timestamp? { entries[pod]?.certificateNotAfter }

    package func isConnected(_ pod: ObjectName) -> Bool {
        guard let entry = entries[pod] else { return false }
        return entry.status != nil && entry.disconnectedSecond == nil
    }

    /// Whether every sidecar that is connected has acknowledged all that it was sent.
    package var isEveryConnectedCurrent: Bool {
        entries.values.allSatisfy { !$0.isConnected || $0.synchronization == .current }
    }

    /// Ordered by pod.
    package func statuses(node: (ObjectName) -> String) -> [SidecarStatus] {
        entries.sorted { $0.key < $1.key }.map { pod, entry in
            SidecarStatus(
                namespace: pod.namespace, pod: pod.name, node: node(pod),
                identity: entry.status?.identity.description ?? "",
                version: entry.version, synchronization: entry.synchronization,
                refusals: (entry.status?.refusals ?? []).map { refusal in
                    RefusedResource(
                        type: refusal.type, name: refusal.name, reason: refusal.reason,
                        at: entry.refusedAt[refusal] ?? Timestamp(unixMilliseconds: 0))
                },
                certificateNotAfter: entry.certificateNotAfter,
                connectedSince: entry.isConnected ? entry.connectedAt : nil,
                lastReportAt: entry.lastReportAt, subscriptions: entry.status?.subscriptions ?? 0)
        }
    }

    private mutating func change(_ pod: ObjectName, _ body: (inout Entry) -> Void) {
        guard entries[pod] != nil || entries.count < Self.limit else {
            overflowed &+= 1
            return
        }
        body(&entries[pod, default: Entry()])
    }
}

extension SidecarRegistry.Entry {
    var isConnected: Bool { status != nil && disconnectedSecond == nil }

    var synchronization: SidecarStatus.Synchronization {
        guard let status, disconnectedSecond == nil else { return .disconnected }
        if !status.refusals.isEmpty { return .refused }
        return status.isCurrent ? .current : .pending
    }
}
