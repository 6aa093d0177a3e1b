/// What a sidecar must know of its own pod: the discovery resource `Self`.
package struct SidecarConfiguration: Sendable, Hashable {
    /// Its own pod: ports, their protocols, identity.
    package var workload: Workload
    package var trustDomain: String
    /// In force for this pod's namespace.
    package var plaintext: MeshSettings.PlaintextPolicy
    package var unknownDestinations: MeshSettings.UnknownDestinationPolicy

    package init(
        workload: Workload, trustDomain: String, plaintext: MeshSettings.PlaintextPolicy = .strict,
        unknownDestinations: MeshSettings.UnknownDestinationPolicy = .allow
    ) {
        self.workload = workload
        self.trustDomain = trustDomain
        self.plaintext = plaintext
        self.unknownDestinations = unknownDestinations
    }
}
