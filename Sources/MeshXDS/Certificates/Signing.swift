package import MeshAddress
package import MeshCore

/// A sidecar's request for a certificate.
package struct CertificateSigningRequest: Sendable {
    /// PKCS#10 in DER.
    package let certificateRequest: [UInt8]
    /// The pod's projected service-account token.
    package let token: String
    /// Zero leaves it to the authority.
    package let lifetimeSeconds: Int
    package let peer: SocketAddress

    package init(certificateRequest: [UInt8], token: String, lifetimeSeconds: Int, peer: SocketAddress) {
        self.certificateRequest = certificateRequest
        self.token = token
        self.lifetimeSeconds = lifetimeSeconds
        self.peer = peer
    }
}

package struct SignedCertificate: Sendable, Hashable {
    /// DER, the leaf first.
    package var chain: [[UInt8]]
    package var notAfterUnixSeconds: Int64
    package var trustBundle: TrustBundle

    package init(chain: [[UInt8]], notAfterUnixSeconds: Int64, trustBundle: TrustBundle) {
        self.chain = chain
        self.notAfterUnixSeconds = notAfterUnixSeconds
        self.trustBundle = trustBundle
    }
}

/// Why an authority does not sign, in words for the sidecar's log.
package enum CertificateRefusal: Error, Sendable, Hashable {
    /// The platform does not vouch for the token.
    case unauthenticated(String)
    /// The identity that the token proves may have no certificate.
    case permissionDenied(String)
    /// The request is malformed.
    case invalidRequest(String)
    /// Too many requests wait; the same one may succeed later.
    case busy(String)
    /// The platform cannot be asked now, or the authority is not loaded; the same one may succeed later.
    case unavailable(String)
    case `internal`(String)

    package var message: String {
        switch self {
        case .unauthenticated(let text), .permissionDenied(let text), .invalidRequest(let text), .busy(let text),
            .unavailable(let text), .internal(let text):
            text
        }
    }
}

/// Why a sidecar got no certificate.
package struct CertificateSignFailure: Error, Sendable, Hashable, CustomStringConvertible {
    package let message: String
    /// Whether the same request may succeed later.
    package let isRetryable: Bool

    package init(message: String, isRetryable: Bool) {
        self.message = message
        self.isRetryable = isRetryable
    }

    package var description: String { message }
}

enum SigningLimits {
    static let method = "/apus.v1.CertificateAuthority/Sign"
    static let certificateRequestBytes = 16 * 1024
    static let tokenBytes = 16 * 1024
    static let chainLength = 8
}
