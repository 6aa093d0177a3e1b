import MeshCore
import MeshHTTP
import MeshIO

/// An HTTP/2 connection to an application or to its sidecar: many requests at a time.
final class HTTP2UpstreamConnection: HTTP2SessionDelegate, LoopMember {
    private let pool: HTTP2Pool
    private let upstream: Upstream
    private(set) var session: HTTP2Session!
    private(set) var isEstablished = false
    /// The pool has been told of its end.
    private var hasEnded = false
    var memberIndex = -1

    init(_ pool: HTTP2Pool, to upstream: Upstream) {
        self.pool = pool
        self.upstream = upstream
        let loop = upstream.loop
        let timeout = upstream.target?.decision.connectTimeoutMilliseconds ?? 1000
        var tls: (TLSContext, serverName: String?)?
        if upstream.isMeshed, let context = loop.clientTLS { tls = (context, serverName: nil) }
        loop.add(self)
        loop.counters.connectionsOpened &+= 1
        let connection = Connection(
            connectingTo: upstream.address, loop: loop.eventLoop, tls: tls, connectTimeoutMilliseconds: timeout,
            handshakeTimeoutMilliseconds: max(timeout, ProxyLimits.handshakeMilliseconds), delegate: nil)
        var limits = ProxyLimits.http2Upstream
        limits.stallTimeoutMilliseconds = loop.configuration.deadlines.byteIdleMilliseconds
        session = HTTP2Session(over: connection, role: .client, limits: limits, delegate: self)
    }

    /// It stands, and its peer has not said that it takes no more.
    var isTakingRequests: Bool { isEstablished && !session.isDraining }

    var canOpenStream: Bool {
        isEstablished && session.canOpenStream
            && (session.hasSettings || session.openStreams < pool.presumedStreamLimit)
    }

    /// How much it may carry is not known yet.
    var awaitsSettings: Bool { isTakingRequests && !session.hasSettings }

    /// Takes no new requests; those under way finish.
    func shutdown() {
        if isEstablished {
            session.connection.detectLoss(
                idleSeconds: 1, intervalSeconds: 1, timeoutMilliseconds: ProxyLimits.removedLossMilliseconds)
            session.shutdown(graceMilliseconds: ProxyLimits.http2GraceMilliseconds)
        } else {
            hasEnded = true
            session.abort(reason: "the endpoint was removed")
        }
    }

    // MARK: - Session

    func opened(_ session: HTTP2Session) {
        if case .mesh(let expected) = upstream.security {
            if let problem = MeshClientTLS.problem(with: session.connection.tls, expected: expected) {
                hasEnded = true
                upstream.loop.counters.identityMismatches &+= 1
                session.abort(reason: "the peer is not whom it should be")
                pool.connectFailed(self, problem)
                return
            }
            upstream.loop.preface(.http2, to: upstream).encoded.withUnsafeBytes { session.connection.write($0) }
        }
        isEstablished = true
        session.connection.detectLoss(
            idleSeconds: ProxyLimits.silenceSeconds, intervalSeconds: ProxyLimits.silenceIntervalSeconds,
            timeoutMilliseconds: ProxyLimits.lossMilliseconds)
        pool.connected(self)
    }

    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {}

    func settingsReceived(_ session: HTTP2Session) {
        pool.settingsReceived(streamLimit: session.peerStreamLimit)
    }

    func goAwayReceived(_ session: HTTP2Session) {
        if session.isPeerLeaving, upstream.isMeshed { upstream.withdraw() }
        pool.serveWaiting()
    }

    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) {
        upstream.loop.remove(self)
        upstream.loop.countEnd(cause)
        guard !hasEnded else { return }
        hasEnded = true
        if isEstablished {
            pool.ended(self)
        } else if case .transport(let cause) = cause {
            pool.connectFailed(self, ProxyError(connecting: cause))
        } else {
            pool.connectFailed(self, .connectFailed(cause.description))
        }
    }

    func drainStarted() {}
}
