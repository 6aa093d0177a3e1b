import DequeModule
import MeshCore
import MeshHTTP
import MeshIO

/// The HTTP/2 connections of one loop to one endpoint: one, until it carries as many requests as its peer permits.
final class HTTP2Pool {
    enum Checkout {
        case ready(HTTP2UpstreamConnection)
        /// It comes later, by `connectionReady` or `connectionFailed`.
        case waiting
        case failed(ProxyError)
    }

    private unowned let upstream: Upstream
    private var connections: ContiguousArray<HTTP2UpstreamConnection> = []
    private var connecting: HTTP2UpstreamConnection?
    private var waiters: Deque<HTTP2Exchange> = []
    /// Before this time no further connection is tried.
    private var nextConnect: Int64 = 0
    /// What a connection is taken to permit until its peer has said: what the last one said, or what RFC 9113 §6.5.2 advises at
    /// least.
    private(set) var presumedStreamLimit = 100

    init(_ upstream: Upstream) {
        self.upstream = upstream
    }

    var isUnused: Bool { connections.isEmpty && connecting == nil && waiters.isEmpty }

    /// Gets a connection for the exchange. Calls nobody back before it returns.
    func checkout(_ exchange: HTTP2Exchange) -> Checkout {
        if upstream.isMeshed, upstream.loop.clientTLS == nil { return .failed(.identityMissing) }
        for connection in connections where connection.canOpenStream { return .ready(connection) }
        guard waiters.count < ProxyLimits.http2Waiting else { return .failed(.connectionQueueFull) }
        waiters.append(exchange)
        openIfNeeded()
        return .waiting
    }

    /// The exchange gives up.
    func cancel(_ exchange: HTTP2Exchange) {
        if let index = waiters.firstIndex(where: { $0 === exchange }) { waiters.remove(at: index) }
    }

    private func openIfNeeded() {
        guard connecting == nil, !waiters.isEmpty, upstream.loop.now >= nextConnect, !upstream.isRetired else { return }
        // What a new one may carry shows in a moment.
        guard !connections.contains(where: \.awaitsSettings) else { return }
        // Those that take no more requests are on their way out, however long their last ones take.
        guard connections.count(where: \.isTakingRequests) < ProxyLimits.http2Connections else { return }
        connecting = HTTP2UpstreamConnection(self, to: upstream)
    }

    func connected(_ connection: HTTP2UpstreamConnection) {
        connecting = nil
        guard !upstream.isRetired else {
            connection.shutdown()
            return
        }
        connections.append(connection)
        serveWaiting()
    }

    func settingsReceived(streamLimit: Int) {
        presumedStreamLimit = min(streamLimit, 100)
        serveWaiting()
    }

    func connectFailed(_ connection: HTTP2UpstreamConnection, _ error: ProxyError) {
        connecting = nil
        upstream.loop.counters.connectFailures &+= 1
        upstream.failedInTransport()
        // Whoever waits has its turn when a stream ends on a connection that stands.
        if connections.contains(where: \.isTakingRequests) {
            nextConnect = upstream.loop.now &+ ProxyLimits.http2ConnectPauseMilliseconds &* 1_000_000
            return
        }
        let failed = waiters
        waiters.removeAll()
        for exchange in failed { exchange.connectionFailed(upstream, error) }
    }

    func ended(_ connection: HTTP2UpstreamConnection) {
        if let index = connections.firstIndex(where: { $0 === connection }) { connections.remove(at: index) }
        serveWaiting()
    }

    /// A stream has ended, or a connection takes no more.
    func serveWaiting() {
        while !waiters.isEmpty {
            guard let connection = connections.first(where: { $0.canOpenStream }) else { break }
            waiters.removeFirst().connectionReady(connection)
        }
        openIfNeeded()
    }

    /// The endpoint is gone. What is in flight there may finish; what waits goes elsewhere.
    func shutDown() {
        for connection in Array(connections) { connection.shutdown() }
        connecting?.shutdown()
        connecting = nil
        let waiting = waiters
        waiters.removeAll()
        for exchange in waiting { exchange.endpointRemoved(upstream) }
    }
}
