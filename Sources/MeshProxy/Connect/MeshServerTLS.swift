import MeshCore
import MeshIO
import MeshIdentity

/// The called side of TLS between sidecars: who the caller is.
enum MeshServerTLS {
    /// The caller's identity, of one of the trust domains, or why it has none.
    static func identity(
        of tls: TLSInformation?, trustDomains: Set<String>
    ) throws(PeerIdentity.Failure) -> SPIFFEID {
        try PeerIdentity.check(uriSANs: tls?.peerURISANs ?? [], allowedTrustDomains: trustDomains)
    }
}
