package import ArgumentParser
import Foundation
import MeshLocal

package struct DownCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "down", abstract: "End the platform on this machine and remove what it made, also after a crash.")

    @Option(help: ArgumentHelp("Where the platform keeps its state.", valueName: "directory"))
    var dataDir: String = ProcessInfo.processInfo.environment["APUS_DATA_DIR"] ?? PlatformOptions.defaultDataDirectory

    @Flag(help: "Remove the data directory too: objects, logs, certificates.")
    var purge = false

    package init() {}

    package mutating func run() async throws {
        let removal = try await LocalPlatform.down(dataDirectory: dataDir, purge: purge)
        guard removal.wasPresent else { return Terminal.note("there is no platform in \(dataDir)") }
        if let process = removal.stoppedProcess { Terminal.note("the platform (process \(process)) has ended") }
        for thing in removal.removed { Terminal.note("removed \(thing)") }
    }
}
