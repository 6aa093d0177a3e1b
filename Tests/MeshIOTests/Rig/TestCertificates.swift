import Crypto
import Foundation
import MeshIO
import SwiftASN1
import X509

/// A certificate authority that a test makes for itself.
struct TestAuthority {
    private let key = P256.Signing.PrivateKey()
    private let name: DistinguishedName
    let rootDER: [UInt8]

    init(_ commonName: String = "test root") throws {
        name = try DistinguishedName { CommonName(commonName) }
        let signer = Certificate.PrivateKey(key)
        let root = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: signer.publicKey,
            notValidBefore: Date(timeIntervalSinceNow: -3600), notValidAfter: Date(timeIntervalSinceNow: 36_000),
            issuer: name, subject: name, signatureAlgorithm: .ecdsaWithSHA256,
            extensions: Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: nil))
                Critical(KeyUsage(keyCertSign: true))
            }, issuerPrivateKey: signer)
        rootDER = try TestAuthority.der(root)
    }

    /// A leaf that is valid from an hour ago until `validForSeconds` from now.
    func identity(
        uris: [String] = ["spiffe://test/ns/a/sa/b"], validForSeconds: TimeInterval = 3600, sec1: Bool = false
    ) throws -> TLSContext.Identity {
        let leafKey = P256.Signing.PrivateKey()
        let leaf = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: Certificate.PrivateKey(leafKey).publicKey,
            notValidBefore: Date(timeIntervalSinceNow: -7200),
            notValidAfter: Date(timeIntervalSinceNow: validForSeconds),
            issuer: name, subject: DistinguishedName(), signatureAlgorithm: .ecdsaWithSHA256,
            extensions: Certificate.Extensions {
                Critical(BasicConstraints.notCertificateAuthority)
                Critical(KeyUsage(digitalSignature: true))
                try ExtendedKeyUsage([.serverAuth, .clientAuth])
                Critical(
                    SubjectAlternativeNames([.dnsName("test.example")] + uris.map { .uniformResourceIdentifier($0) }))
            }, issuerPrivateKey: Certificate.PrivateKey(key))
        return TLSContext.Identity(
            chain: [try TestAuthority.der(leaf)],
            privateKeyDER: sec1 ? try sec1DER(leafKey) : [UInt8](leafKey.derRepresentation))
    }

    private static func der(_ certificate: Certificate) throws -> [UInt8] {
        var serializer = DER.Serializer()
        try certificate.serialize(into: &serializer)
        return serializer.serializedBytes
    }

    /// ECPrivateKey of RFC 5915 with the curve's name.
    private func sec1DER(_ key: P256.Signing.PrivateKey) throws -> [UInt8] {
        var serializer = DER.Serializer()
        try serializer.appendConstructedNode(identifier: .sequence) { sequence in
            try sequence.serialize(1)
            try sequence.serialize(ASN1OctetString(contentBytes: ArraySlice(key.rawRepresentation)))
            try sequence.serialize(
                ASN1ObjectIdentifier.NamedCurves.secp256r1, explicitlyTaggedWithTagNumber: 0,
                tagClass: .contextSpecific)
        }
        return serializer.serializedBytes
    }
}

/// Both sides' contexts of one authority.
struct TestTLS {
    let authority: TestAuthority
    let server: TLSContext
    let client: TLSContext

    init(
        authorityName: String = "test root", alpn: [String] = ["apus/1"],
        clientCertificate: TLSContext.ClientCertificate = .required
    ) throws {
        authority = try TestAuthority(authorityName)
        server = try .server(
            identity: authority.identity(uris: ["spiffe://test/ns/a/sa/server"]), trustRoots: [authority.rootDER],
            clientCertificate: clientCertificate, alpn: alpn)
        client = try .client(
            identity: authority.identity(uris: ["spiffe://test/ns/a/sa/client"]), trustRoots: [authority.rootDER],
            alpn: alpn)
    }
}
