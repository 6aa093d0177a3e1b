package import ArgumentParser
import MeshKubernetes

package struct ApplyCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "apply", abstract: "Make the platform be what manifests say.")

    @OptionGroup var platform: PlatformOptions
    @OptionGroup var scope: NamespaceOptions

    @Option(name: .shortAndLong, help: "A file, a folder, or - for standard input; may be repeated.")
    var filename: [String]

    package init() {}

    package mutating func run() async throws {
        let namespace = scope.namespace
        let manifests = try Manifests.load(filename)
        guard !manifests.isEmpty else { throw CommandFailure("\(filename.joined(separator: ", ")) has no documents") }
        try await platform.withClient { client in
            var catalog = try await ResourceCatalog.load(client)
            let applier = Applier(client: client, defaultNamespace: namespace)
            var failures = 0
            for manifest in manifests {
                do {
                    let kind = try catalog.kind(of: manifest)
                    let outcome = try await applier.apply(manifest, kind: kind)
                    Terminal.print("\(manifest.kind.lowercased())/\(manifest.name) \(outcome.rawValue)\n")
                    if kind == .customResourceDefinition { catalog = try await ResourceCatalog.load(client) }
                } catch {
                    failures += 1
                    Terminal.note("apus: \(manifest.kind.lowercased())/\(manifest.name): \(error)")
                }
            }
            guard failures == 0 else { throw ExitCode(1) }
        }
    }
}
