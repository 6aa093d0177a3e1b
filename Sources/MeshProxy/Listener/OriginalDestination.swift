package import MeshAddress
import MeshIO

/// Where a listener's connections were going before they were redirected to it.
package enum DestinationSource: Sendable, Hashable {
    /// The kernel knows: netfilter redirected the connection.
    case redirection
    /// All go to one address, whatever the kernel says: for a listener that nothing is redirected to.
    case fixed(SocketAddress)

    /// Nil when the connection was not redirected.
    func destination(of socket: AcceptedSocket) -> SocketAddress? {
        switch self {
        case .redirection: socket.originalDestination
        case .fixed(let address): address
        }
    }
}
