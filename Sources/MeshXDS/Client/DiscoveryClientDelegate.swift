package import MeshAddress
package import MeshCore

/// What a `DiscoveryClient` learnt. All on its loop, in the order of the stream: a service and its endpoints come
/// before the destination that leads to them, so that a destination is complete when it arrives.
package protocol DiscoveryClientDelegate: AnyObject {
    func serviceChanged(_ service: Service)
    /// Nobody needs it any more: it is gone, or the last destination that led to it. Its endpoints are gone with it.
    func serviceRemoved(_ name: ObjectName)
    func endpointChanged(_ endpoint: Endpoint)
    func endpointRemoved(service: ObjectName, address: IPAddress)
    func destinationChanged(_ address: SocketAddress, _ destination: Destination)
    /// The subscription ended (idle or unsubscribed): forget the answer.
    func destinationForgotten(_ address: SocketAddress)
    func selfChanged(_ configuration: SidecarConfiguration)
    func trustBundleChanged(_ bundle: TrustBundle)
    func trustBundleRemoved(trustDomain: String)
    /// A resource was refused (NACK), for the log; its old version stays in force.
    func resourceRefused(_ refusal: ResourceRefusal)
    /// Whether the stream to the control plane is up; `reason` says why not.
    func connectionChanged(isConnected: Bool, reason: String)
    /// The file with the last known state could not be read (and is ignored) or written, for the log.
    func stateFileIgnored(path: String, reason: String)
    /// A destination has been in use since the last asking: the client asks before it drops an idle subscription.
    func isInUse(_ address: SocketAddress) -> Bool
}

extension DiscoveryClientDelegate {
    package func stateFileIgnored(path: String, reason: String) {}
}
