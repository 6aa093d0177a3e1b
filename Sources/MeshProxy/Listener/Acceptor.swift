import MeshAddress
import MeshIO

/// One listener of a loop and the spine that its connections enter.
final class Acceptor: ListenerDelegate {
    private let direction: HTTPRelay.Direction
    private let source: DestinationSource
    private unowned let loop: ProxyLoop
    private(set) var listener: Listener!

    init(
        loop: ProxyLoop, direction: HTTPRelay.Direction, configuration: DataPlane.ListenerConfiguration, reusePort: Bool
    ) throws(SystemError) {
        self.loop = loop
        self.direction = direction
        source = configuration.destination
        listener = try Listener(
            loop: loop.eventLoop, address: configuration.address, reusePort: reusePort, delegate: self)
    }

    func accepted(_ socket: AcceptedSocket, from listener: Listener) {
        guard let destination = admit(socket) else { return socket.close() }
        switch direction {
        case .outbound: OutboundConnection(socket, destination, loop).resolve()
        case .inbound: InboundConnection(socket, destination, loop).peek()
        }
    }

    /// Where the connection was going; nil when it is refused. One that was not redirected, or whose destination is the sidecar
    /// itself, would go round in a circle.
    private func admit(_ socket: AcceptedSocket) -> SocketAddress? {
        guard let destination = source.destination(of: socket) else {
            loop.counters.notRedirected &+= 1
            return nil
        }
        guard !loop.isOwnListener(destination) else {
            loop.counters.loopsRefused &+= 1
            return nil
        }
        guard loop.mayAccept else {
            loop.counters.connectionsRefused &+= 1
            return nil
        }
        return destination
    }
}
