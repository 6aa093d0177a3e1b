package import ArgumentParser
import MeshInjector
import MeshKubernetes

package struct InjectCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "inject", abstract: "Print manifests with a sidecar in every pod, as the webhook would make them.",
        discussion:
            "The mesh's roots and trust domain come from the platform, or from --trust-bundle and --trust-domain without one."
    )

    @OptionGroup var platform: PlatformOptions

    @Option(name: .shortAndLong, help: "A file, or - for standard input; may be repeated.")
    var filename: [String]

    @Option(name: .shortAndLong, help: "The namespace of documents that name none.")
    var namespace: String?

    @Option(help: ArgumentHelp("The mesh's roots in PEM, instead of asking the platform.", valueName: "file"))
    var trustBundle: String?

    @Option(help: "The mesh's trust domain, instead of asking the platform.")
    var trustDomain: String?

    package init() {}

    package mutating func run() async throws {
        let settings = try await settings()
        var texts: [String] = []
        for path in filename {
            do {
                let injected = try Injection.inject(
                    documents: Manifests.text(path), namespace: namespace ?? "default", settings: settings)
                texts.append(injected.text)
                for outcome in injected.outcomes {
                    Terminal.note(
                        "\(outcome.object) \(outcome.isInjected ? "injected" : "left alone: \(outcome.reason)")")
                }
            } catch let error as ManifestError {
                throw CommandFailure("\(path): \(error.description)")
            }
        }
        Terminal.print(texts.joined(separator: "---\n"))
    }

    private func settings() async throws -> InjectionSettings {
        if let trustBundle {
            return InjectionSettings(
                trustDomain: trustDomain ?? "cluster.local", trustBundle: try Manifests.text(trustBundle))
        }
        let (published, mesh) = try await platform.withClient { client in
            func map(_ name: String) async throws -> KubernetesObject {
                try await client.get(.configMap, namespace: MeshInstallation.namespace, name: name)
            }
            return (try await map(MeshInstallation.trustBundleName), try await map(MeshInstallation.settingsName))
        }
        guard let roots = published.json[path: "data", MeshInstallation.trustBundleKey]?.string else {
            throw CommandFailure(
                "ConfigMap \(MeshInstallation.namespace)/\(MeshInstallation.trustBundleName) has no '\(MeshInstallation.trustBundleKey)': give --trust-bundle"
            )
        }
        let domain = mesh.json[path: "data", SettingsReader.trustDomainKey]?.string
        return InjectionSettings(trustDomain: trustDomain ?? domain ?? "cluster.local", trustBundle: roots)
    }
}
