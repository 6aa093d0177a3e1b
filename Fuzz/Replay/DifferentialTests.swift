import Foundation
import Testing

/// What the sidecar sends on, read by others.
@Suite struct DifferentialTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    @Test(
        "What the sidecar sends on means to another parser what it meant to the sidecar",
        arguments: [["--seconds", "12"], ["--seconds", "8", "--nginx"]])
    func meansTheSame(arguments: [String]) throws {
        let python = Self.root.appending(path: ".build/venv/bin/python")
        let proxy = Self.root.appending(path: ".build/release/apus-proxy")
        let process = Process()
        process.executableURL = python
        process.arguments =
            [Self.root.appending(path: "Fuzz/differential").path, "--proxy", proxy.path] + arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(text)")
    }
}
