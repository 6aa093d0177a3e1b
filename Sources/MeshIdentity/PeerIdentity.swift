package import MeshCore

/// Who a peer is, by the URI names of a certificate whose chain TLS has verified already.
package enum PeerIdentity {
    package enum Failure: Error, Equatable, Sendable, CustomStringConvertible {
        /// The certificate names no URI, so it is no SVID.
        case missing
        /// It names several; an SVID names exactly one (X509-SVID §2).
        case ambiguous(count: Int)
        case malformed(SPIFFEID.ParseError)
        case foreignTrustDomain(SPIFFEID)
        /// The ID of a trust domain itself, which no workload may use (X509-SVID §4).
        case withoutPath(SPIFFEID)
        case unexpected(SPIFFEID, expected: SPIFFEID)

        package var description: String {
            switch self {
            case .missing: "the peer's certificate has no URI name, so it carries no SPIFFE ID"
            case .ambiguous(let count): "the peer's certificate has \(count) URI names, expected exactly one"
            case .malformed(let error): error.description
            case .foreignTrustDomain(let id): "the peer is \(id), whose trust domain is not trusted here"
            case .withoutPath(let id): "the peer is \(id), which names a trust domain and no workload"
            case .unexpected(let id, let expected): "the peer is \(id), expected \(expected)"
            }
        }
    }

    /// The one SPIFFE ID among `uriSANs`, checked by X509-SVID §2, §4 and §5.2.
    ///
    /// - Parameter expected: whom the caller means to talk to; nil accepts any workload of the allowed trust domains.
    package static func check(
        uriSANs: [String], allowedTrustDomains: Set<String>, expected: SPIFFEID? = nil
    ) throws(Failure) -> SPIFFEID {
        guard let text = uriSANs.first else { throw .missing }
        guard uriSANs.count == 1 else { throw .ambiguous(count: uriSANs.count) }
        let identity: SPIFFEID
        do {
            identity = try SPIFFEID(parsing: text)
        } catch {
            throw .malformed(error)
        }
        guard allowedTrustDomains.contains(identity.trustDomain) else { throw .foreignTrustDomain(identity) }
        guard !identity.path.isEmpty else { throw .withoutPath(identity) }
        if let expected, identity != expected { throw .unexpected(identity, expected: expected) }
        return identity
    }
}
