import Hummingbird
import HummingbirdTLS
package import Logging
import MeshKubernetes
import NIOCore
import NIOSSL
import Synchronization

/// Answers the API server's question about every new pod: HTTPS, `POST /inject`. Certificate and settings may be
/// exchanged while it runs; new connections use the new ones.
package final class InjectionWebhook: Sendable {
    /// The API's own limit on an object is 1.5 MiB; a review may hold two, an old one and a new one.
    package static let bodyLimitBytes = 3 << 20
    package static let defaultPort = 15011

    /// What it has answered since the start.
    package struct Counts: Sendable, Hashable {
        package var injected: UInt64 = 0
        package var unchanged: UInt64 = 0
        package var skipped: UInt64 = 0
        package var refused: UInt64 = 0
        /// Requests that were no review.
        package var malformed: UInt64 = 0
    }

    private struct State: Sendable {
        var keyPair: ServingKeyPair
        var settings: InjectionSettings
        var counts = Counts()
        var listeningPort: Int?
    }

    private let host: String
    private let port: Int
    private let logger: Logger
    private let namespaceLabels: @Sendable (String) -> [String: String]
    private let state: Mutex<State>

    /// - Parameters:
    ///   - port: 0 lets the system choose one; `listeningPort` tells it.
    ///   - namespaceLabels: the labels of a namespace as far as they are known; the API server has applied the
    ///     webhook's own selector already.
    package init(
        host: String = "0.0.0.0", port: Int = defaultPort, certificate: WebhookCertificate, settings: InjectionSettings,
        logger: Logger = Logger(label: "injector"),
        namespaceLabels: @escaping @Sendable (String) -> [String: String] = { _ in [:] }
    ) throws(WebhookCertificateError) {
        self.host = host
        self.port = port
        self.logger = logger
        self.namespaceLabels = namespaceLabels
        state = Mutex(State(keyPair: try ServingKeyPair(certificate), settings: settings))
    }

    /// Used from the next connection on.
    package func update(certificate: WebhookCertificate) throws(WebhookCertificateError) {
        let keyPair = try ServingKeyPair(certificate)
        state.withLock { $0.keyPair = keyPair }
    }

    /// Used from the next request on.
    package func update(settings: InjectionSettings) { state.withLock { $0.settings = settings } }

    package var settings: InjectionSettings { state.withLock { $0.settings } }
    package var counts: Counts { state.withLock { $0.counts } }
    /// The port it listens on; nil while it does not.
    package var listeningPort: Int? { state.withLock { $0.listeningPort } }
    package var isReady: Bool { listeningPort != nil }

    /// Listens until cancelled or until its task's graceful shutdown; fails when the port cannot be had.
    package func run() async throws {
        defer { state.withLock { $0.listeningPort = nil } }
        let router = Router()
        router.post("/inject") { [self] request, _ in await answer(request) }
        let application = Application(
            router: router,
            server: try .tls(.http1(configuration: .init(idleTimeout: .seconds(120))), tlsConfiguration: tls()),
            configuration: .init(address: .hostname(host, port: port), serverName: nil),
            onServerRunning: { [self] channel in
                state.withLock { $0.listeningPort = channel.localAddress?.port }
            },
            logger: logger)
        try await serveUntilCancelled(application, logger: logger)
    }

    private func tls() -> TLSConfiguration {
        let first = state.withLock { $0.keyPair }
        var tls = TLSConfiguration.makeServerConfiguration(certificateChain: first.chain, privateKey: first.key)
        tls.minimumTLSVersion = .tlsv12
        tls.applicationProtocols = ["http/1.1"]
        tls.sslContextCallback = { [self] _, promise in
            let current = state.withLock { $0.keyPair }
            var override = NIOSSLContextConfigurationOverride()
            override.certificateChain = current.chain
            override.privateKey = current.key
            promise.succeed(override)
        }
        return tls
    }

    private func answer(_ request: Request) async -> Response {
        let type = request.headers[.contentType] ?? ""
        guard type.split(separator: ";").first.map({ $0.lowercased() }) == "application/json" else {
            return malformed(.unsupportedMediaType, "Content-Type is '\(type)', expected application/json")
        }
        let body: [UInt8]
        do {
            body = Array(try await request.body.collect(upTo: InjectionWebhook.bodyLimitBytes).readableBytesView)
        } catch {
            return malformed(
                .contentTooLarge, "the body is longer than \(InjectionWebhook.bodyLimitBytes) bytes or was cut off")
        }
        do {
            let review = try JSONValue(parsing: body)
            let answer = try AdmissionAnswer(to: review, settings: settings, namespaceLabels: namespaceLabels)
            count(answer)
            return response(.ok, "application/json", answer.review.bytes())
        } catch {
            return malformed(.badRequest, "the body is no AdmissionReview: \(error)")
        }
    }

    private func count(_ answer: AdmissionAnswer) {
        state.withLock { state in
            switch answer.outcome {
            case .injected: state.counts.injected += 1
            case .unchanged: state.counts.unchanged += 1
            case .skipped: state.counts.skipped += 1
            case .refused: state.counts.refused += 1
            }
        }
        let level: Logger.Level = answer.outcome == .refused ? .warning : .info
        logger.log(
            level: level, "a pod was reviewed",
            metadata: ["pod": "\(answer.subject)", "outcome": "\(answer.outcome)", "reason": "\(answer.reason)"])
    }

    private func malformed(_ status: HTTPResponse.Status, _ message: String) -> Response {
        state.withLock { $0.counts.malformed += 1 }
        logger.warning("a request was no review", metadata: ["message": "\(message)"])
        return response(status, "text/plain; charset=utf-8", Array("\(message)\n".utf8))
    }

    private func response(_ status: HTTPResponse.Status, _ type: String, _ body: [UInt8]) -> Response {
        Response(status: status, headers: [.contentType: type], body: .init(byteBuffer: ByteBuffer(bytes: body)))
    }
}
