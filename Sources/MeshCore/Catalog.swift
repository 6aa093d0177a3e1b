package import MeshAddress

/// One change of what the platform runs. Each names the whole new value; a removal names only its key.
package enum CatalogEvent: Sendable {
    case service(Service)
    case serviceRemoved(ObjectName)
    case endpoint(Endpoint)
    case endpointRemoved(service: ObjectName, address: IPAddress)
    case workload(Workload)
    case workloadRemoved(ObjectName)
    /// Whether a sidecar of this pod must refuse plaintext, and what it does with unknown destinations.
    case settings(MeshSettings)
    /// Everything that existed when the source started has been delivered; discovery may answer «unknown» from here on.
    case synchronized
}

/// Whatever tells the control plane what runs where: the Kubernetes API in production, a list in a test or a simulation.
package protocol CatalogSource: Sendable {
    /// Runs until cancelled, delivering events in order. `arrived` is when the platform's own event reached this process,
    /// for the convergence histogram, in monotonic nanoseconds.
    func run(deliver: @escaping @Sendable (_ events: [CatalogEvent], _ arrivedNanoseconds: UInt64) -> Void) async throws
}

/// The mesh's own settings, the same for every sidecar.
package struct MeshSettings: Sendable, Hashable {
    package enum PlaintextPolicy: String, Sendable, Hashable, CaseIterable {
        /// An inbound connection without a mesh identity is refused.
        case strict
        /// It is served, and counted as unauthenticated.
        case permissive
    }

    package enum UnknownDestinationPolicy: String, Sendable, Hashable, CaseIterable {
        case allow
        case deny
    }

    package var trustDomain: String
    package var plaintext: PlaintextPolicy
    package var unknownDestinations: UnknownDestinationPolicy
    /// Where `plaintext` differs, by namespace.
    package var plaintextByNamespace: [String: PlaintextPolicy]

    package init(
        trustDomain: String = "cluster.local", plaintext: PlaintextPolicy = .strict,
        unknownDestinations: UnknownDestinationPolicy = .allow, plaintextByNamespace: [String: PlaintextPolicy] = [:]
    ) {
        self.trustDomain = trustDomain
        self.plaintext = plaintext
        self.unknownDestinations = unknownDestinations
        self.plaintextByNamespace = plaintextByNamespace
    }

    package func plaintext(in namespace: String) -> PlaintextPolicy {
        plaintextByNamespace[namespace] ?? plaintext
    }
}

/// The roots that verify the mesh's identities (SPIFFE Trust Domain and Bundle §3).
package struct TrustBundle: Sendable, Hashable {
    package var trustDomain: String
    /// Certificates in DER.
    package var roots: [[UInt8]]

    package init(trustDomain: String, roots: [[UInt8]]) {
        self.trustDomain = trustDomain
        self.roots = roots
    }
}
