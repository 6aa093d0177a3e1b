/// What a handshake established.
package struct TLSInformation: Equatable, Sendable {
    /// The application protocol agreed on; nil when none was offered.
    package let applicationProtocol: String?
    /// `TLSv1.3`.
    package let version: String
    /// `TLS_AES_128_GCM_SHA256`.
    package let cipherSuite: String
    /// The peer's chain in DER, leaf first; empty when it showed none.
    package let peerCertificates: [[UInt8]]
    /// The URI names of the leaf's subject alternative name, in order, duplicates and invalid ones included: whoever expects
    /// exactly one (SPIFFE X.509-SVID §2) sees every one that is there. Bytes that are not UTF-8 appear as U+FFFD.
    package let peerURISANs: [String]
    /// When the leaf expires, in seconds since 1970.
    package let peerNotAfter: Int64?
}
