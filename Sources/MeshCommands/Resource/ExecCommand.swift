package import ArgumentParser
import Foundation
import MeshKubernetes
import MeshLocal

package struct ExecCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "exec", abstract: "Run a command in a container: apus exec web-1 -- ls /.",
        discussion: "Standard input, output, error and the exit code are the command's own.")

    @OptionGroup var platform: PlatformOptions

    @Option(name: .shortAndLong, help: "The namespace; `default` when absent.")
    var namespace: String?

    @Option(name: .shortAndLong, help: "The container; the pod's first one when absent.")
    var container: String?

    @Flag(
        name: [.customShort("i"), .customLong("stdin")],
        help: "Pass standard input on. Without it the command reads end-of-file.")
    var passesInput = false

    @Flag(name: [.customShort("t"), .customLong("tty")], help: "Give the command a terminal.")
    var hasTerminal = false

    @Argument(help: "POD or TYPE/NAME, such as deployment/web.")
    var pod: String

    @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
    var command: [String]

    package init() {}

    package mutating func run() async throws {
        guard !command.isEmpty else { throw CommandFailure("give a command after --: apus exec \(pod) -- ls /") }
        let target = try await platform.withClient(target)
        let code = try await execute(target, on: try platform.access())
        guard code == 0 else { throw ExitCode(Int32(truncatingIfNeeded: code)) }
    }

    private struct Target {
        let namespace: String
        let pod: String
        let container: String?
    }

    private func target(_ client: KubernetesClient) async throws -> Target {
        let namespace = namespace ?? client.defaultNamespace
        let found = try await PodReferenceResolver(client: client).pod(pod, namespace: namespace)
        return Target(
            namespace: namespace, pod: found.name,
            container: container ?? found.json[path: "spec", "containers"]?[0]?["name"]?.string)
    }

    private func execute(_ target: Target, on access: ClusterAccess) async throws -> Int {
        // A pipe or a file is meant for the command; a terminal only when asked for.
        let input = passesInput || isatty(STDIN_FILENO) == 0 ? ExecCommand.standardInput() : nil
        return try await ExecClient(access).run(
            namespace: target.namespace, pod: target.pod, container: target.container, command: command,
            standardInput: input,
            hasTerminal: hasTerminal, output: ExecCommand.write)
    }

    @Sendable private static func write(_ output: PodExecOutput) {
        switch output {
        case .standardOutput(let bytes): FileHandle.standardOutput.write(Data(bytes))
        case .standardError(let bytes): FileHandle.standardError.write(Data(bytes))
        }
    }

    /// Read on a thread of its own, because the read blocks; one piece at a time, taken when the connection asks for it.
    private static func standardInput() -> AsyncStream<[UInt8]> {
        let queue = DispatchQueue(label: "standard-input")
        return AsyncStream {
            await withCheckedContinuation { continuation in
                queue.async {
                    var buffer = [UInt8](repeating: 0, count: 32 * 1024)
                    let count = read(STDIN_FILENO, &buffer, buffer.count)
                    continuation.resume(returning: count > 0 ? Array(buffer[..<count]) : nil)
                }
            }
        }
    }
}
