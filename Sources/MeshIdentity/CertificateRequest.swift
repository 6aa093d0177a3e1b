internal import Crypto
internal import MeshCore
internal import SwiftASN1
internal import X509

/// A fresh key and the request to have it certified. The key never leaves the process that made it.
package struct CertificateRequest: Sendable {
    /// PKCS#10 (RFC 2986) with an empty subject and no attribute: who the subject is, the authority decides.
    package let requestDER: [UInt8]
    /// PKCS#8.
    package let privateKeyDER: [UInt8]

    /// A new P-256 key each time.
    package init() throws {
        let key = P256.Signing.PrivateKey()
        let request = try CertificateSigningRequest(
            version: .v1, subject: DistinguishedName(), privateKey: Certificate.PrivateKey(key), attributes: .init(),
            signatureAlgorithm: .ecdsaWithSHA256)
        var serializer = DER.Serializer()
        try serializer.serialize(request)
        self.requestDER = serializer.serializedBytes
        self.privateKeyDER = Array(key.derRepresentation)
    }
}

/// Why a certificate is not issued, in words for the log of the one who asked.
package struct CertificateRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Reason: String, Sendable, CaseIterable {
        case malformedRequest = "malformed_request"
        case unsupportedKey = "unsupported_key"
        case invalidSignature = "invalid_signature"
        /// The request names a subject, an extension or an attribute that the authority does not grant.
        case unexpectedContent = "unexpected_content"
        /// The root that would sign has ended or is about to.
        case rootExpired = "root_expired"
        /// The authority could not build or sign the certificate.
        case signingFailed = "signing_failed"
    }

    package let reason: Reason
    package let description: String

    package init(_ reason: Reason, _ description: String) {
        self.reason = reason
        self.description = description
    }
}

/// What of a request the authority takes over: the public key alone.
struct CheckedRequest {
    let publicKey: Certificate.PublicKey

    static let maximumBytes = 8192

    /// - Parameter identity: the only URI that the request may ask for, if it asks for any.
    init(requestDER: [UInt8], identity: SPIFFEID) throws(CertificateRefusal) {
        guard requestDER.count <= Self.maximumBytes else {
            throw CertificateRefusal(
                .malformedRequest, "the request has \(requestDER.count) bytes, expected \(Self.maximumBytes) at most")
        }
        let request: CertificateSigningRequest
        do {
            request = try CertificateSigningRequest(derEncoded: requestDER)
        } catch {
            throw CertificateRefusal(.malformedRequest, "the request is not PKCS#10 in DER: \(error)")
        }
        guard P256.Signing.PublicKey(request.publicKey) != nil else {
            throw CertificateRefusal(.unsupportedKey, "the request's key is \(request.publicKey), expected ECDSA P-256")
        }
        guard request.publicKey.isValidSignature(request.signature, for: request) else {
            throw CertificateRefusal(.invalidSignature, "the request is not signed by the key that it wants certified")
        }
        guard request.subject.isEmpty else {
            throw CertificateRefusal(
                .unexpectedContent, "the request's subject is '\(request.subject)', expected an empty one")
        }
        for attribute in request.attributes {
            guard attribute.oid == .CSRAttributes.extensionRequest else {
                throw CertificateRefusal(
                    .unexpectedContent, "the request has the attribute \(attribute.oid), expected none")
            }
        }
        let extensions: Certificate.Extensions?
        do {
            extensions = try request.attributes.extensionRequest?.extensions
        } catch {
            throw CertificateRefusal(.malformedRequest, "the request's extensions cannot be read: \(error)")
        }
        for wanted in extensions ?? .init() {
            guard wanted.oid == .X509ExtensionID.subjectAlternativeName else {
                throw CertificateRefusal(
                    .unexpectedContent,
                    "the request asks for the extension \(wanted.oid), which is the authority's to set")
            }
            guard let names = try? SubjectAlternativeNames(wanted),
                Array(names) == [.uniformResourceIdentifier(identity.description)]
            else {
                throw CertificateRefusal(
                    .unexpectedContent,
                    "the request asks for other names than '\(identity)', which is the one it may have")
            }
        }
        self.publicKey = request.publicKey
    }
}
