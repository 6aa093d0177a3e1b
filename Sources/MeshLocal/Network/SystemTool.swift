import CApus
import Dispatch
import Glibc

/// A program of the machine (`ip`, `nft`) that is run with a script on its standard input.
struct SystemTool: Sendable {
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    let path: String

    /// What is kept of a tool's output and of its complaint, in bytes.
    static let outputLimit = 4 << 20

    private static let queue = DispatchQueue(label: "apus.tools", attributes: .concurrent)

    /// The program in the directories where system administration lives; nil when it is not installed.
    static func find(_ name: String) -> SystemTool? {
        for directory in ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"] {
            let path = "\(directory)/\(name)"
            if access(path, X_OK) == 0 { return SystemTool(path: path) }
        }
        return nil
    }

    /// Its standard output. Fails with its complaint when it exits with another code than 0 or takes longer than
    /// `timeoutMilliseconds`.
    @discardableResult
    func run(_ arguments: [String], input: String = "", timeoutMilliseconds: Int32 = 20_000) async throws -> String {
        try await withCheckedThrowingContinuation { continuation in
            SystemTool.queue.async {
                continuation.resume(
                    with: Result { try runAndWait(arguments, input: input, timeoutMilliseconds: timeoutMilliseconds) })
            }
        }
    }

    /// The same on the calling thread.
    @discardableResult
    func runAndWait(_ arguments: [String], input: String = "", timeoutMilliseconds: Int32 = 20_000) throws -> String {
        var text = input
        let files = [
            text.withUTF8 { apus_memory_file($0.baseAddress, $0.count) }, apus_memory_file("", 0),
            apus_memory_file("", 0),
        ]
        defer { files.filter { $0 >= 0 }.forEach { _ = close($0) } }
        guard files.allSatisfy({ $0 >= 0 }) else {
            throw Failure(description: "\(path): no memory file: \(lastError())")
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for (number, file) in files.enumerated() {
            posix_spawn_file_actions_adddup2(&actions, file, Int32(number))
        }
        let strings: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
        let variables = ["PATH=/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL=C"]
        let environment: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) } + [nil]
        defer { (strings + environment).forEach { free($0) } }
        var child: pid_t = 0
        let spawned = posix_spawn(&child, path, &actions, nil, strings, environment)
        guard spawned == 0 else { throw Failure(description: "\(path) did not start: \(errorText(spawned))") }
        let process = apus_process_open(child)
        var status: Int32 = 0
        var isLate = false
        if process >= 0 {
            var wait = pollfd(fd: process, events: Int16(POLLIN), revents: 0)
            isLate = poll(&wait, 1, timeoutMilliseconds) == 0
            if isLate { _ = apus_process_kill(process, SIGKILL) }
            close(process)
        }
        while waitpid(child, &status, 0) < 0 && errno == EINTR {}
        if isLate {
            throw Failure(
                description: "\(path) \(arguments.joined(separator: " ")) did not end in \(timeoutMilliseconds) ms")
        }
        guard status == 0 else {
            let complaint = read(files[2]).split(separator: "\n").prefix(6).joined(separator: "; ")
            throw Failure(description: "\(path) \(arguments.joined(separator: " ")): \(complaint)")
        }
        return read(files[1])
    }

    private func read(_ file: Int32) -> String {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while bytes.count < SystemTool.outputLimit {
            let count = pread(file, &chunk, chunk.count, off_t(bytes.count))
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// The text of an errno.
func errorText(_ code: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    guard strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
    return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
}

func lastError() -> String { errorText(errno) }
