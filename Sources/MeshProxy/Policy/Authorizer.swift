package import MeshCore

/// Whether a connection may come in.
package enum Authorizer {
    /// Who is calling, as far as the connection itself proves it.
    package enum Caller: Sendable, Equatable {
        /// A verified certificate whose identity belongs to a trust domain that this mesh accepts.
        case mesh(SPIFFEID)
        /// The application's own TLS, which is not opened here.
        case otherTLS
        case plaintext
    }

    package enum Decision: Sendable, Equatable {
        case allow
        case deny(Denial)
    }

    package enum Denial: Sendable, Equatable {
        /// Policy is strict and the caller has no mesh identity.
        case identityRequired
    }

    /// `own` is nil before the control plane has said who this pod is: then only the mesh may call.
    package static func decide(_ caller: Caller, own: SidecarConfiguration?) -> Decision {
        switch caller {
        case .mesh:
            return .allow
        case .otherTLS, .plaintext:
            return own?.plaintext == .permissive ? .allow : .deny(.identityRequired)
        }
    }
}
