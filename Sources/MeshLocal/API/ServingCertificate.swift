import Crypto
import Foundation
import MeshAddress
import NIOCore
import NIOSSL
import SwiftASN1
import X509

/// The API server's own authority and the certificate it serves with.
///
/// The authority is made once and kept with the objects, so that a kubeconfig and the pods' `ca.crt` stay valid; the serving
/// certificate is made at each start, for the addresses of that start.
package struct ServingCertificate: Sendable {
    /// What a client has to trust.
    package let authorityPEM: String
    let certificatePEM: String
    let keyPEM: String

    private static let yearSeconds: Double = 365 * 86_400

    init(store: ObjectStore, addresses: [IPAddress], names: [String], now: Date = Date()) throws {
        let kept = try store.setting("serving-authority") {
            let key = P256.Signing.PrivateKey()
            let name = try DistinguishedName { CommonName("apus-local-ca") }
            let certificate = try Self.issue(
                subject: name, issuer: name, publicKey: key.publicKey, signedBy: key, from: now, years: 10,
                extensions: Certificate.Extensions {
                    Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                    Critical(KeyUsage(keyCertSign: true, cRLSign: true))
                })
            return try Data((key.pemRepresentation + "\n" + certificate.serializeAsPEM().pemString + "\n").utf8)
        }
        let documents = try PEMDocument.parseMultiple(pemString: String(decoding: kept, as: UTF8.self))
        guard documents.count == 2 else {
            throw StoreError.database("the kept authority is damaged; start with another --data-dir")
        }
        let authorityKey = try P256.Signing.PrivateKey(pemRepresentation: documents[0].pemString)
        let authority = try Certificate(pemDocument: documents[1])
        let key = P256.Signing.PrivateKey()
        let identifiers = names.map { GeneralName.dnsName($0) } + addresses.map { .ipAddress(Self.octets($0)) }
        let certificate = try Self.issue(
            subject: try DistinguishedName { CommonName("kubernetes") }, issuer: authority.subject,
            publicKey: key.publicKey,
            signedBy: authorityKey, from: now, years: 1,
            extensions: Certificate.Extensions {
                Critical(BasicConstraints.notCertificateAuthority)
                Critical(KeyUsage(digitalSignature: true))
                try ExtendedKeyUsage([.serverAuth])
                SubjectAlternativeNames(identifiers)
            })
        authorityPEM = documents[1].pemString + "\n"
        certificatePEM = try certificate.serializeAsPEM().pemString
        keyPEM = key.pemRepresentation
    }

    private static func octets(_ address: IPAddress) -> ASN1OctetString {
        ASN1OctetString(contentBytes: address.v4 != nil ? address.bytes.suffix(4) : address.bytes[...])
    }

    private static func issue(
        subject: DistinguishedName, issuer: DistinguishedName, publicKey: P256.Signing.PublicKey,
        signedBy key: P256.Signing.PrivateKey, from now: Date, years: Double, extensions: Certificate.Extensions
    ) throws -> Certificate {
        try Certificate(
            version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: .init(publicKey),
            notValidBefore: now.addingTimeInterval(-300), notValidAfter: now.addingTimeInterval(years * yearSeconds),
            issuer: issuer, subject: subject, signatureAlgorithm: .ecdsaWithSHA256, extensions: extensions,
            issuerPrivateKey: .init(key))
    }

    func tlsConfiguration() throws -> TLSConfiguration {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMBytes(Array(certificatePEM.utf8)).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(keyPEM.utf8), format: .pem)))
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["http/1.1"]
        // A client that does not answer the end of its connection must not keep the platform up for the five seconds of the default.
        configuration.shutdownTimeout = .milliseconds(300)
        return configuration
    }
}
