package import ArgumentParser

/// `apus`: the mesh from a terminal.
package struct ApusCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "A service mesh: every pod gets a sidecar, no service is changed.",
        groupedSubcommands: [
            CommandGroup(name: "The platform on one machine", subcommands: [UpCommand.self, DownCommand.self]),
            CommandGroup(
                name: "Objects",
                subcommands: [
                    ApplyCommand.self, GetCommand.self, DeleteCommand.self, LogsCommand.self, ExecCommand.self,
                ]),
            CommandGroup(
                name: "The mesh",
                subcommands: [
                    StatusCommand.self, StatCommand.self, EdgesCommand.self, CheckCommand.self, ProxyCommand.self,
                    InjectCommand.self,
                ]),
            CommandGroup(name: "This program", subcommands: [VersionCommand.self, CompletionCommand.self]),
        ])

    package init() {}
}
