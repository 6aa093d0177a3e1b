package import MeshAddress
package import MeshCore

/// Where a `DiscoveryServer` reads what it sends. Called on the server's loop, synchronously; whoever implements it
/// tells the server afterwards what changed. The server asks only for what some sidecar subscribed to, and keeps only
/// that.
package protocol DiscoverySource: AnyObject {
    /// False until everything the platform runs is known. Before that the server answers no subscription to a
    /// destination, so that «unknown» is never said too early; call `DiscoveryServer.synchronized()` when it becomes
    /// true.
    var isSynchronized: Bool { get }

    /// What an address is that an application dialled.
    func destination(for address: SocketAddress) -> Destination

    /// Nil when there is no such service (any more).
    func service(_ name: ObjectName) -> Service?

    /// All endpoints of a service, ready or not.
    func endpoints(of service: ObjectName) -> [Endpoint]

    /// What the sidecar of a pod must know of itself; nil while the pod is unknown.
    func configuration(of pod: ObjectName) -> SidecarConfiguration?

    /// Of every trust domain whose identities the mesh accepts, its own first.
    func trustBundles() -> [TrustBundle]
}

/// What a `DiscoveryServer` asks and tells besides. All on its loop.
package protocol DiscoveryServerDelegate: AnyObject {
    /// Whether a peer with this identity may have a stream as the sidecar of `pod`. Nil permits; else the reason, which
    /// the peer is told (PERMISSION_DENIED) before anything is sent to it.
    func refusal(of pod: ObjectName, identity: SPIFFEID) -> String?

    /// A sidecar's stream is open, or what is known of it changed: it acknowledged everything, or refused something.
    func sidecarChanged(_ status: DiscoverySubscriberStatus)

    /// Its stream is closed. A newer stream of the same pod may be open already: `stream` tells them apart.
    func sidecarDisconnected(_ status: DiscoverySubscriberStatus)

    /// A change has been acknowledged by the last of `subscribers` sidecars, so long after the platform's event arrived
    /// here.
    func converged(nanoseconds: UInt64, subscribers: Int)
}

/// A sidecar as its discovery stream shows it.
package struct DiscoverySubscriberStatus: Sendable, Hashable {
    /// Counts streams of this server; never reused.
    package var stream: UInt64
    package var pod: ObjectName
    package var identity: SPIFFEID
    /// As the sidecar says (`user_agent_version`).
    package var version: String
    package var peer: SocketAddress
    /// Monotonic nanoseconds.
    package var connectedAtNanoseconds: Int64
    /// Destinations it subscribed to.
    package var subscriptions: Int
    /// Whether it acknowledged everything that it should have.
    package var isCurrent: Bool
    /// What it refused and has not accepted since; 16 at most, the newest.
    package var refusals: [ResourceRefusal]
}
