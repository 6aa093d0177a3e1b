/// A SPIFFE ID: `spiffe://<trust-domain>/<path>` (SPIFFE-ID §2).
///
/// The identities that Apus issues have the path `/ns/<namespace>/sa/<service-account>`; a peer of a federated trust
/// domain may have any path.
package struct SPIFFEID: Hashable, Sendable {
    package let trustDomain: String
    /// With its leading slash; empty for the ID of a trust domain itself.
    package let path: String

    package init(trustDomain: String, namespace: String, serviceAccount: String) {
        self.trustDomain = trustDomain
        self.path = "/ns/\(namespace)/sa/\(serviceAccount)"
    }

    /// Why a text is not a SPIFFE ID, in words for its author.
    package struct ParseError: Error, Equatable, CustomStringConvertible {
        package let value: String
        package let reason: String
        package var description: String { "'\(value)' is not a SPIFFE ID: \(reason)" }
    }

    /// Parses and checks by SPIFFE-ID §2.1 to §2.3: the scheme, the characters of trust domain (255 bytes at most) and path, no
    /// empty, `.` or `..` segment, no trailing slash, 2,048 bytes at most.
    package init(parsing text: String) throws(ParseError) {
        func fail(_ reason: String) -> ParseError { ParseError(value: text, reason: reason) }
        guard text.utf8.count <= 2048 else { throw fail("longer than 2,048 bytes") }
        guard text.hasPrefix("spiffe://") else { throw fail("it does not start with spiffe://") }
        let rest = text.dropFirst("spiffe://".count)
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let domain = rest[..<slash]
        let path = rest[slash...]
        guard !domain.isEmpty, domain.utf8.count <= 255 else { throw fail("the trust domain must have 1 to 255 bytes") }
        guard domain.utf8.allSatisfy(SPIFFEID.isTrustDomainByte) else {
            throw fail("a trust domain has lower-case letters, digits, '.', '-' and '_' only")
        }
        if !path.isEmpty {
            for segment in path.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
                guard !segment.isEmpty, segment != ".", segment != ".." else {
                    throw fail("its path has an empty, '.' or '..' segment")
                }
                guard segment.utf8.allSatisfy(SPIFFEID.isPathByte) else {
                    throw fail("a path has letters, digits, '.', '-' and '_' only")
                }
            }
        }
        self.trustDomain = String(domain)
        self.path = String(path)
    }

    /// The namespace and service account, when the path has the form that Apus issues.
    package var serviceAccount: (namespace: String, name: String)? {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 5, parts[1] == "ns", parts[3] == "sa" else { return nil }
        return (String(parts[2]), String(parts[4]))
    }

    private static func isTrustDomainByte(_ byte: UInt8) -> Bool {
        (97...122).contains(byte) || (48...57).contains(byte) || byte == 45 || byte == 46 || byte == 95
    }

    private static func isPathByte(_ byte: UInt8) -> Bool {
        isTrustDomainByte(byte) || (65...90).contains(byte)
    }
}

extension SPIFFEID: CustomStringConvertible {
    package var description: String { "spiffe://\(trustDomain)\(path)" }
}
