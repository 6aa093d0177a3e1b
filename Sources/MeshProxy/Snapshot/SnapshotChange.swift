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
    case own(OwnWorkload)
}

/// The pod that this sidecar serves, and what the mesh asks of it.
package struct OwnWorkload: Sendable, Hashable {
    package var workload: Workload
    package var plaintext: MeshSettings.PlaintextPolicy
    package var unknownDestinations: MeshSettings.UnknownDestinationPolicy
    /// Whose identities are accepted from callers: the mesh's own trust domain and those that it federates with.
    package var trustDomains: Set<String>
    /// Ports that are relayed as bytes whatever they speak.
    package var opaquePorts: Set<UInt16>

    package init(
        workload: Workload, plaintext: MeshSettings.PlaintextPolicy = .strict,
        unknownDestinations: MeshSettings.UnknownDestinationPolicy = .allow,
        trustDomains: Set<String> = ["cluster.local"], opaquePorts: Set<UInt16> = []
    ) {
        self.workload = workload
        self.plaintext = plaintext
        self.unknownDestinations = unknownDestinations
        self.trustDomains = trustDomains
        self.opaquePorts = opaquePorts
    }
}

/// Whom a data loop asks about an address that it does not know. Called on data loops: an implementation hands the question
/// over to its own thread and answers with `DataPlane.apply`.
package protocol DestinationResolver: AnyObject, Sendable {
    /// Somebody dialled `address` and waits. May be asked more than once.
    func resolve(_ address: SocketAddress)
    /// These were dialled during the last minute: their subscriptions are still wanted.
    func keepAlive(_ addresses: [SocketAddress])
}
