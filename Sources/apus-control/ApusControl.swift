import ArgumentParser
import Foundation
import Logging
import MeshAddress
import MeshCore
import MeshKubernetes
import MeshTelemetry

/// The control plane's process. What its flags leave open, its environment says, as the install manifests write it.
@main
struct ApusControl: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus-control",
        abstract: "The control plane of Apus: injection, identities, discovery, health.",
        version: ApusVersion.current)

    @Option(help: "A kubeconfig to reach the API server with; without it, the pod's own service account.")
    var kubeconfig: String?

    @Option(help: "The kubeconfig's context; without it, its current one.")
    var context: String?

    @Option(help: "The namespace that the control plane is installed in (or APUS_POD_NAMESPACE).")
    var namespace: String?

    @Option(help: "The trust domain of all identities (or APUS_TRUST_DOMAIN).")
    var trustDomain: String?

    @Option(help: "What sidecars do with plaintext: strict or permissive (or APUS_PLAINTEXT).")
    var plaintext: String?

    @Option(help: "What sidecars do with unknown destinations: allow or deny (or APUS_UNKNOWN_DESTINATIONS).")
    var unknownDestinations: String?

    @Option(help: "The image of the sidecar (or APUS_PROXY_IMAGE).")
    var proxyImage: String?

    @Option(help: "Where sidecars reach discovery, host:port (or APUS_CONTROL_ADDRESS).")
    var controlAddress: String?

    @Option(help: "How long a sidecar's certificate lives, in seconds: 60 to 86400.")
    var leafLifetimeSeconds: Int64 = 86_400

    @Option(help: "How long a new root lives, in days: 2 to 36500.")
    var rootLifetimeDays: Int64 = 3650

    @Option(help: "The port of discovery, certificates and telemetry.")
    var discoveryPort: UInt16 = 15010

    @Option(help: "The port of the injection webhook.")
    var webhookPort: UInt16 = 15011

    @Option(help: "The port of metrics, readiness and queries.")
    var queryPort: UInt16 = 15014

    @Option(help: "trace, debug, info, warning or error (or APUS_LOG_LEVEL).")
    var logLevel: String?

    func run() async throws {
        do {
            let settings = try ControlSettings(self, environment: ProcessInfo.processInfo.environment)
            LoggingSystem.bootstrap { label in
                var handler = StreamLogHandler.standardError(label: label)
                handler.logLevel = settings.logLevel
                return handler
            }
            try await ControlProcess.run(settings)
        } catch {
            FileHandle.standardError.write(Data("apus-control: \(error)\n".utf8))
            throw ExitCode(1)
        }
    }
}
