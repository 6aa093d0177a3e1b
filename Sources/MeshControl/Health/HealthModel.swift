package import MeshCore
package import MeshXDS

/// A moment, on both clocks: windows count by the monotonic one, sentences tell the other.
package struct HealthClock: Sendable, Hashable {
    package var monotonicSeconds: Int64
    package var wall: Timestamp

    package init(monotonicSeconds: Int64, wall: Timestamp) {
        self.monotonicSeconds = monotonicSeconds
        self.wall = wall
    }
}

/// What sidecars reported, over a bounded window: edges, ejections, and each service's usual behaviour.
///
/// A value without clock or socket. It keeps at most `limits.edges` edges, forgets an edge after ten idle minutes, and
/// costs two to three KB an active edge.
package struct HealthModel: Sendable {
    package struct Limits: Sendable, Hashable {
        package var edges = 20_000
        package var idleSeconds: Int64 = 600
        /// Ejections kept of one reporter.
        package var ejectionsPerSidecar = 64

        package init() {}
    }

    package let limits: Limits
    /// Deltas that were dropped because there was no room for another edge.
    package private(set) var overflowedDeltas: UInt64 = 0
    package private(set) var reports: UInt64 = 0

    /// A free place is nil; `freeSlots` knows which.
    private var edges: [TrafficEdge?] = []
    private var freeSlots: [Int] = []
    private var slotByKey: [EdgeKey: Int] = [:]
    private var slotsByService: [ObjectName: Set<Int>] = [:]
    private var ejectionsByReporter: [ObjectName: (caller: String, ejections: [EjectionReport])] = [:]
    private var baselines: [ObjectName: Baseline] = [:]
    private var lastSweepSecond: Int64 = .min
    private let milliseconds: @Sendable (_ bucket: UInt32) -> Double

    /// - Parameter milliseconds: what a bucket of the sidecars' latency histogram stands for.
    package init(limits: Limits = Limits(), milliseconds: @escaping @Sendable (_ bucket: UInt32) -> Double) {
        self.limits = limits
        self.milliseconds = milliseconds
    }

    package var edgeCount: Int { slotByKey.count }

    // MARK: Taking in

    /// - Parameter reporter: the reporting pod as the catalog knows it; nil when it is not there (yet).
    package mutating func ingest(_ report: TelemetryReport, reporter: Workload?, now: HealthClock) {
        reports &+= 1
        let pod = report.pod
        let span = ReportSpan(milliseconds: report.intervalMilliseconds, endSecond: now.monotonicSeconds)
        for delta in report.edges.prefix(TelemetryReport.edgeLimit) {
            ingest(delta, pod: pod, reporter: reporter, span: span, now: now)
        }
        let caller = "\(pod.namespace)/\(reporter?.owner ?? pod.name)"
        let kept = Array(report.ejections.prefix(limits.ejectionsPerSidecar))
        ejectionsByReporter[pod] = kept.isEmpty ? nil : (caller, kept)
    }

    /// A sidecar's stream ended, or its pod went: what it holds open or ejected is over.
    package mutating func forgetReporter(_ pod: ObjectName) {
        ejectionsByReporter[pod] = nil
        for slot in edges.indices { edges[slot]?.openConnections[pod] = nil }
    }

    private mutating func ingest(
        _ delta: EdgeDelta, pod: ObjectName, reporter: Workload?, span: ReportSpan, now: HealthClock
    ) {
        let key = EdgeKey(delta, pod: pod, reporter: reporter)
        guard let slot = slotByKey[key] ?? makeEdge(key, now: now) else {
            overflowedDeltas &+= 1
            return
        }
        edges[slot]?.take(delta, pod: pod, span: span, now: now)
    }

    private mutating func makeEdge(_ key: EdgeKey, now: HealthClock) -> Int? {
        guard slotByKey.count < limits.edges else { return nil }
        let edge = TrafficEdge(
            key: key, observedSinceSecond: now.monotonicSeconds, lastSeenSecond: now.monotonicSeconds,
            lastSeenAt: now.wall)
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = free
            edges[slot] = edge
        } else {
            slot = edges.count
            edges.append(edge)
        }
        slotByKey[key] = slot
        if case .service(let service) = key.destination { slotsByService[service, default: []].insert(slot) }
        return slot
    }

    /// Once a second: forgets what is idle and, once a minute, learns what is usual.
    package mutating func tick(now: HealthClock) {
        guard lastSweepSecond == .min || now.monotonicSeconds - lastSweepSecond >= 10 else { return }
        lastSweepSecond = now.monotonicSeconds
        for slot in edges.indices {
            guard let edge = edges[slot], now.monotonicSeconds - edge.lastSeenSecond >= limits.idleSeconds else {
                continue
            }
            edges[slot] = nil
            freeSlots.append(slot)
            slotByKey[edge.key] = nil
            if case .service(let service) = edge.key.destination {
                slotsByService[service]?.remove(slot)
                if slotsByService[service]?.isEmpty == true {
                    slotsByService[service] = nil
                    baselines[service] = nil
                }
            }
        }
        for service in slotsByService.keys {
            let due = (baselines[service]?.learntSecond).map { now.monotonicSeconds - $0 >= 60 } ?? true
            guard due else { continue }
            let totals = self.totals(of: service, now: now)
            let p99 = totals.latency.bucket(atQuantile: 0.99).map(milliseconds)
            baselines[service, default: Baseline()]
                .learn(
                    requests: totals.requests, failures: totals.failures, p99Milliseconds: p99,
                    second: now.monotonicSeconds)
        }
    }

    // MARK: Telling

    /// The traffic of one service and what is usual for it. Callers with a sidecar are heard themselves; for those
    /// without, the service's own sidecars speak.
    package func observation(of service: ObjectName, now: HealthClock) -> TrafficObservation {
        let slots = slotsByService[service] ?? []
        let totals = totals(of: service, now: now)
        let edges = counted(slots)
        let open = edges.reduce(0) { $0 + $1.open }
        let since = edges.map(\.observedSinceSecond).min() ?? now.monotonicSeconds
        let recent = edges.reduce(into: (requests: UInt64(0), failures: UInt64(0))) { sum, edge in
            let counts = edge.window.counts(now: now.monotonicSeconds, span: 10)
            sum.requests &+= counts.requests
            sum.failures &+= counts.failures
        }
        return TrafficObservation(
            isReported: !slots.isEmpty, figures: figures(totals, open: open, since: since, now: now), totals: totals,
            recent: recent,
            usual: baselines[service]?.usual)
    }

    /// Ejections in force, by service: one walk over all of them.
    package func ejectionsByService() -> [ObjectName: [EndpointEjection]] {
        var result: [ObjectName: [EndpointEjection]] = [:]
        for (_, reported) in ejectionsByReporter {
            for ejection in reported.ejections {
                result[ejection.service, default: []].append(
                    EndpointEjection(
                        address: ejection.address, caller: reported.caller,
                        since: Timestamp(unixMilliseconds: ejection.sinceUnixMilliseconds), why: ejection.why))
            }
        }
        return result
    }

    package func stat(
        from source: String?, to destination: String?, namespace: String?, now: HealthClock
    ) -> StatReport {
        let rows = counted(edges.indices).filter { edge in
            Self.matches(edge.key, source: source, destination: destination, namespace: namespace)
        }.compactMap { edge -> StatRow? in
            let totals = edge.window.totals(now: now.monotonicSeconds)
            guard !totals.isEmpty || edge.open > 0 else { return nil }
            return StatRow(
                source: edge.sourceParty, destination: edge.destinationParty,
                applicationProtocol: edge.key.applicationProtocol.rawValue,
                figures: figures(totals, open: edge.open, since: edge.observedSinceSecond, now: now),
                responses: totals.responses)
        }
        return StatReport(
            generatedAt: now.wall, windowSeconds: Int(TrafficWindow.seconds), rows: rows.sorted(by: StatRow.isBusier),
            overflowedEdges: Int(clamping: overflowedDeltas))
    }

    /// One row per pair that has reached each other, whatever protocols it speaks.
    package func edges(namespace: String?, now: HealthClock) -> EdgesReport {
        struct Pair: Hashable {
            var source: TrafficParty
            var destination: TrafficParty
        }
        var rows: [Pair: (row: EdgeRow, secured: UInt64, plaintext: UInt64)] = [:]
        for edge in counted(edges.indices)
        where Self.matches(edge.key, source: nil, destination: nil, namespace: namespace) {
            let totals = edge.window.totals(now: now.monotonicSeconds)
            guard totals.secured > 0 || totals.plaintext > 0 || edge.open > 0 else { continue }
            let pair = Pair(source: edge.sourceParty, destination: edge.destinationParty)
            let rate = Double(totals.requests) / Self.seconds(since: edge.observedSinceSecond, now: now)
            var entry =
                rows[pair]
                ?? (
                    EdgeRow(
                        source: pair.source, destination: pair.destination, security: .plaintext, requestsPerSecond: 0,
                        openConnections: 0, lastSeenAt: edge.lastSeenAt), 0, 0
                )
            entry.row.requestsPerSecond += rate
            entry.row.openConnections += edge.open
            entry.row.lastSeenAt = max(entry.row.lastSeenAt, edge.lastSeenAt)
            let isIdle = totals.secured == 0 && totals.plaintext == 0
            entry.secured &+= isIdle && edge.isSecured ? 1 : totals.secured
            entry.plaintext &+= isIdle && !edge.isSecured ? 1 : totals.plaintext
            entry.row.security = entry.secured == 0 ? .plaintext : entry.plaintext == 0 ? .mutualTLS : .mixed
            rows[pair] = entry
        }
        return EdgesReport(
            generatedAt: now.wall, windowSeconds: Int(TrafficWindow.seconds),
            edges: rows.values.map(\.row).sorted(by: EdgeRow.isBefore), overflowedEdges: Int(clamping: overflowedDeltas)
        )
    }

    // MARK: -

    /// The edges that count, so that a request which both ends report counts once.
    private func counted(_ slots: some Sequence<Int>) -> [TrafficEdge] {
        slots.compactMap { edges[$0] }.filter { $0.key.isReportedBySource || $0.key.sourceIdentity == nil }
    }

    private func totals(of service: ObjectName, now: HealthClock) -> TrafficWindow.Totals {
        counted(slotsByService[service] ?? []).reduce(into: TrafficWindow.Totals()) { sum, edge in
            sum.merge(edge.window.totals(now: now.monotonicSeconds))
        }
    }

    /// How much of the window there has been anything to count.
    private static func seconds(since first: Int64, now: HealthClock) -> Double {
        Double(min(max(1, now.monotonicSeconds - first + 1), TrafficWindow.seconds))
    }

    private func figures(_ totals: TrafficWindow.Totals, open: Int, since first: Int64, now: HealthClock)
        -> TrafficFigures
    {
        let seconds = Self.seconds(since: first, now: now)
        let span = min(seconds, Double(TrafficWindow.slotSpan(now: now.monotonicSeconds)))
        func quantile(_ value: Double) -> Double? { totals.latency.bucket(atQuantile: value).map(milliseconds) }
        return TrafficFigures(
            requestsPerSecond: Double(totals.requests) / seconds,
            successRate: totals.requests == 0
                ? nil : 1 - Double(min(totals.failures, totals.requests)) / Double(totals.requests),
            p50Milliseconds: quantile(0.5), p95Milliseconds: quantile(0.95), p99Milliseconds: quantile(0.99),
            retriesPerSecond: Double(totals.retries) / span, openConnections: open,
            sentBytesPerSecond: Double(totals.sent) / span, receivedBytesPerSecond: Double(totals.received) / span)
    }

    private static func matches(_ key: EdgeKey, source: String?, destination: String?, namespace: String?) -> Bool {
        func named(_ wanted: String, namespace: String, name: String) -> Bool {
            wanted.contains("/") ? wanted == "\(namespace)/\(name)" : wanted == name
        }
        if let source, !named(source, namespace: key.sourceNamespace, name: key.sourceOwner) { return false }
        if let destination, !named(destination, namespace: key.destination.namespace, name: key.destination.name) {
            return false
        }
        guard let namespace else { return true }
        return key.sourceNamespace == namespace || key.destination.namespace == namespace
    }
}
