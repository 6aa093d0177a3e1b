package import MeshCore
internal import SwiftASN1
internal import X509

/// Checks a leaf against the rules of SPIFFE X509-SVID §2 to §5 and against one root, without a network or a clock of
/// its own.
///
/// The data path leaves chains to TLS; this is for what is received as a document: a certificate just issued, a stored
/// state.
package enum SVIDVerifier {
    package struct Failure: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    /// - Returns: the leaf's identity and its end.
    package static func verify(
        leafDER: [UInt8], roots: [[UInt8]], allowedTrustDomains: Set<String>, now: Timestamp
    ) throws(Failure) -> (identity: SPIFFEID, notBefore: Timestamp, notAfter: Timestamp) {
        let leaf = try parse(leafDER, as: "the leaf")
        let identity: SPIFFEID
        do {
            identity = try PeerIdentity.check(uriSANs: try uriNames(of: leaf), allowedTrustDomains: allowedTrustDomains)
        } catch let error as PeerIdentity.Failure {
            throw Failure(description: error.description)
        } catch {
            throw Failure(description: "the leaf's names cannot be read: \(error)")
        }
        do {
            if case .isCertificateAuthority = try leaf.extensions.basicConstraints ?? .notCertificateAuthority {
                throw Failure(description: "the leaf is a certificate authority")
            }
            guard let usage = try leaf.extensions.keyUsage, usage.digitalSignature, !usage.keyCertSign, !usage.cRLSign,
                leaf.extensions[oid: .X509ExtensionID.keyUsage]?.critical == true
            else {
                throw Failure(
                    description:
                        "the leaf's key usage must be critical, with digitalSignature and without certificate or CRL signing"
                )
            }
            if let extended = try leaf.extensions.extendedKeyUsage {
                guard extended.contains(.serverAuth), extended.contains(.clientAuth) else {
                    throw Failure(description: "the leaf's extended key usage must have both serverAuth and clientAuth")
                }
            }
        } catch let failure as Failure {
            throw failure
        } catch {
            throw Failure(description: "the leaf's extensions cannot be read: \(error)")
        }
        let notBefore = Timestamp(leaf.notValidBefore)
        let notAfter = Timestamp(leaf.notValidAfter)
        guard now >= notBefore else { throw Failure(description: "the leaf begins at \(notBefore), it is \(now)") }
        guard now <= notAfter else { throw Failure(description: "the leaf ended at \(notAfter), it is \(now)") }
        for der in roots {
            let root = try parse(der, as: "a root")
            guard root.subject == leaf.issuer, root.publicKey.isValidSignature(leaf.signature, for: leaf) else {
                continue
            }
            guard now <= Timestamp(root.notValidAfter) else {
                throw Failure(description: "the root '\(root.subject)' ended at \(Timestamp(root.notValidAfter))")
            }
            return (identity, notBefore, notAfter)
        }
        throw Failure(description: "none of \(roots.count) roots signed the leaf (its issuer is '\(leaf.issuer)')")
    }

    private static func parse(_ der: [UInt8], as what: String) throws(Failure) -> Certificate {
        do {
            return try Certificate(derEncoded: der)
        } catch {
            throw Failure(description: "\(what) is not a certificate in DER: \(error)")
        }
    }

    private static func uriNames(of certificate: Certificate) throws -> [String] {
        try certificate.extensions.subjectAlternativeNames?.compactMap { name in
            if case .uniformResourceIdentifier(let uri) = name { uri } else { nil }
        } ?? []
    }
}
