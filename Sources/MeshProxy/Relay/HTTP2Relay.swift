import Logging
import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshTelemetry

/// A client's HTTP/2 connection: each of its streams is a request with a way of its own.
final class HTTP2Relay: HTTP2SessionDelegate, LoopMember {
    let loop: ProxyLoop
    let direction: HTTPRelay.Direction
    let destination: SocketAddress
    private(set) var target: RouteTarget
    let caller: Caller
    private var session: HTTP2Session!
    /// Until then the client is waited for to see that nothing more is taken; what it sent before may be on its way.
    private var leaveDeadline = Int64.min
    var memberIndex = -1

    /// Takes over a connection whose first unread bytes are HTTP/2's preface, and reads those. Answers how many it took.
    static func start(
        loop: ProxyLoop, downstream: Connection, direction: HTTPRelay.Direction, destination: SocketAddress,
        target: RouteTarget, caller: Caller, bytes: UnsafeRawBufferPointer
    ) -> Int {
        let relay = HTTP2Relay(loop, direction, destination, target, caller)
        loop.add(relay)
        loop.counters.http2Connections &+= 1
        var limits = ProxyLimits.http2Downstream
        limits.stallTimeoutMilliseconds = loop.configuration.deadlines.byteIdleMilliseconds
        if direction == .inbound, caller.labels.identity != nil {
            // A sidecar brings what many clients do, and has judged each of them.
            limits.idleFrameBurst *= ProxyLimits.clientsOfSidecar
            limits.idleFramesPerSecond *= ProxyLimits.clientsOfSidecar
        }
        let session = HTTP2Session(over: downstream, role: .server, limits: limits, delegate: relay)
        relay.session = session
        if direction == .inbound {
            downstream.detectLoss(
                idleSeconds: ProxyLimits.callerSilenceSeconds, intervalSeconds: ProxyLimits.callerSilenceSeconds,
                timeoutMilliseconds: ProxyLimits.callerLossMilliseconds)
        }
        session.opened(downstream)
        if direction == .inbound, loop.isDraining { relay.drainStarted() }
        return bytes.isEmpty ? 0 : session.received(downstream, bytes)
    }

    private init(
        _ loop: ProxyLoop, _ direction: HTTPRelay.Direction, _ destination: SocketAddress, _ target: RouteTarget,
        _ caller: Caller
    ) {
        self.loop = loop
        self.direction = direction
        self.destination = destination
        self.target = target
        self.caller = caller
    }

    /// Where a request goes that begins now: the service may have changed since the connection was made.
    func freshTarget() -> RouteTarget {
        if target.isRemoved, let fresh = loop.freshTarget(for: destination, direction) { target = fresh }
        target.lastUsed = loop.now
        return target
    }

    func opened(_ session: HTTP2Session) {}

    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {
        HTTP2Exchange(self, stream, headers).begin()
    }

    func acceptedTooLarge(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {
        loop.counters.invalidRequests &+= 1
        HTTP2Exchange(self, stream, headers).refuse(.invalidRequest(.headTooLarge))
    }

    func requestRefused(_ session: HTTP2Session) {
        loop.counters.invalidRequests &+= 1
        loop.log(.info, "reset an HTTP/2 request that breaks the rules: \(session.diagnosis)")
    }

    func goAwayReceived(_ session: HTTP2Session) {}

    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) {
        loop.countEnd(cause)
        loop.remove(self)
    }

    /// Requests may still come that were sent before the client knew better.
    var isTakingLeave: Bool { leaveDeadline > loop.now && !session.isShutdownKnown }

    /// A GOAWAY tells the caller to send its next requests elsewhere; those that were on their way are still served.
    func drainStarted() {
        guard direction == .inbound else { return }
        leaveDeadline = loop.now &+ ProxyLimits.leaveMilliseconds &* 1_000_000
        session.shutdown(graceMilliseconds: ProxyLimits.http2GraceMilliseconds)
    }
}
