import MeshAddress
import MeshCore
import MeshIO

/// One address that a loop sends requests to: its connections, its load and its health.
///
/// It belongs to one target (a service's port, or an address dialled by itself), because the connection's preface names the
/// service that was dialled, and because an endpoint may serve one port well and another badly.
final class Upstream {
    enum Security: Equatable {
        case plaintext
        /// TLS between sidecars; the peer must have this identity.
        case mesh(SPIFFEID)
    }

    unowned let loop: ProxyLoop
    /// Nil once the upstream is retired. Not kept alive: a target made for one connection to an unknown address ends with it.
    private(set) weak var target: RouteTarget?
    private(set) var isRetired = false
    let address: SocketAddress
    let security: Security
    var workload: Workload?
    var isReady: Bool
    /// Its sidecar has said that it is about to stop; discovery may say so later, or that it was restarted.
    private(set) var withdrawnUntil: Int64 = 0

    var pool: ConnectionPoolState<UpstreamConnection, HTTPRelay>
    private(set) lazy var http2 = makeHTTP2Pool()
    private var hasHTTP2 = false
    var latency: PeakEWMA
    /// Requests and byte connections under way.
    var pending = 0
    var health = EndpointHealth()
    /// Connections of byte relays, which no pool counts.
    var byteConnections = 0
    /// Where requests to it are counted.
    var edge = CachedEdge()

    static let byteConnectionLimit = 16_384

    init(
        loop: ProxyLoop, target: RouteTarget, address: SocketAddress, security: Security, workload: Workload?,
        isReady: Bool
    ) {
        self.loop = loop
        self.target = target
        self.address = address
        self.security = security
        self.workload = workload
        self.isReady = isReady
        pool = ConnectionPoolState(limits: loop.configuration.pool)
        latency = PeakEWMA(now: loop.now)
    }

    var isMeshed: Bool { security != .plaintext }

    // MARK: - Balancing

    @inline(__always)
    func load(now: Int64) -> Double { latency.load(pending: pending, now: now) }

    @inline(__always)
    var isHealthy: Bool {
        if case .healthy = health.state { return true }
        return false
    }

    /// What it answers decides about its health; how fast, about its load.
    func succeeded() {
        if case .readmitted = OutlierDetector.succeeded(&health) {
            loop.counters.readmissions &+= 1
            target?.rebuildCandidates()
        }
    }

    func failed() {
        guard let target else { return }
        let verdict = OutlierDetector.failed(
            &health, othersEjected: target.ejectedCount, count: target.upstreams.count, now: loop.now)
        if case .ejected = verdict {
            loop.counters.ejections &+= 1
            target.rebuildCandidates()
        }
    }

    /// A failure to connect or a reset says nothing about time, but an endpoint that fails fast must not look fast.
    func failedInTransport() {
        latency.observe(nanoseconds: 1_000_000_000, now: loop.now)
        failed()
    }

    /// Its sidecar is about to stop: new requests go elsewhere while there is an elsewhere.
    func withdraw() {
        guard let target else { return }
        if withdrawnUntil <= loop.now { loop.counters.withdrawals &+= 1 }
        withdrawnUntil = loop.now &+ ProxyLimits.withdrawalMilliseconds &* 1_000_000
        target.rebuildCandidates()
    }

    // MARK: - Connections

    private func makeHTTP2Pool() -> HTTP2Pool {
        hasHTTP2 = true
        return HTTP2Pool(self)
    }

    /// Nothing of its connections is open, waited for or in use.
    var isUnused: Bool { pool.isUnused && pending == 0 && byteConnections == 0 && (!hasHTTP2 || http2.isUnused) }

    enum Checkout {
        case ready(UpstreamConnection)
        /// It comes later, by `connectionReady` or `connectionFailed`.
        case waiting
        case failed(ProxyError)
    }

    /// Gets a connection for `relay`. Calls nobody back before it returns.
    @inline(__always)
    func checkout(_ relay: HTTPRelay) -> Checkout {
        if isMeshed, loop.clientTLS == nil { return .failed(.identityMissing) }
        while true {
            switch pool.checkout(relay, isCautious: !isMeshed && !relay.isRepeatable, now: loop.now) {
            case .use(let connection):
                if pool.hasExpired { closeExpired() }
                if connection.isUsable, !relay.needsLiveConnection || !connection.connection.hasEndedUnread {
                    return .ready(connection)
                }
                // Its end has come in this same round, and its own `closed` comes later.
                connection.abandon()
                if pool.ended() { open() }
            case .connect:
                if pool.hasExpired { closeExpired() }
                open()
                return .waiting
            case .wait:
                return .waiting
            case .refuse:
                return .failed(.connectionQueueFull)
            }
        }
    }

    private func open() {
        UpstreamConnection.open(to: self)
    }

    func cancel(_ relay: HTTPRelay) { _ = pool.cancel(relay) }

    /// A connection has been made and its peer is who it must be.
    func connected(_ connection: UpstreamConnection) {
        guard !isRetired else {
            _ = pool.connectFailed()
            connection.close()
            return
        }
        switch pool.connected(connection, now: loop.now) {
        case .serve(let relay): relay.connectionReady(connection)
        case .keep: break
        case .close: connection.close()
        }
    }

    func connectFailed(_ error: ProxyError) {
        loop.counters.connectFailures &+= 1
        failedInTransport()
        pool.connectFailed()?.connectionFailed(self, error)
    }

    /// The exchange on it is over and its framing allows another.
    @inline(__always)
    func release(_ connection: UpstreamConnection) {
        if isRetired {
            discard(connection)
            return
        }
        switch pool.released(connection, now: loop.now) {
        case .serve(let relay): relay.connectionReady(connection)
        case .keep: break
        case .close: connection.close()
        }
    }

    /// The exchange on it is over, and so is the connection.
    func discard(_ connection: UpstreamConnection) {
        connection.close()
        ended()
    }

    /// A connection in use has ended, or has left the pool for good (an upgrade).
    func ended() {
        if pool.ended() { open() }
    }

    func idleEnded(_ connection: UpstreamConnection) {
        pool.idleEnded(connection, now: loop.now)
    }

    func expireIdle() {
        pool.expire(now: loop.now)
        if pool.hasExpired { closeExpired() }
    }

    private func closeExpired() {
        for connection in pool.takeExpired() { connection.close() }
    }

    /// The endpoint is gone. What is in flight there may finish; what waits goes elsewhere.
    func retire() {
        guard !isRetired else { return }
        isRetired = true
        target = nil
        let (idle, waiters) = pool.shutDown()
        for connection in idle { connection.close() }
        if pool.active > 0 { loop.endpointRemoved(self) }
        for relay in waiters { relay.endpointRemoved(self) }
        if hasHTTP2 { http2.shutDown() }
    }
}

extension Upstream: Equatable {
    static func == (left: Upstream, right: Upstream) -> Bool { left === right }
}
