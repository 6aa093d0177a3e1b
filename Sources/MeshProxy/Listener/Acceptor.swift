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
        let destination = source.destination(of: socket)
        switch direction {
        case .outbound: OutboundConnection.accept(socket, destination: destination, on: loop)
        case .inbound: InboundConnection.accept(socket, destination: destination, on: loop)
        }
    }
}
