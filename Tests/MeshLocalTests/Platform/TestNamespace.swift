import Foundation

/// A network namespace of a test's own, in which this very test program is run again with a filter: everything that makes
/// interfaces, rules and settings does so there, never on the machine.
struct TestNamespace {
    private static let variable = "APUS_TEST_NAMESPACE"

    /// Whether this process runs inside such a namespace.
    static var isInside: Bool { ProcessInfo.processInfo.environment[variable] != nil }
    /// Whether this process may make one.
    static var isPossible: Bool { geteuid() == 0 && TestTools.path("ip") != nil && TestTools.path("nft") != nil }
    /// The directory of the outer test, for the inner one.
    static var sharedDirectory: String { ProcessInfo.processInfo.environment["APUS_TEST_DIRECTORY"] ?? "/nonexistent" }

    let name = "apustest-" + String(UInt32.random(in: 1 << 28 ... .max), radix: 16)
    let directory: String

    static func with<Value>(_ body: (TestNamespace) async throws -> Value) async throws -> Value {
        let directory = FileManager.default.temporaryDirectory.path + "/apus-test-" + UUID().uuidString.lowercased()
        let namespace = TestNamespace(directory: directory)
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer {
            _ = try? TestTools.run("ip", ["netns", "delete", namespace.name])
            try? FileManager.default.removeItem(atPath: directory)
        }
        try TestTools.run("ip", ["netns", "add", namespace.name])
        try TestTools.run("ip", ["-n", namespace.name, "link", "set", "lo", "up"])
        return try await body(namespace)
    }

    /// Output of a program inside, whatever its exit code.
    func output(_ arguments: [String]) -> String {
        (try? TestTools.run("ip", ["netns", "exec", name] + arguments).output) ?? ""
    }

    /// A new namespace has the machine's value.
    func setForwarding(_ isOn: Bool) {
        _ = output(["sh", "-c", "echo \(isOn ? 1 : 0) > /proc/sys/net/ipv4/ip_forward"])
    }
    var isForwarding: Bool { output(["cat", "/proc/sys/net/ipv4/ip_forward"]) != "0\n" }

    /// The tests that match run inside, in a process of their own. `ip netns exec` becomes that process, so its id is the
    /// test program's.
    func start(_ filter: String, _ environment: [String: String] = [:], log: String) throws -> Process {
        let program = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let process = Process()
        process.executableURL = URL(fileURLWithPath: TestTools.path("ip") ?? "/sbin/ip")
        process.arguments = ["netns", "exec", name, program, "--testing-library", "swift-testing", "--filter", filter]
        process.environment = ProcessInfo.processInfo.environment
            .merging([Self.variable: name, "APUS_TEST_DIRECTORY": directory]) { $1 }.merging(environment) { $1 }
        _ = FileManager.default.createFile(atPath: log, contents: nil)
        let output = try FileHandle(forWritingTo: URL(fileURLWithPath: log))
        process.standardOutput = output
        process.standardError = output
        process.standardInput = FileHandle.nullDevice
        try process.run()
        return process
    }

    /// Runs the tests that match to their end, which is bounded, and returns what they said.
    func run(_ filter: String, seconds: Int = 180) async throws -> (isSuccess: Bool, text: String) {
        let log = directory + "/tests.log"
        let process = try start(filter, log: log)
        let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
        while process.isRunning {
            if ContinuousClock.now >= deadline { process.terminate() }
            try await Task.sleep(for: .milliseconds(50))
        }
        let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        return (process.terminationStatus == 0 && text.contains("passed") && !text.contains(" 0 tests"), text)
    }
}
