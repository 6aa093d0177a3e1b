package import ArgumentParser

/// `apus`: the mesh from a terminal.
package struct ApusCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "A service mesh: every pod gets a sidecar, no service is changed.",
        groupedSubcommands: [
            CommandGroup(name: "Objects", subcommands: [ApplyCommand.self, GetCommand.self, DeleteCommand.self, LogsCommand.self]),
            CommandGroup(name: "The mesh", subcommands: [StatusCommand.self, StatCommand.self, EdgesCommand.self]),
            CommandGroup(name: "This program", subcommands: [VersionCommand.self, CompletionCommand.self]),
        ])

    package init() {}
}
