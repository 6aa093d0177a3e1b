package import MeshCore

/// Whether a connection may come in.
package enum Authorizer {
    /// Who is calling, as far as the connection itself proves it.
    package enum Caller: Sendable, Equatable {
        /// A verified certificate of the mesh.
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
        /// The identity is of a trust domain that is not ours nor federated.
        case foreignTrustDomain(String)
    }

    /// `own` is nil before the control plane has said who this pod is: then only the mesh may call.
    package static func decide(_ caller: Caller, own: OwnWorkload?) -> Decision {
        switch caller {
        case .mesh(let identity):
            guard let own else { return .allow }
            return own.trustDomains.contains(identity.trustDomain)
                ? .allow : .deny(.foreignTrustDomain(identity.trustDomain))
        case .otherTLS, .plaintext:
            return own?.plaintext == .permissive ? .allow : .deny(.identityRequired)
        }
    }
}

/// Reads the one SPIFFE ID that a peer's certificate must have (X.509-SVID §2: exactly one URI SAN).
package enum PeerIdentity {
    package enum Problem: Error, Sendable, Equatable, CustomStringConvertible {
        case none
        case several(Int)
        case malformed(String)

        package var description: String {
            switch self {
            case .none: "the certificate has no URI name; a SPIFFE ID was expected"
            case .several(let count): "the certificate has \(count) URI names; exactly one was expected"
            case .malformed(let text): text
            }
        }
    }

    package static func read(uriSANs: [String]) throws(Problem) -> SPIFFEID {
        guard let first = uriSANs.first else { throw .none }
        guard uriSANs.count == 1 else { throw .several(uriSANs.count) }
        do {
            return try SPIFFEID(parsing: first)
        } catch {
            throw .malformed(error.description)
        }
    }
}
