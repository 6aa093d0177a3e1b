internal import MeshAPI
package import MeshCore
package import MeshHTTP
package import MeshIO
internal import SwiftProtobuf

/// Whoever keeps what sidecars report. On the service's loop.
package protocol TelemetryReceiver: AnyObject {
    /// Whether a peer with this identity may report for `pod`. Nil permits; else the reason, which the peer is told.
    func refusal(of pod: ObjectName, identity: SPIFFEID) -> String?
    /// `report.pod` is the stream's pod.
    func received(_ report: TelemetryReport, identity: SPIFFEID)
    /// The stream of this pod ended; a newer one may be open already.
    func reporterDisconnected(_ pod: ObjectName)
}

/// `apus.v1.Telemetry` on one loop.
package final class TelemetryService {
    package struct Limits: Sendable {
        package var streams = 20_000
        /// Reports of one stream: so many at once, then so many a second. More ends the stream.
        package var burst = 20
        package var reportsPerSecond = 5

        package init() {}
    }

    package struct Statistics: Sendable, Hashable {
        package var openStreams = 0
        package var streamsRefused: UInt64 = 0
        package var reports: UInt64 = 0
        package var edges: UInt64 = 0
        package var invalidReports: UInt64 = 0
        /// Streams ended for reporting too often.
        package var overRate: UInt64 = 0
        /// Entries beyond what a report may have.
        package var droppedEntries: UInt64 = 0
    }

    let loop: EventLoop
    let limits: Limits
    weak var receiver: (any TelemetryReceiver)?
    package internal(set) var statistics = Statistics()
    private let identify: (GRPCServerCall) -> SPIFFEID?

    /// - Parameter receiver: held weakly.
    package convenience init(loop: EventLoop, receiver: any TelemetryReceiver, limits: Limits = Limits()) {
        self.init(
            loop: loop, receiver: receiver, limits: limits,
            identify: { CertificateIdentity.identity(uriSANs: $0.peerURISANs) })
    }

    package init(
        loop: EventLoop, receiver: any TelemetryReceiver, limits: Limits,
        identify: @escaping (GRPCServerCall) -> SPIFFEID?
    ) {
        self.loop = loop
        self.receiver = receiver
        self.limits = limits
        self.identify = identify
    }

    package func register(on server: GRPCServer) {
        server.register(TelemetryWire.method) { [weak self] call in self?.accept(call) }
    }

    private func accept(_ call: GRPCServerCall) -> (any GRPCServerHandler)? {
        guard statistics.openStreams < limits.streams else {
            statistics.streamsRefused += 1
            call.finish(GRPCStatus(.resourceExhausted, "\(limits.streams) telemetry streams are open; try again later"))
            return nil
        }
        guard let identity = identify(call) else {
            statistics.streamsRefused += 1
            call.finish(GRPCStatus(.unauthenticated, "telemetry needs a client certificate with one SPIFFE ID"))
            return nil
        }
        statistics.openStreams += 1
        call.sendHead()
        return TelemetryStream(service: self, identity: identity)
    }
}

private final class TelemetryStream: GRPCServerHandler {
    private let service: TelemetryService
    private let identity: SPIFFEID
    private var pod: ObjectName?
    private var reports: UInt64 = 0
    private var milliTokens: Int
    private var lastReceived: MonotonicTime

    init(service: TelemetryService, identity: SPIFFEID) {
        self.service = service
        self.identity = identity
        milliTokens = service.limits.burst * 1000
        lastReceived = service.loop.now
    }

    private func admit() -> Bool {
        let now = service.loop.now
        let elapsed = Int(min(max(0, now.nanoseconds(since: lastReceived)), 3_600_000_000_000) / 1_000_000)
        lastReceived = now
        milliTokens = min(service.limits.burst * 1000, milliTokens + elapsed * service.limits.reportsPerSecond)
        guard milliTokens >= 1000 else { return false }
        milliTokens -= 1000
        return true
    }

    func received(_ message: UnsafeRawBufferPointer, on call: GRPCServerCall) {
        guard admit() else {
            service.statistics.overRate += 1
            call.finish(
                GRPCStatus(.resourceExhausted, "more than \(service.limits.reportsPerSecond) reports a second"))
            return
        }
        do throws(InvalidResource) {
            let report = try ResourceDecoding.message(Apus_V1_TelemetryReport.self, [UInt8](message))
            let pod: ObjectName
            if let known = self.pod {
                pod = known
            } else {
                pod = try ResourceDecoding.decode(report.pod, "pod")
                if let reason = service.receiver?.refusal(of: pod, identity: identity) {
                    service.statistics.streamsRefused += 1
                    call.finish(GRPCStatus(.permissionDenied, reason))
                    return
                }
                self.pod = pod
            }
            let decoded = try TelemetryWire.decode(report, pod: pod)
            reports += 1
            service.statistics.reports += 1
            service.statistics.edges += UInt64(decoded.report.edges.count)
            service.statistics.droppedEntries += UInt64(decoded.dropped)
            service.receiver?.received(decoded.report, identity: identity)
        } catch {
            service.statistics.invalidReports += 1
            call.finish(GRPCStatus(.invalidArgument, error.description))
        }
    }

    func receivedEnd(on call: GRPCServerCall) {
        call.send(ResourceEncoding.bytes(Apus_V1_ReportSummary.with { $0.reports = reports }))
        call.finish(.ok)
    }

    func writable(_ call: GRPCServerCall) {}

    func closed(_ call: GRPCServerCall) {
        service.statistics.openStreams -= 1
        if let pod { service.receiver?.reporterDisconnected(pod) }
    }
}
