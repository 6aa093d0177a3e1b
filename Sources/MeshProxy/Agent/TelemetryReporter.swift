import MeshAddress
import MeshCore
import MeshIO
import MeshTelemetry
import MeshXDS

/// Tells the control plane once a second what changed on this sidecar's edges. When the control plane does not keep up or is away nothing is
/// taken from the loops, whose counters go on; the next report tells the sum.
final class TelemetryReporter: TimerTarget {
    private let loop: EventLoop
    private let plane: DataPlane
    private let client: TelemetryClient
    private let describe: () -> TelemetryReport
    private lazy var timer = LoopTimer(loop: loop, target: self)
    /// When the last report that was sent ended; the next one tells of the time since.
    private var takenAt: MonotonicTime
    private var isTaking = false
    /// Edges over the limit of one report wait here for the next.
    private var waiting: [EdgeDelta] = []

    static let intervalMilliseconds = 1000
    /// Beyond it the oldest waiting edges are dropped: a control plane that is slow for so long is told of what is new instead.
    private static let waitingLimit = 4 * TelemetryReport.edgeLimit
    private(set) var droppedEdges: UInt64 = 0

    /// - Parameter describe: a report without its edges and ejections.
    init(loop: EventLoop, plane: DataPlane, client: TelemetryClient, describe: @escaping () -> TelemetryReport) {
        self.loop = loop
        self.plane = plane
        self.client = client
        self.describe = describe
        takenAt = loop.now
    }

    func start() { timer.arm(afterMilliseconds: TelemetryReporter.intervalMilliseconds) }

    func stop() {
        timer.cancel()
        client.close()
    }

    func timerFired(_ timer: LoopTimer) {
        timer.arm(afterMilliseconds: TelemetryReporter.intervalMilliseconds)
        guard client.isWritable, !isTaking else { return }
        isTaking = true
        let reply = LoopBound(self, loop: loop)
        plane.takeTelemetry { [loop] telemetry in
            loop.submit { reply.value.taken(telemetry) }
        }
    }

    private func taken(_ telemetry: [LoopTelemetry]) {
        isTaking = false
        waiting += telemetry.flatMap { $0.edges.map(TelemetryReporter.delta) }
        if waiting.count > TelemetryReporter.waitingLimit {
            droppedEdges += UInt64(waiting.count - TelemetryReporter.waitingLimit)
            waiting.removeFirst(waiting.count - TelemetryReporter.waitingLimit)
        }
        var report = describe()
        report.intervalMilliseconds = max(1, Int(loop.now.nanoseconds(since: takenAt) / 1_000_000))
        report.edges = Array(waiting.prefix(TelemetryReport.edgeLimit))
        report.ejections = Array(
            Set(telemetry.flatMap { $0.ejections.map(TelemetryReporter.ejection) }).prefix(
                TelemetryReport.ejectionLimit))
        report.learnedPorts = TelemetryReporter.merged(telemetry.map(\.learnedPorts))
        guard client.send(report) else { return }
        waiting.removeFirst(report.edges.count)
        takenAt = loop.now
    }

    private static func delta(_ report: EdgeReport) -> EdgeDelta {
        let labels = report.labels
        return EdgeDelta(
            reporter: labels.reporter == .source ? .source : .destination, source: peer(labels.source),
            destination: peer(labels.destination), destinationService: labels.service, destinationPort: labels.port,
            applicationProtocol: labels.applicationProtocol, isSecured: labels.security == .mutualTLS,
            requests: report.requests.map {
                RequestCount(
                    status: $0.key.status, grpcStatus: $0.key.grpcStatus, reason: $0.key.reason?.code ?? "",
                    count: $0.count)
            },
            latency: LatencyBuckets(
                buckets: report.latency.map { LatencyBuckets.Bucket(index: $0.index, count: $0.count) },
                sum: report.latencySumMicroseconds),
            retries: report.streams.retries, connectionsOpened: report.streams.connectionsOpened,
            connectionsClosed: report.streams.connectionsClosed, connectionsFailed: report.streams.connectionsFailed,
            bytesSent: report.streams.sentBytes, bytesReceived: report.streams.receivedBytes)
    }

    /// What loops that saw different things agree on: of a port on which they do not, nothing is told.
    static func merged(_ learned: [[UInt16: LearnedProtocol]]) -> [UInt16: LearnedProtocol] {
        var memories: [UInt16: ProtocolMemory] = [:]
        for (port, seen) in learned.joined() { memories[port, default: ProtocolMemory()].observe(seen) }
        return memories.compactMapValues { $0.contradictions == 0 ? $0.learned : nil }
    }

    private static func peer(_ labels: EdgePeerLabels) -> EdgePeer {
        EdgePeer(
            pod: labels.pod, namespace: labels.namespace, owner: labels.workload, app: labels.app,
            version: labels.version,
            identity: labels.identity, address: labels.address)
    }

    private static func ejection(_ ejection: Ejection) -> EjectionReport {
        EjectionReport(
            service: ejection.service, address: ejection.address.ip, pod: ejection.pod,
            sinceUnixMilliseconds: ejection.sinceUnixMilliseconds, why: ejection.cause.rawValue)
    }
}
