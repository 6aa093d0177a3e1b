import MeshCore
import MeshHTTP
import MeshIO
import MeshTelemetry

/// The end of a connection that is not served: a client that speaks HTTP is answered with the reason, any other is reset.
///
/// It waits for the client's first bytes to know which it is, but not long.
final class Refusal: ConnectionDelegate, TimerTarget, LoopMember {
    private let loop: ProxyLoop
    private let connection: Connection
    private let refused: RefusedRequests
    private var isAnswered = false
    private var timer: LoopTimer!
    var memberIndex = -1

    static func start(loop: ProxyLoop, connection: Connection, refused: RefusedRequests) {
        let refusal = Refusal(loop, connection, refused)
        connection.resumeReading()
        connection.deliverRetained()
        refusal.timer.arm(afterMilliseconds: ProxyLimits.lingerMilliseconds)
    }

    private init(_ loop: ProxyLoop, _ connection: Connection, _ refused: RefusedRequests) {
        self.loop = loop
        self.connection = connection
        self.refused = refused
        timer = LoopTimer(loop: loop.eventLoop, target: self)
        loop.add(self)
        loop.counters.connectionsRefused &+= 1
        connection.delegate = self
    }

    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        if isAnswered { return bytes.count }
        switch ProtocolDetector.detect(bytes) {
        case .needsMore:
            return 0
        case .found(.http1):
            answer(bytes)
            return bytes.count
        case .found(.http2):
            timer.cancel()
            loop.remove(self)
            return HTTP2Refusal.start(loop: loop, connection: connection, refused: refused, bytes: bytes)
        case .found:
            connection.abort()
            return bytes.count
        }
    }

    private func answer(_ bytes: UnsafeRawBufferPointer) {
        let response = ErrorResponse(refused.error)
        guard let status = response.status else {
            connection.abort()
            return
        }
        isAnswered = true
        var traits: RequestTraits = []
        var subject: RequestSubject?
        if case .complete(let head) = RequestHead.parse(bytes, limits: ProxyLimits.http) {
            traits = head.traits
            if loop.accessLog != nil { subject = RequestSubject(head, bytes) }
        }
        refused.record(on: loop, .http1, status: status, subject: subject)
        response.bytes(status: status, closes: true, answering: traits).withUnsafeBytes { connection.write($0) }
        connection.finishWriting()
    }

    func timerFired(_ timer: LoopTimer) {
        if isAnswered { connection.close() } else { connection.abort() }
    }

    func opened(_ connection: Connection) {}
    func drained(_ connection: Connection) {}
    func drainStarted() {}
    func readEnded(_ connection: Connection) { connection.close() }

    func closed(_ connection: Connection, _ cause: CloseCause) {
        timer.cancel()
        loop.remove(self)
    }
}

/// Requests that are refused before any relay has them: counted and logged like others.
struct RefusedRequests {
    let error: ProxyError
    let direction: HTTPRelay.Direction
    let target: RouteTarget
    let caller: Caller

    func record(
        on loop: ProxyLoop, _ applicationProtocol: ApplicationProtocol, status: Int, grpcStatus: UInt8? = nil,
        subject: RequestSubject?
    ) {
        RequestRecord(
            direction: direction, target: target,
            // Names what was dialled where nothing else does.
            upstream: target.kind == .passthrough ? target.upstreams.first : nil, caller: caller,
            applicationProtocol: applicationProtocol, status: status, grpcStatus: grpcStatus, error: error,
            requestBytes: 0, responseBytes: 0, tries: 0, durationNanoseconds: 0, subject: subject
        ).record(on: loop)
    }
}
