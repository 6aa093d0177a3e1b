import Foundation
import Synchronization
import Testing

/// The real binaries on a platform of their own: `apus up` in a network namespace that the test made, with its own data.
struct Platform: Sendable {
    let namespace: String
    let directory: String
    var dataDirectory: String { directory + "/data" }

    private static let made = Atomic(0)
    private static let binaries =
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path + "/.build/release"

    /// Runs the body with a platform that is up, and takes everything down, whatever happens.
    ///
    /// - Parameter up: more words for `apus up`; nil leaves it to the body.
    static func with(up: [String]? = [], _ body: (Platform) async throws -> Void) async throws {
        guard geteuid() == 0 else {
            throw Failure("the end-to-end tests need root, because pods are network namespaces")
        }
        let number = made.wrappingAdd(1, ordering: .relaxed).newValue
        let namespace = "apus-e2e-\(ProcessInfo.processInfo.processIdentifier)-\(number)"
        let platform = Platform(
            namespace: namespace, directory: FileManager.default.temporaryDirectory.path + "/" + namespace)
        try FileManager.default.createDirectory(atPath: platform.directory, withIntermediateDirectories: true)
        do {
            try await platform.must(["ip", "netns", "add", namespace])
            try await platform.must(["ip", "-n", namespace, "link", "set", "lo", "up"])
            if let up { try await platform.must(try platform.apusWords(["up", "--detach"] + up), seconds: 200) }
            try await body(platform)
        } catch {
            await platform.printEvidence()
            await platform.remove()
            throw error
        }
        await platform.remove()
    }

    private func remove() async {
        let down = try? await apusOutcome(["down", "--purge"], seconds: 120)
        #expect(down?.status == 0, "apus down: \(down?.text ?? "did not end")")
        _ = try? await Command.run(["ip", "netns", "delete", namespace])
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// What one wants to see of a platform on which a test could not go on.
    private func printEvidence() async {
        let questions = [
            ["get", "pods", "-A", "-o", "wide"], ["get", "events", "-A"], ["status"],
            ["logs", "deployment/apus-control", "-n", "apus-system", "--tail", "30"],
        ]
        for question in questions {
            guard let answer = try? await apusOutcome(question) else { continue }
            print("---- apus \(question.joined(separator: " "))\n\(answer.text.suffix(6000))")
        }
        let log = FileManager.default.contents(atPath: dataDirectory + "/platform.log") ?? Data()
        print("---- platform.log\n\(String(decoding: log.suffix(6000), as: UTF8.self))")
    }

    // MARK: - Commands

    /// A program that must succeed.
    @discardableResult
    func must(_ words: [String], input: String? = nil, seconds: Int = 60) async throws -> String {
        let done = try await Command.run(words, input: input, seconds: seconds)
        guard done.status == 0 else {
            throw Failure("\(words.joined(separator: " ")) failed (\(done.status)): \(done.text)")
        }
        return done.output
    }

    /// The words that run a program on the host's side of this platform.
    func inside(_ words: [String]) throws -> [String] {
        ["ip", "netns", "exec", namespace, try Command.path(words[0])] + words.dropFirst()
    }

    func apusWords(_ words: [String]) throws -> [String] {
        try inside(
            [Platform.binaries + "/apus"] + words.prefix { $0 != "--" } + ["--data-dir", dataDirectory]
                + words.drop { $0 != "--" })
    }

    func apusOutcome(_ words: [String], input: String? = nil, seconds: Int = 60) async throws -> Command {
        try await Command.run(try apusWords(words), input: input, seconds: seconds)
    }

    @discardableResult
    func apus(_ words: String..., input: String? = nil, seconds: Int = 60) async throws -> String {
        try await must(try apusWords(words), input: input, seconds: seconds)
    }

    func apply(_ manifests: String...) async throws {
        try await apus("apply", "-f", "-", input: manifests.joined(separator: "\n---\n"))
    }

    /// What a command in a pod of the namespace `test` said.
    func exec(_ pod: String, _ container: String, _ words: String...) async throws -> Command {
        try await apusOutcome(["exec", "-n", "test", pod, "-c", container, "--"] + words)
    }

    /// The body of an HTTP answer, asked for from the host's side.
    func page(_ url: String) async throws -> String {
        try await must(try inside(["curl", "-sS", "--max-time", "20", "--fail-with-body", url]))
    }

    // MARK: - Questions

    func get(_ words: String...) async throws -> JSON {
        try JSON.parse(try await must(try apusWords(["get"] + words + ["-o", "json"])))
    }

    func pods(_ selector: String, in namespace: String = "test") async throws -> [JSON] {
        try await get("pods", "-n", namespace, "-l", selector)["items"].items
            .filter { $0["metadata"]["deletionTimestamp"] == .null }
    }

    /// The pods of this selector, when there are so many and all of them are ready.
    func ready(_ count: Int, _ selector: String, in namespace: String = "test", seconds: Int = 90) async throws
        -> [JSON]
    {
        try await until("\(count) pods of \(selector) to be ready", seconds: seconds) {
            let pods = try await pods(selector, in: namespace)
            return pods.count == count && pods.allSatisfy(\.isReady) ? pods : nil
        }
    }

    /// The newest line of JSON that a container wrote.
    func newestLine(_ workload: String, container: String) async throws -> JSON? {
        let log = try await apusOutcome(["logs", workload, "-n", "test", "-c", container, "--tail", "2"])
        return try log.output.split(separator: "\n").last { $0.hasPrefix("{") && $0.hasSuffix("}") }
            .map { try JSON.parse(String($0)) }
    }

    /// The first value that is there; the wait is long, because it only ends a test that fails.
    func until<Value>(_ what: String, seconds: Int = 60, _ probe: () async throws -> Value?) async throws -> Value {
        let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
        while true {
            if let value = try await probe() { return value }
            guard ContinuousClock.now < deadline else { throw Failure("waited \(seconds) s for \(what)") }
            try await Task.sleep(for: .milliseconds(150))
        }
    }
}

extension JSON {
    /// Of a pod.
    var isReady: Bool {
        self["status"]["conditions"].items.contains { $0["type"].text == "Ready" && $0["status"].text == "True" }
    }
    var name: String { self["metadata"]["name"].text }
    /// Of a pod.
    var address: String { self["status"]["podIP"].text }
    /// Of a pod: whether it runs with a sidecar that has started.
    var hasSidecar: Bool {
        self["status"]["initContainerStatuses"].items.contains { $0["name"].text == "apus-proxy" && $0["ready"].isTrue }
    }
}
