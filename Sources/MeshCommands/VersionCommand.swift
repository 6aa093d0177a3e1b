package import ArgumentParser
import MeshCore

package struct VersionCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Print the version of this program.")

    @Option(name: .shortAndLong, help: "table or json.")
    var output: ReportFormat = .table

    package init() {}

    package func run() throws {
        Terminal.print(
            output == .json ? "{\"version\": \"\(ApusVersion.current)\"}\n" : "apus \(ApusVersion.current)\n")
    }
}

package struct CompletionCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "completion", abstract: "Print the completion script of a shell: source <(apus completion bash).")

    @Argument(help: "bash, zsh or fish.")
    var shell: String

    package init() {}

    package func run() throws {
        guard let shell = CompletionShell(rawValue: shell), CompletionShell.allCases.contains(shell) else {
            throw CommandFailure(
                "'\(shell)' has no completion script: expected \(CompletionShell.allCases.map(\.rawValue).joined(separator: ", "))"
            )
        }
        Terminal.print(ApusCommand.completionScript(for: shell))
    }
}
