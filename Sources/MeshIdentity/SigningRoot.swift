internal import Crypto
internal import Foundation
package import MeshCore
internal import SwiftASN1
internal import X509

/// A self-signed root and its key (ECDSA P-256).
package struct SigningRoot: Sendable, Hashable {
    package let certificateDER: [UInt8]
    /// PKCS#8.
    package let privateKeyDER: [UInt8]

    package static let defaultLifetimeSeconds: Int64 = 10 * 365 * 86_400

    package init(certificateDER: [UInt8], privateKeyDER: [UInt8]) {
        self.certificateDER = certificateDER
        self.privateKeyDER = privateKeyDER
    }

    /// A new root. Its subject is unlike any other root's, so that a verifier that knows several picks by name.
    package static func create(
        trustDomain: String, lifetimeSeconds: Int64 = defaultLifetimeSeconds, now: Timestamp
    ) throws -> SigningRoot {
        let key = P256.Signing.PrivateKey()
        let publicKey = Certificate.PublicKey(key.publicKey)
        let serial = CertificateAuthority.randomSerial()
        let mark = serial.bytes.prefix(4).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        let subject = try DistinguishedName {
            OrganizationName(trustDomain)
            CommonName("Apus root \(mark)")
        }
        let certificate = try Certificate(
            version: .v3, serialNumber: serial, publicKey: publicKey,
            notValidBefore: now.advanced(bySeconds: -30).date,
            notValidAfter: now.advanced(bySeconds: lifetimeSeconds).date,
            issuer: subject, subject: subject, signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                Critical(KeyUsage(keyCertSign: true, cRLSign: true))
                SubjectKeyIdentifier(hash: publicKey)
                SubjectAlternativeNames([.uniformResourceIdentifier("spiffe://\(trustDomain)")])
            },
            issuerPrivateKey: Certificate.PrivateKey(key))
        return SigningRoot(certificateDER: try certificate.der, privateKeyDER: Array(key.derRepresentation))
    }

    /// When the certificate ends; nil when it cannot be read.
    package var notAfter: Timestamp? {
        (try? Certificate(derEncoded: certificateDER)).map { Timestamp($0.notValidAfter) }
    }

    package var notBefore: Timestamp? {
        (try? Certificate(derEncoded: certificateDER)).map { Timestamp($0.notValidBefore) }
    }
}
