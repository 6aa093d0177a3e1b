import Foundation
import Logging
import MeshKubernetes
import MeshLocal
import Testing

/// A whole platform in this process, in a namespace of a test's own, and a client of its API.
final class PodMachine: Sendable {
    let api: KubernetesClient
    let directory: String
    private let access: ClusterAccess
    private let platform: Task<Void, any Error>

    static func with(_ body: (PodMachine) async throws -> Void) async throws {
        let machine = try await PodMachine()
        do {
            try await body(machine)
        } catch {
            await machine.shutDown()
            throw error
        }
        await machine.shutDown()
    }

    private init() async throws {
        directory = TestNamespace.sharedDirectory + "/" + UUID().uuidString.prefix(8).lowercased()
        var options = PlatformOptions(dataDirectory: directory)
        options.network = NetworkSettings(bridge: "apust0", podSubnet: "10.197.0.0/24", serviceSubnet: "10.196.0.0/24")
        options.nodeName = "machine"
        options.stopGraceSeconds = 1
        options.restartBaseMilliseconds = 300
        options.restartLimitMilliseconds = 300
        options.volumeRefresh = VolumeRefresh(periodMilliseconds: 200, tokenAgeLimitSeconds: 2)
        options.handlesSignals = false
        let (steps, report) = AsyncStream.makeStream(of: PlatformProgress.Step.self)
        var log = Logger(label: "platform")
        log.logLevel = .error
        platform = Task { [options, log] in
            defer { report.finish() }
            try await LocalPlatform.run(options, log: log) { report.yield($0.step) }
        }
        var isReady = false
        for await step in steps where step == .ready {
            isReady = true
            break
        }
        if !isReady { try await platform.value }
        access = try Kubeconfig.load(path: PlatformOptions.kubeconfigPath(dataDirectory: directory))
        api = try KubernetesClient(access, logger: log)
    }

    private func shutDown() async {
        await api.shutdown()
        platform.cancel()
        do {
            try await platform.value
        } catch {
            Issue.record("the platform ended with \(error)")
        }
    }

    // MARK: What tests ask of it

    /// A pod of one container that runs a shell script, with more fields as given.
    @discardableResult
    func create(
        _ name: String, _ script: String, spec more: [String: JSONValue] = [:], container: [String: JSONValue] = [:]
    ) async throws
        -> String
    {
        var main: [String: JSONValue] = ["name": "main", "image": "host", "command": ["sh", "-c", .string(script)]]
        main.merge(container) { $1 }
        var spec: [String: JSONValue] = ["containers": [.object(main)], "terminationGracePeriodSeconds": 5]
        spec.merge(more) { $1 }
        let object = try await api.create(
            .pod,
            KubernetesObject([
                "apiVersion": "v1", "kind": "Pod",
                "metadata": ["name": .string(name), "namespace": "default", "labels": ["app": .string(name)]],
                "spec": .object(spec),
            ]))
        return object.uid
    }

    func pod(_ name: String) async throws -> Kubernetes.Pod {
        try await api.get(.pod, namespace: "default", name: name).view()
    }

    /// Waits until the pod is as wanted; the test fails with the last status when it is not within the bound.
    @discardableResult
    func wait(
        _ name: String, seconds: Int = 20, _ what: Comment, sourceLocation: SourceLocation = #_sourceLocation,
        _ isWanted: (Kubernetes.Pod) -> Bool
    ) async throws -> Kubernetes.Pod {
        let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
        while true {
            let pod = try await pod(name)
            if isWanted(pod) { return pod }
            if ContinuousClock.now >= deadline {
                Issue.record("\(what): \(pod.status)", sourceLocation: sourceLocation)
                return pod
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    func waitRunning(_ name: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        try await wait(name, "ready", sourceLocation: sourceLocation) { $0.status.isReady }
    }

    func waitGone(_ name: String, seconds: Int = 20, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
        while (try? await api.get(.pod, namespace: "default", name: name)) != nil {
            if ContinuousClock.now >= deadline {
                Issue.record("\(name) is still there", sourceLocation: sourceLocation)
                return
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    func delete(_ name: String) async throws {
        try await api.delete(.pod, namespace: "default", name: name, gracePeriodSeconds: nil, uid: nil)
    }

    /// Standard output and exit code of a command in the pod.
    func exec(_ pod: String, _ command: [String], container: String = "main", input: String? = nil) async throws -> (
        output: String, code: Int
    ) {
        var stream: AsyncStream<[UInt8]>?
        if let input {
            stream = AsyncStream { continuation in
                continuation.yield(Array(input.utf8))
                continuation.finish()
            }
        }
        let collected = Collected()
        let code = try await ExecClient(access).run(
            namespace: "default", pod: pod, container: container, command: command, standardInput: stream
        ) { output in
            if case .standardOutput(let bytes) = output { await collected.append(bytes) }
        }
        return (await collected.text, code)
    }

    func log(_ pod: String, container: String = "main", previous: Bool = false) async throws -> String {
        var options = KubernetesClient.LogOptions()
        options.container = container
        options.isPrevious = previous
        var bytes: [UInt8] = []
        for try await piece in api.log(namespace: "default", pod: pod, options) { bytes += piece }
        return String(decoding: bytes, as: UTF8.self)
    }

    private actor Collected {
        private var bytes: [UInt8] = []
        var text: String { String(decoding: bytes, as: UTF8.self) }
        func append(_ more: [UInt8]) { bytes += more }
    }
}
