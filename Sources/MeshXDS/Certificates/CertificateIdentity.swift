internal import MeshCore

/// Who a peer is by the URI names of its certificate.
enum CertificateIdentity {
    /// Nil unless there is exactly one and it is a SPIFFE ID (X.509-SVID §5.2).
    static func identity(uriSANs: [String]) -> SPIFFEID? {
        guard uriSANs.count == 1, let name = uriSANs.first else { return nil }
        return try? SPIFFEID(parsing: name)
    }
}
