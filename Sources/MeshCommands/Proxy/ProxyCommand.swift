package import ArgumentParser
import Foundation
import MeshCore
import MeshKubernetes
import MeshLocal
import Synchronization

package struct ProxyCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "proxy", abstract: "Ask one sidecar.",
        subcommands: [ProxyConfigCommand.self, ProxyMetricsCommand.self])

    package init() {}
}

/// A question to a sidecar's admin port, which listens inside its pod only: asked by a command run in the sidecar's container.
struct SidecarQuestion: ParsableArguments {
    @OptionGroup var platform: PlatformOptions

    @Option(name: .shortAndLong, help: "The namespace; `default` when absent.")
    var namespace: String?

    @Argument(help: "POD or TYPE/NAME, such as deployment/web.")
    var pod: String

    func ask(_ path: String) async throws -> Data {
        let target = try await platform.withClient { client in
            let namespace = namespace ?? client.defaultNamespace
            let pod = try await PodReferenceResolver(client: client).pod(pod, namespace: namespace)
            guard pod.labels["apus.dev/injected"] == "true" else {
                throw CommandFailure("\(namespace)/\(pod.name) has no sidecar")
            }
            return (namespace: namespace, pod: pod.name)
        }
        let answer = Mutex((output: Data(), problem: Data()))
        let code = try await ExecClient(try platform.access()).run(
            namespace: target.namespace, pod: target.pod, container: "apus-proxy",
            command: ["apus-proxy", "admin", path],
            standardInput: nil
        ) { output in
            answer.withLock {
                switch output {
                case .standardOutput(let bytes): $0.output.append(contentsOf: bytes)
                case .standardError(let bytes): $0.problem.append(contentsOf: bytes)
                }
            }
        }
        let (output, problem) = answer.withLock { $0 }
        guard code == 0 else {
            let text = String(decoding: problem.isEmpty ? output : problem, as: UTF8.self).split(separator: "\n")
                .joined(separator: "; ")
            throw CommandFailure("the sidecar of \(target.namespace)/\(target.pod) did not answer: \(text)")
        }
        return output
    }
}

struct ProxyConfigCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config",
        abstract: "What a sidecar believes: destinations, services, endpoints and their health, certificate, discovery."
    )

    @OptionGroup var question: SidecarQuestion

    @Option(name: .shortAndLong, help: "table or json.")
    var output: ReportFormat = .table

    mutating func run() async throws {
        let data = try await question.ask("/config")
        if output == .json { return Terminal.print(String(decoding: data, as: UTF8.self)) }
        Terminal.print(ReportTables.proxy(try JSONDecoder().decode(ProxyReport.self, from: data)))
    }
}

struct ProxyMetricsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics", abstract: "A sidecar's metrics in Prometheus' format.")

    @OptionGroup var question: SidecarQuestion

    mutating func run() async throws {
        Terminal.print(String(decoding: try await question.ask("/metrics"), as: UTF8.self))
    }
}

extension ReportTables {
    static func proxy(_ report: ProxyReport) -> String {
        let discovery = report.discovery
        var text = "sidecar of \(report.namespace)/\(report.pod), version \(report.version)\n"
        text +=
            "identity \(report.identity), certificate until \(report.certificateNotAfter?.description ?? "none yet")\n"
        text +=
            "discovery \(discovery.isConnected ? "connected" : "away (\(discovery.reason))"), version \(discovery.version.isEmpty ? "none" : discovery.version)\n"
        for refusal in discovery.refusals { text += "refused \(refusal.type) \(refusal.name): \(refusal.reason)\n" }
        if let own = report.own {
            text +=
                "plaintext \(own.plaintext), unknown destinations \(own.unknownDestinations), trust domain \(own.trustDomain)\n"
            let learned = (own.learnedPorts ?? [:]).sorted { $0.key < $1.key }.map {
                "port \($0.key) speaks \($0.value)"
            }
            if !learned.isEmpty { text += "learned: \(learned.joined(separator: ", "))\n" }
        }
        if !report.destinations.isEmpty {
            var table = TextTable("DIALLED", "ANSWER")
            for destination in report.destinations { table.add(destination.address, destination.answer) }
            text += "\n" + table.text
        }
        if !report.services.isEmpty {
            var table = TextTable(
                "SERVICE", "PROTOCOL", "ENDPOINT", "POD", "READY", "HEALTH", "PENDING", "CONNECTIONS", "LATENCY")
            for service in report.services {
                for endpoint in service.endpoints {
                    table.add(
                        "\(service.name):\(service.port)", service.learnedProtocol ?? service.applicationProtocol,
                        endpoint.address, endpoint.pod,
                        endpoint.isReady ? "yes" : "no", endpoint.health, "\(endpoint.pending)",
                        "\(endpoint.activeConnections + endpoint.idleConnections)",
                        Figures.milliseconds(endpoint.latencyMilliseconds))
                }
            }
            text += "\n" + table.text
        }
        return text
    }
}
