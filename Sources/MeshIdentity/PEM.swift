internal import SwiftASN1

/// The text form of certificates and keys (RFC 7468).
package enum PEM {
    /// Why a text is not what it should be, in words for whoever wrote it.
    package struct ParseError: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    /// The certificates of a bundle in DER, in order; other documents are refused, and so is a text without any.
    package static func certificates(in text: String) throws(ParseError) -> [[UInt8]] {
        let documents = try documents(in: text)
        for document in documents where document.discriminator != "CERTIFICATE" {
            throw ParseError(description: "expected CERTIFICATE blocks only, found \(document.discriminator)")
        }
        guard !documents.isEmpty else { throw ParseError(description: "no CERTIFICATE block found") }
        return documents.map(\.derBytes)
    }

    /// Each certificate as a block, in order.
    package static func bundle(_ certificates: [[UInt8]]) -> String {
        certificates.map { PEMDocument(type: "CERTIFICATE", derBytes: $0).pemString + "\n" }.joined()
    }

    /// A private key in PKCS#8.
    package static func privateKey(_ der: [UInt8]) -> String {
        PEMDocument(type: "PRIVATE KEY", derBytes: der).pemString + "\n"
    }

    /// The DER of a single PKCS#8 key.
    package static func privateKey(in text: String) throws(ParseError) -> [UInt8] {
        let documents = try documents(in: text)
        guard documents.count == 1, documents[0].discriminator == "PRIVATE KEY" else {
            throw ParseError(description: "expected exactly one PRIVATE KEY block (PKCS#8)")
        }
        return documents[0].derBytes
    }

    private static func documents(in text: String) throws(ParseError) -> [PEMDocument] {
        do {
            return try PEMDocument.parseMultiple(pemString: text)
        } catch {
            throw ParseError(description: "not PEM: \(error)")
        }
    }
}
