import Foundation
import MeshInjector
import MeshKubernetes
import Synchronization
import Testing

/// One kind of object in memory, failing when told to.
private final class MemoryAPI: KubernetesAPI {
    struct State: Sendable {
        var object: KubernetesObject?
        var version = 0
        var failures = 0
        var calls: [String] = []
    }

    let state: Mutex<State>

    init(failures: Int = 0) { state = Mutex(State(failures: failures)) }

    private func called(_ name: String) throws {
        try state.withLock { state in
            state.calls.append(name)
            guard state.failures > 0 else { return }
            state.failures -= 1
            throw StatusError(code: 503, reason: "Unreachable", message: "away")
        }
    }

    private func store(_ object: KubernetesObject) -> KubernetesObject {
        state.withLock { state in
            var object = object
            state.version += 1
            object.json[path: "metadata", "resourceVersion"] = .string("\(state.version)")
            state.object = object
            return object
        }
    }

    func get(_ kind: ResourceKind, namespace: String?, name: String) async throws -> KubernetesObject {
        try called("get \(name)")
        guard let object = state.withLock({ $0.object }) else {
            throw StatusError(code: 404, reason: "NotFound", message: "\(name) not found")
        }
        return object
    }

    func create(_ kind: ResourceKind, _ object: KubernetesObject) async throws -> KubernetesObject {
        try called("create \(object.name)")
        return store(object)
    }

    func update(_ kind: ResourceKind, _ object: KubernetesObject, subresource: String?) async throws -> KubernetesObject
    {
        try called("update \(object.name)")
        return store(object)
    }

    func list(_ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?) async throws
        -> (items: [KubernetesObject], resourceVersion: String)
    { ([], "1") }

    func watch(
        _ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?,
        resourceVersion: String
    ) -> AsyncThrowingStream<WatchEvent, any Error> { AsyncThrowingStream { $0.finish() } }

    func patch(_ kind: ResourceKind, namespace: String?, name: String, subresource: String?, _ patch: KubernetesPatch)
        async throws
        -> KubernetesObject
    { throw StatusError(code: 405, reason: "MethodNotAllowed", message: "no patch") }

    func delete(_ kind: ResourceKind, namespace: String?, name: String, gracePeriodSeconds: Int?, uid: String?)
        async throws
        -> KubernetesObject
    { throw StatusError(code: 405, reason: "MethodNotAllowed", message: "no delete") }
}

@Suite(.timeLimit(.minutes(1))) struct RegistrationTests {
    private func running(
        _ api: MemoryAPI, _ body: @escaping @Sendable (WebhookRegistration) async throws -> Void
    ) async throws {
        let registration = WebhookRegistration(
            api: api, settings: InstallSettings(), caBundle: Array("first".utf8), logger: WebhookTests.quiet)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await registration.run() }
            group.addTask { try await body(registration) }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    private func registered(_ registration: WebhookRegistration) async throws {
        while !registration.status.isRegistered { try await Task.sleep(for: .milliseconds(2)) }
    }

    private func bundle(_ api: MemoryAPI) -> String? {
        let json = api.state.withLock { $0.object?.json }
        let text = json?["webhooks"]?[0]?[path: "clientConfig", "caBundle"]?.string
        return text.flatMap { Data(base64Encoded: $0) }.map { String(decoding: $0, as: UTF8.self) }
    }

    @Test func itIsCreatedThenFollowsTheRoot() async throws {
        let api = MemoryAPI()
        try await running(api) { registration in
            try await registered(registration)
            #expect(bundle(api) == "first")
            registration.update(caBundle: Array("second".utf8))
            try await registered(registration)
            #expect(bundle(api) == "second")
            #expect(registration.status.writes == 2)
        }
        #expect(
            api.state.withLock { $0.calls } == [
                "get apus-injector", "create apus-injector", "get apus-injector", "update apus-injector",
            ])
    }

    @Test func whatTheInstallationMadeIsCompletedAndThePlatformsDefaultsAreKept() async throws {
        let api = MemoryAPI()
        var installed = InstallManifests.webhookConfiguration(InstallSettings(), caBundle: nil)
        var hook = try #require(installed.json["webhooks"]?[0])
        hook[path: "namespaceSelector", "matchLabels"] = ["kept": "by-the-platform"]
        hook["failurePolicy"] = "Ignore"
        installed.json["webhooks"] = [hook]
        api.state.withLock { $0.object = installed }
        try await running(api) { registration in
            try await registered(registration)
            let written = try #require(api.state.withLock { $0.object?.json["webhooks"]?[0] })
            #expect(written["failurePolicy"] == "Fail")
            #expect(written[path: "namespaceSelector", "matchLabels"] == ["kept": "by-the-platform"])
            #expect(bundle(api) == "first")
        }
    }

    @Test func itTriesAgainUntilTheAPIAnswers() async throws {
        let api = MemoryAPI(failures: 2)
        try await running(api) { registration in
            try await registered(registration)
            #expect(registration.status.lastError == nil)
            #expect(bundle(api) == "first")
        }
        #expect(api.state.withLock { $0.calls.count } == 4)
    }
}
