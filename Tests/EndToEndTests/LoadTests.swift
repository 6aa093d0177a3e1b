import Foundation
import Testing

/// What happens to requests while everything around them changes.
@Suite("Under load", .serialized, .timeLimit(.minutes(5)))
struct LoadTests {
    @Test(
        "500 requests a second through a rolling update, a killed process, a killed pod and a killed control plane: none fails"
    )
    func disturbances() async throws {
        try await Platform.with { platform in
            try await platform.apply(
                try Workloads.code(), Workloads.account("web"), Workloads.account("caller"), Workloads.service("web"),
                Workloads.server("web", replicas: 3))
            _ = try await platform.ready(3, "app=web")
            try await platform.apply(Workloads.caller(targets: "web", rate: 500, workers: 10))
            _ = try await platform.ready(1, "app=caller")
            func seen() async throws -> JSON? {
                try await platform.newestLine("deployment/caller", container: "caller")
            }
            /// Waits for so many more requests to be over, whatever became of them, and for none to have failed.
            func goOn(_ requests: Int, after what: String) async throws {
                let now = try await seen().map { $0["answers"].count + $0["failures"].count } ?? 0
                let then = try await platform.until("\(requests) requests after \(what)", seconds: 120) {
                    try await seen().flatMap { $0["answers"].count + $0["failures"].count >= now + requests ? $0 : nil }
                }
                #expect(then["failures"].count == 0, "after \(what): \(then["errors"])")
            }
            try await goOn(2000, after: "the start")

            try await platform.apply(Workloads.server("web", replicas: 3, version: "v2"))
            _ = try await platform.ready(3, "app=web,version=v2")
            _ = try await platform.ready(3, "app=web")
            try await goOn(3000, after: "a rolling update")
            let servers = try #require(try await seen())["servers"].members.keys
            #expect(servers.count { $0.hasPrefix("web v2 ") } == 3, "\(servers)")

            let first = try #require(try await platform.pods("app=web").first)
            let said = try await platform.apus("logs", first.name, "-n", "test", "-c", "server")
            let process = try #require(said.split(separator: " ").dropFirst().first, "\(said)")
            _ = try await platform.apusOutcome([
                "exec", "-n", "test", "-c", "server", first.name, "--", "kill", "-9", String(process),
            ])
            _ = try await platform.until("the killed process to be started again") {
                try await platform.pods("app=web").first { pod in
                    pod.name == first.name && pod.isReady
                        && pod["status"]["containerStatuses"].items.contains { $0["restartCount"].count > 0 }
                }
            }
            try await goOn(3000, after: "the SIGKILL of a server's process")

            let second = try #require(try await platform.pods("app=web").last)
            try await platform.apus("delete", "pod", second.name, "-n", "test", "--grace-period", "0")
            _ = try await platform.ready(3, "app=web")
            try await goOn(3000, after: "the SIGKILL of a whole pod")

            let control = try #require(
                try await platform.pods("app.kubernetes.io/name=apus-control", in: "apus-system").first)
            try await platform.apus("delete", "pod", control.name, "-n", "apus-system", "--grace-period", "0")
            let next = try await platform.ready(1, "app.kubernetes.io/name=apus-control", in: "apus-system")
            #expect(next.first?.name != control.name)
            try await goOn(3000, after: "the SIGKILL of the control plane")
            // The new control plane tells the sidecars, too.
            try await platform.apply(Workloads.server("web", replicas: 3, version: "v3"))
            _ = try await platform.ready(3, "app=web,version=v3")
            _ = try await platform.ready(3, "app=web")

            let total = try await platform.until("30,000 requests", seconds: 150) {
                try await seen().flatMap { $0["answers"].count + $0["failures"].count >= 30_000 ? $0 : nil }
            }
            #expect(total["failures"].count == 0, "\(total["errors"])")
            #expect(total["servers"].members.keys.contains { $0.hasPrefix("web v3 ") })
            print("load: \(total["answers"].count) answers, \(total["failures"].count) failures")
        }
    }

    @Test("A changed EndpointSlice reaches fifty sidecars, and the control plane says how long it took")
    func convergence() async throws {
        try await Platform.with { platform in
            try await platform.apply(
                try Workloads.code(), Workloads.account("first"), Workloads.account("second"),
                Workloads.account("caller"),
                Workloads.server("first"), Workloads.server("second"),
                """
                apiVersion: v1
                kind: Service
                metadata: {name: shared, namespace: test}
                spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
                """)
            let first = try #require(try await platform.ready(1, "app=first").first)
            let second = try #require(try await platform.ready(1, "app=second").first)
            try await platform.apply(slice(to: first))
            try await platform.apply(Workloads.caller(targets: "shared", rate: 2, replicas: 50))
            let callers = try await platform.ready(50, "app=caller", seconds: 150)
            try await everyCaller(of: callers, isAnsweredBy: "first v1 \(first.name)", platform)

            let control = try #require(
                try await platform.pods("app.kubernetes.io/name=apus-control", in: "apus-system").first)
            let address = "http://\(control.address):15014/metrics"
            let before = figures(try await platform.page(address))
            try await platform.apply(slice(to: second))
            try await everyCaller(of: callers, isAnsweredBy: "second v1 \(second.name)", platform)
            let after = try await platform.until("the control plane's histogram") {
                let page = figures(try await platform.page(address))
                return page["apus_control_convergence_acknowledgements_total", default: 0]
                    >= before["apus_control_convergence_acknowledgements_total", default: 0] + 50 ? page : nil
            }
            #expect(
                after["apus_control_convergence_seconds_count", default: 0]
                    > before["apus_control_convergence_seconds_count", default: 0])
            print("convergence of 50 sidecars:")
            for line in try await platform.page(address).split(separator: "\n")
            where line.hasPrefix("apus_control_convergence") { print("  \(line)") }
        }
    }

    /// Samples without labels.
    private func figures(_ page: String) -> [String: Double] {
        page.split(separator: "\n").reduce(into: [:]) { found, line in
            let parts = line.split(separator: " ")
            if parts.count == 2, let value = Double(parts[1]) { found[String(parts[0])] = value }
        }
    }

    private func slice(to pod: JSON) -> String {
        """
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: shared-1, namespace: test, labels: {kubernetes.io/service-name: shared}}
        addressType: IPv4
        ports: [{name: http, port: 8080, protocol: TCP}]
        endpoints:
        - addresses: ["\(pod.address)"]
          conditions: {ready: true}
          targetRef: {kind: Pod, name: \(pod.name), namespace: test}
        """
    }

    private func everyCaller(of pods: [JSON], isAnsweredBy server: String, _ platform: Platform) async throws {
        var waiting = pods.map(\.name)
        _ = try await platform.until("every caller to be answered by \(server)", seconds: 120) {
            var left: [String] = []
            for pod in waiting {
                let seen = try await platform.newestLine(pod, container: "caller")
                if seen?["servers"][server].count ?? 0 == 0 { left.append(pod) }
            }
            waiting = left
            return left.isEmpty ? true : nil
        }
    }
}
