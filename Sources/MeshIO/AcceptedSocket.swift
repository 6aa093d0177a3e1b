internal import CApus
internal import Glibc
package import MeshAddress

/// A connected, non-blocking socket that no `Connection` owns yet: either made into one or closed. Let go of unused, it
/// closes itself.
///
/// Unchecked because it is handed from the accepting loop to the one that shall own it, one holder at a time.
package final class AcceptedSocket: @unchecked Sendable {
    /// -1 once taken or closed.
    package private(set) var descriptor: Int32
    package let peer: SocketAddress

    init(descriptor: Int32, peer: SocketAddress) {
        self.descriptor = descriptor
        self.peer = peer
    }

    deinit { close() }

    /// The address it was accepted on.
    package var local: SocketAddress { .local(of: descriptor) }

    /// The address that the peer dialled, when netfilter redirected the connection to this machine's listener; nil when it
    /// did not (or when it does not say).
    package var originalDestination: SocketAddress? {
        var storage = sockaddr_storage()
        guard apus_original_destination(descriptor, peer.ip.isV4 ? 0 : 1, &storage) == 0,
            let address = SocketAddress(storage), address != local
        else { return nil }
        return address
    }

    package func close() {
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
    }

    func take() -> Int32 {
        let taken = descriptor
        precondition(taken >= 0, "a socket was used after it had been taken or closed")
        descriptor = -1
        return taken
    }
}
