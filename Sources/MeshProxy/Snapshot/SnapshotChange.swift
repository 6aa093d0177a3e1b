package import MeshAddress
package import MeshCore

/// One thing that a data loop is to believe from now on. The control side sends them in batches; a batch takes effect as one.
package enum SnapshotChange: Sendable {
    /// What a dialled address turned out to be. A service's address may come before or after the service itself.
    case destination(SocketAddress, Destination)
    /// Nobody keeps this answer fresh any more: the next caller asks again.
    case destinationForgotten(SocketAddress)
    case service(Service)
    case serviceRemoved(ObjectName)
    case endpoint(Endpoint)
    case endpointRemoved(service: ObjectName, address: IPAddress)
    /// The pod that this sidecar serves, and what the mesh asks of it.
    case own(SidecarConfiguration)
    /// Where the control plane answers: the mesh's own addresses are near.
    case controlAddresses([IPAddress])
    /// Whose identities are accepted from callers, besides those of the pod's own trust domain.
    case trustDomains(Set<String>)
}

/// Whom a data loop asks about an address that it does not know. Called on data loops: an implementation hands the question
/// over to its own thread and answers with `DataPlane.apply`.
package protocol DestinationResolver: AnyObject, Sendable {
    /// Somebody dialled `address` and waits. May be asked more than once.
    func resolve(_ address: SocketAddress)
    /// These were dialled during the last minute: their subscriptions are still wanted.
    func keepAlive(_ addresses: [SocketAddress])
}
