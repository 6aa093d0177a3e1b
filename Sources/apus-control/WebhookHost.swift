import Logging
import MeshControl
import MeshCore
import MeshIdentity
import MeshInjector
import MeshKubernetes
import Synchronization

/// The injection webhook and its registration, which begin with the first certificate and follow every other.
final class WebhookHost: Sendable {
    private struct State {
        var webhook: InjectionWebhook?
        var registration: WebhookRegistration?
    }

    private let settings: ControlSettings
    private let api: any KubernetesAPI
    private let state = Mutex(State())
    private let started: AsyncStream<(InjectionWebhook, WebhookRegistration)>
    private let start: AsyncStream<(InjectionWebhook, WebhookRegistration)>.Continuation
    private let logger = Logger(label: "apus.control.webhook")

    init(settings: ControlSettings, api: any KubernetesAPI) {
        self.settings = settings
        self.api = api
        (started, start) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(1))
    }

    func certificateChanged(_ identity: ServingIdentity, _ trusted: TrustBundle) {
        let roots = PEM.bundle(trusted.roots)
        let certificate = WebhookCertificate(
            chain: identity.certificate.chain, key: identity.privateKeyDER, caBundle: Array(roots.utf8))
        var injection = settings.injection
        injection.trustBundle = roots
        do {
            try state.withLock { state in
                if let webhook = state.webhook {
                    try webhook.update(certificate: certificate)
                    webhook.update(settings: injection)
                    state.registration?.update(caBundle: certificate.caBundle)
                } else {
                    let webhook = try InjectionWebhook(
                        port: Int(settings.webhookPort), certificate: certificate, settings: injection)
                    let registration = WebhookRegistration(
                        api: api, settings: settings.install, caBundle: certificate.caBundle)
                    (state.webhook, state.registration) = (webhook, registration)
                    start.yield((webhook, registration))
                }
            }
        } catch {
            logger.error("the webhook cannot use its certificate: \(error)")
        }
    }

    /// Runs until cancelled; throws when the port cannot be had.
    func run() async throws {
        for await (webhook, registration) in started {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await webhook.run() }
                group.addTask {
                    // The platform is told of a webhook that answers, and of no other.
                    while !webhook.isReady { try await Task.sleep(for: .milliseconds(20)) }
                    try await registration.run()
                }
                defer { group.cancelAll() }
                try await group.next()
            }
        }
    }

    var obstacles: [String] {
        guard let webhook = state.withLock({ $0.webhook }), webhook.isReady else {
            return ["the injection webhook does not listen yet"]
        }
        return []
    }

    var troubles: [String] {
        guard let error = state.withLock({ $0.registration })?.status.lastError else { return [] }
        return ["the injection webhook cannot be registered: \(error)"]
    }

    func addMetrics(to page: inout MetricsPage) {
        let (webhook, registration) = state.withLock { ($0.webhook, $0.registration) }
        if let counts = webhook?.counts {
            page.add(
                .counter, "apus_control_webhook_reviews_total", "Admission reviews of pods, by what came of them.",
                label: "outcome",
                [
                    ("injected", Double(counts.injected)), ("malformed", Double(counts.malformed)),
                    ("refused", Double(counts.refused)), ("skipped", Double(counts.skipped)),
                    ("unchanged", Double(counts.unchanged)),
                ])
        }
        if let status = registration?.status {
            page.add(
                .gauge, "apus_control_webhook_registered", "Whether the platform knows the webhook and its root.",
                status.isRegistered ? 1 : 0)
        }
    }
}
