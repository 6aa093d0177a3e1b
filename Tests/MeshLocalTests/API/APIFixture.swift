import Foundation
import Logging
import MeshAddress
import MeshKubernetes
import MeshLocal
import Synchronization
import Testing

/// An API server of its own over HTTPS on loopback, with a client, for one test.
struct APIFixture: Sendable {
    let api: LocalAPI
    let client: KubernetesClient
    let server: SocketAddress
    let authorityPEM: String
    let token: String
    let directory: String
    let access: FakePodAccess
    let apiServer: APIServer

    enum Part { case controllers, kubelet }

    /// Runs a test beside a server, and takes everything down after it.
    static func run(
        _ parts: Set<Part> = [], limits: ObjectStoreLimits = ObjectStoreLimits(), directory: String? = nil,
        _ test: @escaping @Sendable (APIFixture) async throws -> Void
    ) async throws {
        let place = directory ?? NSTemporaryDirectory() + "apus-api-" + UUID().uuidString
        defer { if directory == nil { try? FileManager.default.removeItem(atPath: place) } }
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let store = try ObjectStore(directory: place, limits: limits)
        let api = try LocalAPI(store: store, settings: LocalAPISettings(nodeName: "machine"))
        let access = FakePodAccess()
        let server = try APIServer(
            api: api, settings: APIServerSettings(listeners: [SocketAddress(.loopback4, 0)]), access: access,
            logger: logger)
        let (listening, announce) = AsyncStream.makeStream(of: SocketAddress.self)
        try await withThrowingTaskGroup(of: Void.self) { [logger] group in
            group.addTask { try await server.run { announce.yield($0) } }
            var iterator = listening.makeAsyncIterator()
            let address = try #require(await iterator.next())
            let controllers = Controllers(
                api: api,
                settings: ControllerSettings(
                    authorityPEM: server.authorityPEM, apiServers: [address], jobBackoffMilliseconds: 50),
                logger: logger)
            try await controllers.prepare()
            if parts.contains(.controllers) { group.addTask { try await controllers.run() } }
            if parts.contains(.kubelet) { group.addTask { try await FakeKubelet(api: api).run() } }
            let client = try KubernetesClient(
                ClusterAccess(
                    server: "https://\(address)", certificateAuthority: Array(server.authorityPEM.utf8),
                    token: .fixed(server.administratorToken)), logger: logger)
            let fixture = APIFixture(
                api: api, client: client, server: address, authorityPEM: server.authorityPEM,
                token: server.administratorToken,
                directory: place, access: access, apiServer: server)
            do {
                try await test(fixture)
            } catch {
                await client.shutdown()
                group.cancelAll()
                throw error
            }
            await client.shutdown()
            group.cancelAll()
            while let result = await group.nextResult() { _ = result }
        }
    }

    /// Waits for the state that the test is about, as long as a slow machine needs.
    func eventually(
        _ what: String, seconds: Double = 30, location: SourceLocation = #_sourceLocation,
        _ holds: () async throws -> Bool
    ) async throws {
        let end = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < end {
            if try await holds() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("did not happen: \(what)", sourceLocation: location)
        throw CancellationError()
    }

    func pods(_ namespace: String = "default", _ selector: String? = nil) async throws -> [KubernetesObject] {
        try await client.list(.pod, namespace: namespace, labelSelector: selector, fieldSelector: nil).items
    }
}

extension KubernetesObject {
    static func pod(_ name: String, labels: JSONValue = [:], spec: JSONValue? = nil) -> KubernetesObject {
        KubernetesObject([
            "apiVersion": "v1", "kind": "Pod",
            "metadata": ["name": .string(name), "namespace": "default", "labels": labels],
            "spec": spec ?? ["containers": [["name": "main", "image": "host", "command": ["sleep", "1000"]]]],
        ])
    }

    static func configMap(_ name: String, _ data: JSONValue = [:], namespace: String = "default") -> KubernetesObject {
        KubernetesObject([
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": ["name": .string(name), "namespace": .string(namespace)], "data": data,
        ])
    }

    static func service(_ name: String, spec: JSONValue) -> KubernetesObject {
        KubernetesObject([
            "apiVersion": "v1", "kind": "Service", "metadata": ["name": .string(name), "namespace": "default"],
            "spec": spec,
        ])
    }

    static func deployment(_ name: String, replicas: Int, image: String = "host", strategy: JSONValue? = nil)
        -> KubernetesObject
    {
        var spec: JSONValue = [
            "replicas": .int(Int64(replicas)), "selector": ["matchLabels": ["app": .string(name)]],
            "template": [
                "metadata": ["labels": ["app": .string(name)]],
                "spec": ["containers": [["name": "main", "image": .string(image)]]],
            ],
        ]
        spec["strategy"] = strategy
        return KubernetesObject([
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": ["name": .string(name), "namespace": "default"],
            "spec": spec,
        ])
    }
}

/// Plays the pod runner: pods run at once, or as their annotation `test/fate` says (`succeed`, `fail`, `unready`).
struct FakeKubelet: Sendable {
    var api: LocalAPI

    func run() async throws {
        let start = try await api.list(.pod, namespace: nil, labelSelector: nil, fieldSelector: nil)
        for pod in start.items { await look(pod) }
        for try await event in api.watch(
            .pod, namespace: nil, labelSelector: nil, fieldSelector: nil, resourceVersion: start.resourceVersion)
        where event.change == .added || event.change == .modified {
            await look(event.object)
        }
    }

    private func look(_ pod: KubernetesObject) async {
        if pod.isTerminating {
            _ = try? await api.delete(
                .pod, namespace: pod.namespace, name: pod.name, gracePeriodSeconds: 0, uid: pod.uid)
            return
        }
        let fate = pod.annotations["test/fate"]
        let phase = fate == "succeed" ? "Succeeded" : fate == "fail" ? "Failed" : "Running"
        guard pod.json[path: "status", "phase"]?.string != phase else { return }
        let number = pod.uid.utf8.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xffff }
        let isReady = phase == "Running" && fate != "unready"
        var changed = pod
        changed.json["status"] = [
            "phase": .string(phase), "podIP": .string("10.97.\(number >> 8).\(number & 255)"),
            "conditions": [
                [
                    "type": "Ready", "status": isReady ? "True" : "False",
                    "lastTransitionTime": .string(KubernetesTime.now.description),
                ]
            ],
        ]
        changed.json[path: "metadata", "resourceVersion"] = nil
        _ = try? await api.update(.pod, changed, subresource: "status")
    }
}

/// Answers for pods that do not run.
final class FakePodAccess: PodAccess {
    let addresses = Mutex<[String: IPAddress]>([:])

    func logs(of pod: PodReference, _ request: PodLogRequest) async throws -> AsyncThrowingStream<[UInt8], any Error> {
        AsyncThrowingStream { continuation in
            continuation.yield(Array("\(request.container) \(request.tailLines ?? -1)\n".utf8))
            if !request.follow { continuation.finish() }
        }
    }

    /// `cat` answers what it is given, `fail N` ends with N, `both` writes to both outputs.
    func exec(
        in pod: PodReference, _ request: PodExecRequest, standardInput: AsyncStream<[UInt8]>,
        output: @escaping @Sendable (PodExecOutput) async throws -> Void
    ) async throws -> Int {
        switch request.command.first {
        case "cat":
            for await piece in standardInput { try await output(.standardOutput(piece)) }
            return 0
        case "fail": return Int(request.command.last ?? "") ?? 1
        case "both":
            try await output(.standardOutput(Array("out".utf8)))
            try await output(.standardError(Array("err".utf8)))
            return 0
        case "flood":
            for _ in 0..<2_000 { try await output(.standardOutput([UInt8](repeating: 65, count: 1_000))) }
            return 0
        default: throw StatusError(code: 400, reason: "BadRequest", message: "no such command")
        }
    }

    func address(of pod: PodReference) async throws -> IPAddress? { addresses.withLock { $0[pod.name] } }
}
