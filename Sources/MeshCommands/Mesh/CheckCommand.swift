package import ArgumentParser
import Foundation
import MeshCore
import MeshKubernetes

package struct CheckCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Look for what is wrong with the platform, the control plane and every sidecar, and say what to do.")

    @OptionGroup var platform: PlatformOptions

    @Option(name: .shortAndLong, help: "table or json.")
    var output: ReportFormat = .table

    package init() {}

    package mutating func run() async throws {
        let report = try await platform.withClient { client in
            var report = CheckReport(
                generatedAt: Timestamp(unixMilliseconds: Int64(Date().timeIntervalSince1970 * 1000)), findings: [])
            let platform = await PlatformCheck(client: client).findings()
            report.findings = platform
            guard platform.allSatisfy({ $0.result != .failed }) else { return report }
            do {
                report.findings += try await ControlPlaneQueries(client: client).get("check", as: CheckReport.self)
                    .findings
            } catch {
                report.findings.append(
                    CheckFinding(
                        area: "control plane", result: .failed, message: "\(error)",
                        remedy: "see 'apus logs deployment/apus-control -n apus-system'"))
            }
            return report
        }
        Terminal.print(output == .json ? try report.prettyJSON() : ReportTables.check(report))
        guard report.isPassed else { throw ExitCode(1) }
    }
}

/// What can be seen of the mesh through the API alone, so that a control plane that does not answer is told apart from one that is not there.
struct PlatformCheck {
    let client: KubernetesClient

    func findings() async -> [CheckFinding] {
        do {
            return [try await api(), try await controlPlane(), try await webhook()] + (try await injection())
        } catch {
            return [
                CheckFinding(
                    area: "platform", result: .failed, message: "the API cannot be used: \(error)",
                    remedy: "start a platform with 'apus up', or name one with --data-dir or --kubeconfig")
            ]
        }
    }

    private func api() async throws -> CheckFinding {
        let response = try await client.raw(APIRequest("GET", "/version"))
        let version = (try? JSONValue(parsing: Data(response.body)))?["gitVersion"]?.string ?? "of unknown version"
        return CheckFinding(area: "platform", result: .passed, message: "the API answers (\(version))")
    }

    private func controlPlane() async throws -> CheckFinding {
        do {
            let deployment = try await client.get(
                .deployment, namespace: MeshInstallation.namespace, name: MeshInstallation.controlName)
            let wanted = deployment.json[path: "spec", "replicas"]?.int ?? 1
            let ready = deployment.json[path: "status", "readyReplicas"]?.int ?? 0
            return ready >= wanted && ready > 0
                ? CheckFinding(
                    area: "control plane", result: .passed, message: "\(ready) of \(wanted) replicas are ready")
                : CheckFinding(
                    area: "control plane", result: .failed, message: "\(ready) of \(wanted) replicas are ready",
                    remedy: "see 'apus get pods -n apus-system' and 'apus logs deployment/apus-control -n apus-system'")
        } catch let error as StatusError where error.code == 404 {
            return CheckFinding(
                area: "control plane", result: .failed,
                message: "it is not installed: there is no Deployment apus-system/apus-control",
                remedy: "'apus up' installs it on one machine")
        }
    }

    private func webhook() async throws -> CheckFinding {
        let configurations = try await client.list(
            .mutatingWebhookConfiguration, namespace: nil, labelSelector: nil, fieldSelector: nil
        ).items
        guard let configuration = configurations.first(where: { $0.name == "apus-injector" }) else {
            return CheckFinding(
                area: "injection", result: .failed,
                message: "there is no MutatingWebhookConfiguration apus-injector: no pod gets a sidecar",
                remedy: "install the mesh again")
        }
        let bundle = configuration.json["webhooks"]?[0]?[path: "clientConfig", "caBundle"]?.string ?? ""
        return bundle.isEmpty
            ? CheckFinding(
                area: "injection", result: .failed,
                message: "the webhook's certificate is not registered yet: pods are refused",
                remedy: "the control plane registers it within seconds; see its logs when it does not")
            : CheckFinding(area: "injection", result: .passed, message: "the webhook is registered")
    }

    /// Pods that should have a sidecar and have none: made while the webhook was away, or before it was installed.
    private func injection() async throws -> [CheckFinding] {
        let namespaces = try await client.list(.namespace, namespace: nil, labelSelector: nil, fieldSelector: nil).items
        let optedOut = Set(namespaces.filter { $0.labels["apus.dev/inject"] == "disabled" }.map(\.name))
        let system: Set<String> = ["kube-system", "kube-public", "kube-node-lease", MeshInstallation.namespace]
        let pods = try await client.list(.pod, namespace: nil, labelSelector: nil, fieldSelector: nil).items.filter {
            pod in
            let namespace = pod.namespace ?? ""
            let phase = pod.json[path: "status", "phase"]?.string
            return !system.contains(namespace) && !optedOut.contains(namespace)
                && pod.labels["apus.dev/inject"] != "disabled"
                && phase != "Succeeded" && phase != "Failed" && pod.json[path: "spec", "hostNetwork"]?.bool != true
        }
        let missed = pods.filter { $0.labels["apus.dev/injected"] != "true" }
        guard !missed.isEmpty else {
            return [
                CheckFinding(
                    area: "injection", result: .passed,
                    message: "all \(pods.count) pods that should have a sidecar have one")
            ]
        }
        let names = missed.prefix(5).map { "\($0.namespace ?? "")/\($0.name)" }.joined(separator: ", ")
        return [
            CheckFinding(
                area: "injection", result: .warning,
                message:
                    "\(missed.count) of \(pods.count) pods have no sidecar: \(names)\(missed.count > 5 ? ", …" : "")",
                remedy: "delete them, so that their owner makes them again, or label them apus.dev/inject: disabled")
        ]
    }
}
