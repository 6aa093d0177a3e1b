import NIOSSL

/// The certificate that the webhook shows the API server, and the root that the API server verifies it with.
package struct WebhookCertificate: Sendable, Hashable {
    /// DER, the leaf first. Its names must include `apus-control.apus-system.svc`.
    package var chain: [[UInt8]]
    /// DER: PKCS #8, or SEC 1 for an elliptic curve.
    package var key: [UInt8]
    /// PEM, for the webhook configuration's `caBundle`.
    package var caBundle: [UInt8]

    package init(chain: [[UInt8]], key: [UInt8], caBundle: [UInt8]) {
        self.chain = chain
        self.key = key
        self.caBundle = caBundle
    }
}

/// A certificate that cannot be used, in words for the log.
package struct WebhookCertificateError: Error, Hashable, CustomStringConvertible {
    package let description: String
}

/// What a handshake takes of a certificate.
struct ServingKeyPair: Sendable {
    let chain: [NIOSSLCertificateSource]
    let key: NIOSSLPrivateKeySource

    init(_ certificate: WebhookCertificate) throws(WebhookCertificateError) {
        guard !certificate.chain.isEmpty else { throw WebhookCertificateError(description: "the chain is empty") }
        do {
            chain = try certificate.chain.map { .certificate(try NIOSSLCertificate(bytes: $0, format: .der)) }
            key = .privateKey(try NIOSSLPrivateKey(bytes: certificate.key, format: .der))
        } catch {
            throw WebhookCertificateError(description: "the webhook's certificate or key is not DER: \(error)")
        }
    }
}
