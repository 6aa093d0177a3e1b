import Foundation
import Synchronization

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
        defer { running.stop() }
        try await running.waitForEnd(seconds: seconds)
        return Command(status: running.status, output: running.output, errors: running.errors)
    }
}

/// A program that goes on while the test does something else.
final class RunningCommand: Sendable {
    private let words: [String]
    private let directory: String
    private let process: pid_t
    /// What `waitpid` said; nil while the program runs. Foundation's Process is not used here: it takes a program for
    /// running as long as any descendant holds one of its descriptors, and `apus up --detach` leaves one behind.
    private let end = Mutex<Int32?>(nil)

    init(_ words: [String], input: String? = nil, environment: [String: String] = [:]) throws {
        self.words = words
        directory = FileManager.default.temporaryDirectory.path + "/apus-e2e-command-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try Data((input ?? "").utf8).write(to: URL(filePath: directory + "/input"))
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, directory + "/input", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, directory + "/output", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, directory + "/errors", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        let settings = ProcessInfo.processInfo.environment.merging(environment) { $1 }.map { "\($0)=\($1)" }
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        var variables: [UnsafeMutablePointer<CChar>?] = settings.map { strdup($0) } + [nil]
        defer { for word in arguments + variables { free(word) } }
        var identifier: pid_t = 0
        let result = posix_spawn(&identifier, try Command.path(words[0]), &actions, nil, &arguments, &variables)
        guard result == 0 else { throw Failure("\(words[0]) cannot be started: \(String(cString: strerror(result)))") }
        process = identifier
    }

    /// The exit status as a shell has it; 128 and the signal for one that was killed.
    var status: Int32 {
        guard let end = end.withLock({ $0 }) else { return -1 }
        return end & 0x7f == 0 ? (end >> 8) & 0xff : 128 + (end & 0x7f)
    }
    var output: String { read("output") }
    var errors: String { read("errors") }

    private func read(_ name: String) -> String {
        String(decoding: FileManager.default.contents(atPath: "\(directory)/\(name)") ?? Data(), as: UTF8.self)
    }

    private func hasEnded(_ options: Int32) -> Bool {
        end.withLock { end in
            if end != nil { return true }
            var status: Int32 = 0
            if waitpid(process, &status, options) == process { end = status }
            return end != nil
        }
    }

    func waitForEnd(seconds: Int) async throws {
        let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
        while !hasEnded(WNOHANG) {
            guard ContinuousClock.now < deadline else {
                throw Failure("\(words.joined(separator: " ")) has not ended after \(seconds) s: \(output)\n\(errors)")
            }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    /// Ends it if it runs, and removes its files.
    func stop() {
        if !hasEnded(WNOHANG) {
            kill(process, SIGKILL)
            _ = hasEnded(0)
        }
        try? FileManager.default.removeItem(atPath: directory)
    }
}

/// Why a test cannot go on.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
