package import ArgumentParser
import Foundation
import Logging
import MeshKubernetes

/// How every command finds its platform: a machine's own by its data directory, a cluster by its kubeconfig.
package struct PlatformOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Where `apus up` keeps its state.", valueName: "directory"))
    package var dataDir: String?

    @Option(help: ArgumentHelp("A cluster instead: its kubeconfig.", valueName: "file"))
    package var kubeconfig: String?

    @Option(help: ArgumentHelp("The kubeconfig's context.", valueName: "name"))
    package var context: String?

    package init() {}

    static let defaultDataDirectory = "/var/lib/apus"

    var dataDirectory: String {
        dataDir ?? ProcessInfo.processInfo.environment["APUS_DATA_DIR"] ?? PlatformOptions.defaultDataDirectory
    }

    package mutating func validate() throws {
        if dataDir != nil && kubeconfig != nil {
            throw ValidationError("--data-dir and --kubeconfig name two platforms: give one")
        }
    }

    /// `--kubeconfig`; `--data-dir`; the platform of this machine when there is one; the user's own kubeconfig.
    private func kubeconfigPath() throws -> String {
        if let kubeconfig { return kubeconfig }
        let local = "\(dataDirectory)/kubeconfig"
        if FileManager.default.fileExists(atPath: local) { return local }
        let isNamed = dataDir != nil || ProcessInfo.processInfo.environment["APUS_DATA_DIR"] != nil
        let own = Kubeconfig.defaultPath()
        if !isNamed && FileManager.default.fileExists(atPath: own) { return own }
        throw CommandFailure(
            "no platform: there is no \(local)\(isNamed ? "" : " and no \(own)"). Start one with 'apus up', or give --data-dir or --kubeconfig"
        )
    }

    func access() throws -> ClusterAccess { try Kubeconfig.load(path: kubeconfigPath(), context: context) }

    /// Runs `body` with a client of the platform and closes it afterwards.
    func withClient<Result>(_ body: (KubernetesClient) async throws -> Result) async throws -> Result {
        var logger = Logger(label: "apus")
        logger.logLevel = .error
        let client = try KubernetesClient(access(), logger: logger)
        do {
            let result = try await body(client)
            await client.shutdown()
            return result
        } catch {
            await client.shutdown()
            throw error
        }
    }
}

/// A command that could not do what it was asked, in words for the user: printed on standard error, exit code 1.
struct CommandFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// `-n`, for the commands that work within one namespace.
struct NamespaceOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "The namespace; `default` when absent.")
    var namespace: String?

    @Flag(name: [.customShort("A"), .customLong("all-namespaces")], help: "Every namespace.")
    var allNamespaces = false
}

/// `-o`, for the commands that print a report.
enum ReportFormat: String, ExpressibleByArgument, CaseIterable {
    case table
    case json
}
