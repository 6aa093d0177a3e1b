import Foundation

/// What a program of the machine said, run to its end.
struct Command: Sendable {
    var status: Int32
    var output: String
    var errors: String

    /// Both streams, for a message.
    var text: String { errors.isEmpty ? output : output + "\n" + errors }

    /// Where the machine has the program; a missing one fails the test with its name.
    static func path(_ program: String) throws -> String {
        if program.hasPrefix("/") { return program }
        let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map { "\($0)/\(program)" }
            .first { FileManager.default.isExecutableFile(atPath: $0) }
        guard let found else { throw Failure("\(program) is not on this machine, and the end-to-end tests need it") }
        return found
    }

    /// Runs it. The streams go to files, so that a program that leaves a process behind does not hold the test.
    static func run(
        _ words: [String], input: String? = nil, environment: [String: String] = [:], seconds: Int = 60
    ) async throws -> Command {
        let running = try RunningCommand(words, input: input, environment: environment)
        defer { running.end() }
        try await running.waitForEnd(seconds: seconds)
        return Command(status: running.status, output: running.output, errors: running.errors)
    }
}

/// A program that goes on while the test does something else.
final class RunningCommand: Sendable {
    private let process = Process()
    private let words: [String]
    private let directory: String

    init(_ words: [String], input: String? = nil, environment: [String: String] = [:]) throws {
        self.words = words
        directory = FileManager.default.temporaryDirectory.path + "/apus-e2e-command-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        process.executableURL = URL(filePath: try Command.path(words[0]))
        process.arguments = Array(words.dropFirst())
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        try Data((input ?? "").utf8).write(to: URL(filePath: directory + "/input"))
        for name in ["output", "errors"] { _ = FileManager.default.createFile(atPath: "\(directory)/\(name)", contents: nil) }
        process.standardInput = try FileHandle(forReadingFrom: URL(filePath: directory + "/input"))
        process.standardOutput = try FileHandle(forWritingTo: URL(filePath: directory + "/output"))
        process.standardError = try FileHandle(forWritingTo: URL(filePath: directory + "/errors"))
        try process.run()
    }

    var status: Int32 { process.terminationStatus }
    var output: String { read("output") }
    var errors: String { read("errors") }

    private func read(_ name: String) -> String {
        String(decoding: FileManager.default.contents(atPath: "\(directory)/\(name)") ?? Data(), as: UTF8.self)
    }

    func waitForEnd(seconds: Int) async throws {
        let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
        while process.isRunning {
            guard ContinuousClock.now < deadline else {
                throw Failure("\(words.joined(separator: " ")) has not ended after \(seconds) s: \(output)\n\(errors)")
            }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    /// Ends it if it runs, and removes its files.
    func end() {
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
        try? FileManager.default.removeItem(atPath: directory)
    }
}

/// Why a test cannot go on.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
