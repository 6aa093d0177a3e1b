import MeshCore
import MeshHTTP
import MeshIO

/// A connection of a pool: to an application or to its sidecar. Between exchanges it watches for its peer's end; during one
/// it hands everything to the relay.
final class UpstreamConnection: ConnectionDelegate, LoopMember {
    let upstream: Upstream
    private(set) var connection: Connection!
    /// Whose request is on it.
    var relay: HTTPRelay?
    private(set) var isEstablished = false
    /// Nothing has been written yet: the preface goes in front of the first request.
    private var needsPreface = false
    /// The peer sends no more, or the connection is given up.
    private var hasEnded = false
    /// The pool no longer counts it as in use.
    private var isReturned = false
    /// Requests that were answered in full.
    private(set) var served = 0
    /// When the last exchange ended.
    private var freedAt: Int64 = 0
    /// How long it had been idle before the request that is on it.
    private(set) var idleBefore: Int64 = 0
    /// What had been sent before the request that is on it.
    private var sentBefore: UInt64 = 0
    var memberIndex = -1

    static func open(to upstream: Upstream) {
        _ = UpstreamConnection(to: upstream)
    }

    private init(to upstream: Upstream) {
        self.upstream = upstream
        let loop = upstream.loop
        let timeout = upstream.target?.decision.connectTimeoutMilliseconds ?? 1000
        var tls: (TLSContext, serverName: String?)?
        if upstream.isMeshed, let context = loop.clientTLS {
            tls = (context, serverName: nil)
            needsPreface = true
        }
        loop.add(self)
        loop.counters.connectionsOpened &+= 1
        connection = Connection(
            connectingTo: upstream.address, loop: loop.eventLoop, tls: tls, connectTimeoutMilliseconds: timeout,
            handshakeTimeoutMilliseconds: max(timeout, ProxyLimits.handshakeMilliseconds), delegate: self)
    }

    /// False once the peer has said that it sends no more.
    @inline(__always)
    var isUsable: Bool { isEstablished && !hasEnded }

    /// Whether a request on it may meet a peer that has just closed an idle connection.
    var isReused: Bool { served > 0 }

    /// Whether the endpoint has provably seen nothing of the request that is on it. To be asked when the connection has ended.
    var hasLostRequest: Bool { connection.hasLost(allAfter: sentBefore) }

    // MARK: - The relay's side

    /// Sends the beginning of a request.
    @inline(__always)
    func send(_ head: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer) {
        sentBefore = connection.bytesSent
        idleBefore = served > 0 ? upstream.loop.now &- freedAt : 0
        if needsPreface {
            sendWithPreface(head, body)
        } else {
            connection.write(head, body)
        }
    }

    private func sendWithPreface(_ head: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer) {
        needsPreface = false
        var bytes = upstream.loop.preface(.http1, to: upstream).encoded
        bytes.append(contentsOf: head)
        bytes.withUnsafeBytes { connection.write($0, body) }
    }

    /// The exchange is over in order.
    @inline(__always)
    func finishExchange(reusable: Bool) {
        relay = nil
        served &+= 1
        freedAt = upstream.loop.now
        upstream.pool.proveIdle(age: idleBefore)
        if reusable, isUsable, connection.retainedBytes == 0 {
            connection.resumeReading()
            upstream.release(self)
        } else {
            hasEnded = true
            isReturned = true
            upstream.discard(self)
        }
    }

    /// The exchange was broken off: what the peer still sends belongs to nobody.
    func abortExchange() {
        relay = nil
        guard !isReturned else { return }
        hasEnded = true
        isReturned = true
        connection.abort()
        upstream.ended()
    }

    /// Leaves the pool with its connection in a relay's hands (an upgrade).
    func surrender() -> Connection {
        relay = nil
        hasEnded = true
        isReturned = true
        upstream.loop.remove(self)
        upstream.ended()
        return connection
    }

    /// Its endpoint was removed. What is in flight may finish, if anybody is there; one that vanished is found out soon.
    func endpointRemoved() {
        guard isEstablished, !hasEnded else { return }
        connection.detectLoss(
            idleSeconds: 1, intervalSeconds: 1, timeoutMilliseconds: ProxyLimits.removedLossMilliseconds)
    }

    /// Closes an idle connection.
    func close() {
        hasEnded = true
        connection.close()
    }

    /// Out of the pool's books already.
    func abandon() {
        hasEnded = true
        connection.abort()
    }

    // MARK: - Connection

    func opened(_ connection: Connection) {
        if case .mesh(let expected) = upstream.security,
            let problem = MeshClientTLS.problem(with: connection.tls, expected: expected)
        {
            hasEnded = true
            upstream.loop.counters.identityMismatches &+= 1
            connection.abort()
            upstream.connectFailed(problem)
            return
        }
        isEstablished = true
        connection.detectLoss(
            idleSeconds: ProxyLimits.silenceSeconds, intervalSeconds: ProxyLimits.silenceIntervalSeconds,
            timeoutMilliseconds: ProxyLimits.lossMilliseconds)
        upstream.connected(self)
    }

    @inline(__always)
    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard let relay else {
            // Nobody asked: an answer to nothing is the beginning of a response split between two requests.
            if isEstablished, !hasEnded {
                hasEnded = true
                upstream.idleEnded(self)
                connection.abort()
            }
            return bytes.count
        }
        return relay.upstreamReceived(self, bytes)
    }

    func readEnded(_ connection: Connection) {
        if let relay {
            hasEnded = true
            relay.upstreamReadEnded(self)
        } else if isEstablished, !hasEnded {
            hasEnded = true
            upstream.idleEnded(self)
            connection.close()
        }
    }

    func drained(_ connection: Connection) {
        relay?.upstreamDrained()
    }

    func closed(_ connection: Connection, _ cause: CloseCause) {
        upstream.loop.remove(self)
        if !isEstablished {
            guard !hasEnded else { return }
            hasEnded = true
            upstream.connectFailed(ProxyError(connecting: cause))
        } else if let relay {
            hasEnded = true
            isReturned = true
            self.relay = nil
            upstream.ended()
            relay.upstreamClosed(self, cause)
        } else if !hasEnded {
            hasEnded = true
            upstream.idleEnded(self)
        }
    }

    func drainStarted() {}
}

extension UpstreamConnection: Equatable {
    static func == (left: UpstreamConnection, right: UpstreamConnection) -> Bool { left === right }
}
