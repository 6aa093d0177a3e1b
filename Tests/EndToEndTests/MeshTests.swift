import Foundation
import Testing

/// Services in the mesh, as their callers, an outsider and a listener on the bridge see them.
@Suite("Services in the mesh", .serialized, .timeLimit(.minutes(5)))
struct MeshTests {
    /// Two replicas of `web` and a caller that has been answered a few times.
    private func shop(_ platform: Platform) async throws {
        try await platform.apply(
            try Workloads.code(), Workloads.account("web"), Workloads.account("caller"), Workloads.service("web"),
            Workloads.server("web", replicas: 2), Workloads.caller(targets: "web"))
        _ = try await platform.ready(2, "app=web")
        _ = try await platform.ready(1, "app=caller")
        _ = try await platform.until("the caller's first answers") {
            try await platform.newestLine("deployment/caller", container: "caller").flatMap {
                $0["answers"].count >= 20 ? $0 : nil
            }
        }
    }

    @Test("Unmodified services get sidecars, and both ends of every request have proved who they are")
    func injectionAndTraffic() async throws {
        try await Platform.with { platform in
            try await shop(platform)
            let pods = try await platform.pods("app")
            #expect(pods.count == 3)
            for pod in pods {
                #expect(pod.hasSidecar, "\(pod.name)")
                #expect(pod["metadata"]["labels"]["apus.dev/injected"].text == "true", "\(pod.name)")
            }
            let seen = try #require(try await platform.newestLine("deployment/caller", container: "caller"))
            #expect(seen["failures"].count == 0, "\(seen["errors"])")
            #expect(seen["servers"].members.count == 2, "both replicas answer: \(seen["servers"])")

            let edge = try await platform.until("the edge from caller to web") {
                try JSON.parse(try await platform.apus("edges", "-o", "json"))["edges"].items.first {
                    $0["destination"]["name"].text == "web" && $0["source"]["name"].text == "caller"
                        && $0["security"].text != "" && $0["destination"]["identity"].text != ""
                }
            }
            #expect(edge["security"].text == "mutual_tls")
            #expect(edge["source"]["identity"].text == "spiffe://cluster.local/ns/test/sa/caller")
            #expect(edge["destination"]["identity"].text == "spiffe://cluster.local/ns/test/sa/web")

            let status = try await platform.until("a verdict on web") {
                let status = try JSON.parse(try await platform.apus("status", "-o", "json"))
                let web = status["services"].items.first { $0["name"].text == "web" }
                return web?["verdict"].text == "healthy" ? status : nil
            }
            let web = try #require(status["services"].items.first { $0["name"].text == "web" })
            #expect(web["readyEndpoints"].count == 2 && web["meshedEndpoints"].count == 2)
            #expect(!web["reasons"].items.isEmpty)
            let sidecars = status["sidecars"].items
            #expect(Set(sidecars.map { $0["pod"].text }) == Set(pods.map(\.name)))
            #expect(sidecars.allSatisfy { $0["refusals"].items.isEmpty }, "\(sidecars)")
            let check = try await platform.apusOutcome(["check"])
            #expect(check.status == 0, "\(check.text)")
        }
    }

    @Test("A caller without a sidecar is refused with the reason, and a pod that opted out is left alone")
    func plaintext() async throws {
        try await Platform.with { platform in
            try await platform.apply(
                try Workloads.code(), Workloads.account("web"), Workloads.account("bare"), Workloads.service("bare"),
                Workloads.account("caller"), Workloads.server("web"),
                Workloads.server("bare", labels: "apus.dev/inject: disabled"), Workloads.caller(targets: "bare"))
            // The web pod is ready by an HTTP probe, although its port refuses everybody without an identity.
            let web = try #require(try await platform.ready(1, "app=web").first)
            let refused = try await platform.must(
                try platform.inside(["curl", "-sSi", "--max-time", "20", "http://\(web.address):8080/"]))
            #expect(refused.hasPrefix("HTTP/1.1 403 "), "\(refused)")
            #expect(refused.contains("apus-reason: mtls_required"), "\(refused)")

            let bare = try #require(try await platform.ready(1, "app=bare").first)
            #expect(bare["spec"]["initContainers"].items.isEmpty)
            #expect(bare["metadata"]["labels"]["apus.dev/injected"] == .null)
            #expect(try await platform.page("http://\(bare.address):8080/").hasPrefix("bare v1 "))
            let seen = try await platform.until("answers of the pod without a sidecar to one with") {
                try await platform.newestLine("deployment/caller", container: "caller").flatMap {
                    $0["answers"].count > 0 ? $0 : nil
                }
            }
            #expect(seen["servers"].members.keys.allSatisfy { $0.hasPrefix("bare ") })
        }
    }

    @Test("Nothing readable crosses the bridge between two pods")
    func capture() async throws {
        try await Platform.with { platform in
            let marker = "the-marker-that-nobody-may-read"
            let wire = try RunningCommand(
                try platform.inside([
                    try Command.path(Workloads.python), try Workloads.path("wire.py"), "apus0", marker,
                ]))
            defer { wire.stop() }
            func seen() throws -> JSON? {
                try wire.output.split(separator: "\n").last { $0.hasSuffix("}") }.map { try JSON.parse(String($0)) }
            }
            _ = try await platform.until("the reader of the bridge") { try seen() }
            try await shop(platform)
            let traffic = try await platform.until("TLS records on the bridge") {
                try seen().flatMap { $0["tls"].count > 200 ? $0 : nil }
            }
            #expect(traffic["readable"].count == 0)

            let pod = try #require(try await platform.pods("app=web").first)
            let shout = "echo \(marker) > /dev/udp/\(pod.address)/9"
            _ = try await platform.until("a packet in the clear, as a control") {
                try await platform.must(try platform.inside(["bash", "-c", shout]))
                return try seen().flatMap { $0["readable"].count > 0 ? $0 : nil }
            }
        }
    }

    @Test("promtool accepts the metrics of a sidecar and of the control plane")
    func metrics() async throws {
        try await Platform.with { platform in
            try await shop(platform)
            let control = try #require(
                try await platform.pods("app.kubernetes.io/name=apus-control", in: "apus-system").first)
            var pages = ["control plane": try await platform.page("http://\(control.address):15014/metrics")]
            for pod in try await platform.pods("app") {
                pages[pod.name] = try await platform.page("http://\(pod.address):15020/metrics")
            }
            #expect(pages.count == 4)
            for (name, page) in pages {
                let verdict = try await Command.run(["promtool", "check", "metrics"], input: page)
                // Of style it objects to the unit that Istio chose, which dashboards rely on.
                let objections = verdict.text.split(separator: "\n").filter {
                    !$0.hasPrefix("istio_request_duration_milliseconds ")
                }
                #expect(objections.isEmpty, "\(name): \(verdict.text)")
                #expect([0, 3].contains(verdict.status), "\(name): \(verdict.text)")
                if name != "control plane" { #expect(page.contains("istio_requests_total{"), "\(name)") }
            }
        }
    }
}
