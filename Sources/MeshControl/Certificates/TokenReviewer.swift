package import MeshCore

/// Asks the platform who holds a service-account token: TokenReview in production, a table in tests.
package protocol TokenReviewer: Sendable {
    /// Throws when the platform cannot be asked now; the caller is then told to try again.
    func review(token: String, audience: String) async throws -> TokenVerdict
}

package enum TokenVerdict: Sendable, Hashable {
    /// - Parameters:
    ///   - username: `system:serviceaccount:<namespace>:<name>` for a service account.
    ///   - pod: the pod that the token is bound to, when the platform tells.
    case authenticated(username: String, pod: ObjectName?)
    case rejected(reason: String)
}

/// From what the platform vouches for to an identity: pure.
package enum ReviewedIdentity {
    package static func identity(username: String, trustDomain: String) -> SPIFFEID? {
        let parts = username.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0] == "system", parts[1] == "serviceaccount", isName(parts[2]), isName(parts[3])
        else {
            return nil
        }
        return SPIFFEID(trustDomain: trustDomain, namespace: String(parts[2]), serviceAccount: String(parts[3]))
    }

    /// A DNS subdomain (RFC 1123), as the platform names namespaces and service accounts: nothing else may get into a
    /// SPIFFE ID.
    private static func isName(_ text: Substring) -> Bool {
        (1...253).contains(text.utf8.count) && text != "." && text != ".."
            && text.utf8.allSatisfy { byte in
                (97...122).contains(byte) || (48...57).contains(byte) || byte == UInt8(ascii: "-")
                    || byte == UInt8(ascii: ".")
            }
    }
}
