internal import Crypto
internal import Foundation
package import MeshCore
internal import SwiftASN1
internal import X509

/// Signs with one root. A value: rotation makes another one.
///
/// What it issues are X.509-SVIDs (SPIFFE X509-SVID §3 to §5): the SPIFFE ID as the only URI in a critical subject
/// alternative name, an empty subject, no CA, digital signature as the only key usage.
package struct CertificateAuthority: Sendable {
    package struct Limits: Sendable, Hashable {
        /// What a leaf lives when its requester does not ask for less.
        package var leafLifetimeSeconds: Int64
        /// How far before now a certificate begins, so that a peer whose clock is behind accepts it.
        package var clockSkewSeconds: Int64

        package static let maximumLeafLifetimeSeconds: Int64 = 86_400
        package static let minimumLeafLifetimeSeconds: Int64 = 60

        package init(leafLifetimeSeconds: Int64 = 86_400, clockSkewSeconds: Int64 = 30) {
            self.leafLifetimeSeconds = min(
                max(leafLifetimeSeconds, Self.minimumLeafLifetimeSeconds), Self.maximumLeafLifetimeSeconds)
            self.clockSkewSeconds = clockSkewSeconds
        }
    }

    package let trustDomain: String
    /// In DER.
    package let rootDER: [UInt8]
    package let rootNotAfter: Timestamp
    package let limits: Limits

    private let root: Certificate
    private let key: Certificate.PrivateKey
    private let authorityKeyIdentifier: AuthorityKeyIdentifier

    /// - Parameter root: a root whose private key is known.
    package init(trustDomain: String, root: SigningRoot, limits: Limits = Limits()) throws {
        self.trustDomain = trustDomain
        self.limits = limits
        self.rootDER = root.certificateDER
        self.root = try Certificate(derEncoded: root.certificateDER)
        self.key = Certificate.PrivateKey(try P256.Signing.PrivateKey(derRepresentation: root.privateKeyDER))
        guard self.key.publicKey == self.root.publicKey else {
            throw CertificateRefusal(.signingFailed, "the stored key is not the key of the stored root certificate")
        }
        self.rootNotAfter = Timestamp(self.root.notValidAfter)
        self.authorityKeyIdentifier = AuthorityKeyIdentifier(
            keyIdentifier: try self.root.extensions.subjectKeyIdentifier?.keyIdentifier
                ?? SubjectKeyIdentifier(hash: self.root.publicKey).keyIdentifier)
    }

    /// Certifies the key of a request for an identity that the caller has authenticated.
    ///
    /// - Parameters:
    ///   - lifetimeSeconds: what the requester asked for; nil or 0 is the authority's own, more is cut to 24 hours.
    ///   - dnsNames: for servers that are also dialled by name (the control plane and its webhook).
    package func sign(
        requestDER: [UInt8], identity: SPIFFEID, dnsNames: [String] = [], lifetimeSeconds: Int64? = nil, now: Timestamp
    ) throws(CertificateRefusal) -> IssuedCertificate {
        let request = try CheckedRequest(requestDER: requestDER, identity: identity)
        return try issue(
            publicKey: request.publicKey, identity: identity, dnsNames: dnsNames, lifetimeSeconds: lifetimeSeconds,
            now: now)
    }

    /// A certificate and its key for a server within this process.
    package func issueServing(identity: SPIFFEID, dnsNames: [String], now: Timestamp) throws -> ServingIdentity {
        let request = try CertificateRequest()
        let issued = try sign(requestDER: request.requestDER, identity: identity, dnsNames: dnsNames, now: now)
        return ServingIdentity(certificate: issued, privateKeyDER: request.privateKeyDER)
    }

    private func issue(
        publicKey: Certificate.PublicKey, identity: SPIFFEID, dnsNames: [String], lifetimeSeconds: Int64?,
        now: Timestamp
    ) throws(CertificateRefusal) -> IssuedCertificate {
        guard identity.trustDomain == trustDomain, !identity.path.isEmpty else {
            throw CertificateRefusal(
                .unexpectedContent,
                "'\(identity)' is not an identity of a workload of the trust domain '\(trustDomain)'")
        }
        var lifetime = limits.leafLifetimeSeconds
        if let lifetimeSeconds, lifetimeSeconds > 0 {
            lifetime = min(lifetime, max(lifetimeSeconds, Limits.minimumLeafLifetimeSeconds))
        }
        let notBefore = now.advanced(bySeconds: -limits.clockSkewSeconds)
        let notAfter = min(now.advanced(bySeconds: lifetime), rootNotAfter)
        guard notAfter.seconds(since: now) >= Limits.minimumLeafLifetimeSeconds else {
            throw CertificateRefusal(
                .rootExpired, "the root certificate ends at \(rootNotAfter), so that nothing can be signed any more")
        }
        do {
            let names = [.uniformResourceIdentifier(identity.description)] + dnsNames.map { GeneralName.dnsName($0) }
            let certificate = try Certificate(
                version: .v3, serialNumber: CertificateAuthority.randomSerial(), publicKey: publicKey,
                notValidBefore: notBefore.date, notValidAfter: notAfter.date, issuer: root.subject,
                subject: DistinguishedName(), signatureAlgorithm: .ecdsaWithSHA256,
                extensions: try Certificate.Extensions {
                    Critical(SubjectAlternativeNames(names))
                    Critical(BasicConstraints.notCertificateAuthority)
                    Critical(KeyUsage(digitalSignature: true))
                    try ExtendedKeyUsage([.serverAuth, .clientAuth])
                    authorityKeyIdentifier
                    SubjectKeyIdentifier(hash: publicKey)
                },
                issuerPrivateKey: key)
            return IssuedCertificate(
                chain: [try certificate.der], serial: certificate.serialNumber.description, identity: identity,
                notBefore: Timestamp(certificate.notValidBefore), notAfter: Timestamp(certificate.notValidAfter))
        } catch {
            throw CertificateRefusal(.signingFailed, "the certificate could not be made: \(error)")
        }
    }

    /// 128 random bits, positive (RFC 5280 §4.1.2.2 allows 20 bytes).
    static func randomSerial() -> Certificate.SerialNumber {
        var generator = SystemRandomNumberGenerator()
        var bytes: [UInt8] = [0]
        for _ in 0..<2 {
            let half = generator.next()
            bytes += (0..<8).map { UInt8(truncatingIfNeeded: half >> UInt64(56 - 8 * $0)) }
        }
        return Certificate.SerialNumber(bytes: bytes)
    }
}

/// What the authority hands out.
package struct IssuedCertificate: Sendable {
    /// DER, the leaf first; the root is not among them.
    package let chain: [[UInt8]]
    /// As colon-separated hexadecimal bytes, for the log.
    package let serial: String
    package let identity: SPIFFEID
    package let notBefore: Timestamp
    package let notAfter: Timestamp
}

/// A certificate with its key.
package struct ServingIdentity: Sendable {
    package let certificate: IssuedCertificate
    /// PKCS#8.
    package let privateKeyDER: [UInt8]
}

extension Certificate {
    var der: [UInt8] {
        get throws {
            var serializer = DER.Serializer()
            try serializer.serialize(self)
            return serializer.serializedBytes
        }
    }
}

extension Timestamp {
    /// Certificates count whole seconds.
    init(_ date: Date) {
        let seconds = date.timeIntervalSince1970
        self.init(unixSeconds: seconds > -1e15 && seconds < 1e15 ? Int64(seconds.rounded(.down)) : 0)
    }

    var date: Date { Date(timeIntervalSince1970: Double(unixSeconds)) }
}
