import Foundation
package import Logging
package import MeshKubernetes
import Synchronization

/// Keeps the MutatingWebhookConfiguration in the platform: there, with the current root in its `caBundle`, and put back
/// when somebody else changes it.
package final class WebhookRegistration: Sendable {
    package struct Status: Sendable, Hashable {
        package var isRegistered = false
        package var writes: UInt64 = 0
        package var lastError: String?
    }

    /// How often it looks whether the configuration is still as it should be.
    private static let checkMilliseconds = 30_000

    private struct State: Sendable {
        var caBundle: [UInt8]
        var status = Status()
    }

    private let api: any KubernetesAPI
    private let manifests: InstallSettings
    private let logger: Logger
    private let state: Mutex<State>
    private let changes: AsyncStream<Void>
    private let changed: AsyncStream<Void>.Continuation

    /// - Parameter caBundle: in PEM.
    package init(
        api: any KubernetesAPI, settings: InstallSettings, caBundle: [UInt8], logger: Logger = Logger(label: "injector")
    ) {
        self.api = api
        manifests = settings
        self.logger = logger
        state = Mutex(State(caBundle: caBundle))
        (changes, changed) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    package var status: Status { state.withLock { $0.status } }

    /// Written at once, and until it succeeds.
    package func update(caBundle: [UInt8]) {
        state.withLock { state in
            guard state.caBundle != caBundle else { return }
            state.caBundle = caBundle
            state.status.isRegistered = false
        }
        changed.yield()
    }

    /// Runs until cancelled; no failure of the API ends it.
    package func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { [self] in
                // The clock and the changes are two reasons for one action.
                while true {
                    try await Task.sleep(for: .milliseconds(WebhookRegistration.checkMilliseconds))
                    changed.yield()
                }
            }
            group.addTask { [self] in
                try await write()
                for await _ in changes { try await write() }
                throw CancellationError()
            }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    private func write() async throws {
        var backoff = Backoff()
        while true {
            try Task.checkCancellation()
            let caBundle = state.withLock { $0.caBundle }
            do {
                try await writeOnce(caBundle)
                state.withLock { state in
                    state.status.isRegistered = state.caBundle == caBundle
                    state.status.lastError = nil
                }
                return
            } catch {
                try Task.checkCancellation()
                state.withLock { $0.status.lastError = "\(error)" }
                logger.warning("the webhook could not be registered; trying again", metadata: ["error": "\(error)"])
                try await Task.sleep(for: .milliseconds(backoff.nextMilliseconds(random: Double.random(in: 0..<1))))
            }
        }
    }

    private func writeOnce(_ caBundle: [UInt8]) async throws {
        let wanted = InstallManifests.webhookConfiguration(manifests, caBundle: caBundle)
        let known: KubernetesObject
        do {
            known = try await api.get(.mutatingWebhookConfiguration, namespace: nil, name: wanted.name)
        } catch let error as StatusError where error.code == 404 {
            _ = try await api.create(.mutatingWebhookConfiguration, wanted)
            state.withLock { $0.status.writes += 1 }
            logger.info("the webhook is registered", metadata: ["name": "\(wanted.name)"])
            return
        }
        // Laid over what is there, so that what the platform has filled in is no difference.
        var merged = known.json
        merged["webhooks"] = WebhookRegistration.merge(wanted.json["webhooks"], over: known.json["webhooks"])
        guard merged != known.json else { return }
        _ = try await api.update(.mutatingWebhookConfiguration, KubernetesObject(merged), subresource: nil)
        state.withLock { $0.status.writes += 1 }
        logger.info("the webhook's registration is brought up to date", metadata: ["name": "\(wanted.name)"])
    }

    private static func merge(_ wanted: JSONValue?, over known: JSONValue?) -> JSONValue? {
        guard let wanted = wanted?.array else { return known }
        let known = known?.array ?? []
        return .array(
            wanted.map { hook in
                let before = known.first { $0["name"] == hook["name"] }
                guard var rules = hook["rules"]?.array, let rulesBefore = before?["rules"]?.array else {
                    return MergePatch.apply(hook, to: before ?? .null)
                }
                for index in rules.indices where index < rulesBefore.count {
                    rules[index] = MergePatch.apply(rules[index], to: rulesBefore[index])
                }
                var hook = hook
                hook["rules"] = .array(rules)
                return MergePatch.apply(hook, to: before ?? .null)
            })
    }
}
