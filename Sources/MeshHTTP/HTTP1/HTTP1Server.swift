package import MeshAddress
package import MeshIO

/// A server for small requests that are answered whole: admin, metrics, health and probe ports. Not for the data path.
///
/// Requests of one connection are answered one after the other in their order. All of it runs on its loop.
package final class HTTP1Server {
    package struct Limits: Sendable {
        package var headBytes = 8 * 1024
        package var bodyBytes = 64 * 1024
        /// Connections at a time; one more is closed as soon as it is accepted.
        package var connections = 256
        /// From a request's first byte to its last.
        package var requestMilliseconds = 10_000
        /// Between two requests, and before the first.
        package var idleMilliseconds = 60_000
        /// What a handler may take; then its request is answered 503.
        package var handlerMilliseconds = 60_000

        package init() {}
    }

    package struct Statistics: Sendable, Equatable {
        package var requests: UInt64 = 0
        /// Requests that did not parse or passed a limit.
        package var refusedRequests: UInt64 = 0
        package var refusedConnections: UInt64 = 0
        package var timeouts: UInt64 = 0
        package internal(set) var openConnections = 0

        package init() {}
    }

    /// Called on the loop. `reply` is to be called once, on the loop, now or later; further calls do nothing.
    package typealias Handler = (_ request: HTTP1Request, _ reply: @escaping (HTTP1Response) -> Void) -> Void

    package let loop: EventLoop
    package internal(set) var statistics = Statistics()
    /// For connections accepted from now on; nil serves plaintext.
    package var tls: TLSContext?
    let limits: Limits
    let handler: Handler
    private var listener: Listener?
    private(set) var isClosing = false

    package init(
        loop: EventLoop, address: SocketAddress, tls: TLSContext? = nil, limits: Limits = Limits(),
        handler: @escaping Handler
    ) throws(SystemError) {
        self.loop = loop
        self.tls = tls
        self.limits = limits
        self.handler = handler
        listener = try Listener(loop: loop, address: address, delegate: Acceptor(server: self))
    }

    /// With a handler that answers at once.
    package convenience init(
        loop: EventLoop, address: SocketAddress, tls: TLSContext? = nil, limits: Limits = Limits(),
        handler: @escaping (HTTP1Request) -> HTTP1Response
    ) throws(SystemError) {
        try self.init(loop: loop, address: address, tls: tls, limits: limits) { request, reply in
            reply(handler(request))
        }
    }

    /// Where it listens, with the real port; nil once closed.
    package var address: SocketAddress? { listener?.address }

    /// Accepts nothing more; open connections close after the reply to the request they are at, idle ones by their timeout.
    package func close() {
        isClosing = true
        listener?.close()
        listener = nil
    }

    func accepted(_ socket: AcceptedSocket) {
        guard statistics.openConnections < limits.connections else {
            statistics.refusedConnections += 1
            socket.close()
            return
        }
        statistics.openConnections += 1
        HTTP1ServerConnection(server: self).start(socket)
    }
}

/// Between the listener and the server, so that the server's own interface has no delegate method.
private final class Acceptor: ListenerDelegate {
    private weak var server: HTTP1Server?

    init(server: HTTP1Server) { self.server = server }

    func accepted(_ socket: AcceptedSocket, from listener: Listener) {
        if let server { server.accepted(socket) } else { socket.close() }
    }
}
