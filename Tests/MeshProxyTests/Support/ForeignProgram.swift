import Foundation
import MeshAddress

/// Programs of other hands that a test runs against the sidecars: Python with grpcio, curl, nghttp, h2load.
enum ForeignProgram {
    /// Python with what `make test` installs: `APUS_PYTHON`, or the environment that it makes.
    static let python: String? = {
        if let path = ProcessInfo.processInfo.environment["APUS_PYTHON"] { return path }
        var root = URL(fileURLWithPath: #filePath)
        for _ in 0..<4 { root.deleteLastPathComponent() }
        let path = root.appendingPathComponent(".build/venv/bin/python").path
        return FileManager.default.isExecutableFile(atPath: path) ? path : nil
    }()

    static func find(_ name: String) -> String? {
        (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(name)" }
            .first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    private static func process(_ program: String?, _ arguments: [String]) throws -> (Process, FileHandle) {
        guard let program else { throw TestSocket.Failure(description: "the program is missing: run make setup-test") }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        return (process, output.fileHandleForReading)
    }

    /// Runs it to its end, a minute at most; throws with its output when it fails.
    static func run(_ program: String?, _ arguments: [String]) throws -> String {
        let (process, output) = try process(program, arguments)
        let identifier = process.processIdentifier
        let watchdog = DispatchWorkItem { kill(identifier, SIGKILL) }
        DispatchQueue.global().asyncAfter(deadline: .now() + 60, execute: watchdog)
        defer { watchdog.cancel() }
        let text = String(decoding: output.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw TestSocket.Failure(description: "status \(process.terminationStatus): \(text)")
        }
        return text
    }

    /// A server that tells its port on its first line and lives as long as this.
    final class Server {
        let address: SocketAddress
        private let process: Process

        init(_ script: String) throws {
            let (process, output) = try ForeignProgram.process(python, ["-c", script])
            self.process = process
            let line = String(decoding: output.availableData, as: UTF8.self)
            guard let port = UInt16(line.trimmingCharacters(in: .whitespacesAndNewlines)) else {
                kill(process.processIdentifier, SIGKILL)
                throw TestSocket.Failure(description: "the server told no port: \(line)")
            }
            address = SocketAddress(.loopback4, port)
        }

        deinit {
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }
    }
}
