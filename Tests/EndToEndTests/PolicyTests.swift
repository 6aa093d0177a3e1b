import Foundation
import Testing

/// The mesh's settings as those feel them who are not of the mesh, or call what is not; and what a sidecar writes down.
@Suite("Settings and records of the mesh", .serialized, .timeLimit(.minutes(5)))
struct PolicyTests {
    private func settings(plaintext: String, unknown: String) -> String {
        """
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: apus-settings, namespace: apus-system}
        data: {plaintext: \(plaintext), unknown-destinations: \(unknown)}
        """
    }

    private func namespace(_ annotations: String) -> String {
        """
        apiVersion: v1
        kind: Namespace
        metadata: {name: test, annotations: {\(annotations)}}
        """
    }

    private static let curl = ["-sS", "-o", "/dev/null", "-w", "%{http_code} %header{apus-reason}", "--max-time", "20"]

    @Test("Plaintext and unknown destinations are treated as settings and namespace say, also when these change")
    func policies() async throws {
        try await Platform.with(up: ["--plaintext", "permissive", "--unknown-destinations", "deny"]) { platform in
            try await platform.apply(
                try Workloads.code(), Workloads.account("web"), Workloads.server("web"),
                Workloads.program("caller", ["sleep", "1000"]))
            let web = try #require(try await platform.ready(1, "app=web").first)
            let caller = try #require(try await platform.ready(1, "app=caller").first)
            let stranger = try RunningCommand(
                try platform.inside([
                    try Command.path(Workloads.python), "-m", "http.server", "9999", "--bind", "10.97.0.1",
                ]))
            defer { stranger.stop() }
            _ = try await platform.until("the server outside the mesh") {
                try? await platform.page("http://10.97.0.1:9999/")
            }

            func inbound() async throws -> String {
                try await platform.must(
                    try platform.inside(["curl"] + Self.curl + ["http://\(web.address):8080/"])
                ).trimmingCharacters(in: .whitespaces)
            }
            func outbound() async throws -> String {
                let words = ["exec", "-n", "test", caller.name, "-c", "program", "--", "curl"] + Self.curl
                return try await platform.apusOutcome(words + ["http://10.97.0.1:9999/"]).output
                    .trimmingCharacters(in: .whitespaces)
            }
            func expect(_ what: String, inbound wanted: String, outbound other: String) async throws {
                _ = try await platform.until("\(what): \(wanted) from outside, \(other) from inside", seconds: 20) {
                    try await (inbound(), outbound()) == (wanted, other) ? true : nil
                }
            }
            let refused = "403 mtls_required"
            let denied = "403 unknown_destination_denied"
            #expect(try await inbound() == "200")
            #expect(try await outbound() == denied)

            try await platform.apply(settings(plaintext: "strict", unknown: "allow"))
            try await expect("strict and allow", inbound: refused, outbound: "200")
            try await platform.apply(namespace("apus.dev/plaintext: permissive"))
            try await expect("a permissive namespace", inbound: "200", outbound: "200")
            try await platform.apply(settings(plaintext: "permissive", unknown: "deny"))
            try await platform.apply(namespace("apus.dev/plaintext: strict"))
            try await expect("a strict namespace", inbound: refused, outbound: denied)
            try await platform.apply(namespace(""))
            try await expect("no word of the namespace", inbound: "200", outbound: denied)

            let seen = try await platform.page("http://\(web.address):15020/metrics")
            #expect(seen.contains(/apus_proxy_plaintext_accepted_total [1-9]/))
            #expect(seen.contains(/apus_proxy_plaintext_refused_total [1-9]/))
            let told = try await platform.page("http://\(caller.address):15020/metrics")
            #expect(told.contains(/apus_proxy_unknown_destinations_denied_total [1-9]/))
            let allowed = told.split(separator: "\n").filter { $0.contains("destination_service=\"10.97.0.1:9999\"") }
            #expect(!allowed.isEmpty, "what was allowed is counted by its address")
        }
    }

    @Test("Access logs as text and as JSON tell one request at both ends, and its trace reaches the application")
    func accessLogs() async throws {
        try await Platform.with { platform in
            try await platform.apply(
                try Workloads.code(), Workloads.account("web"), Workloads.service("web"),
                Workloads.server("web", annotations: "apus.dev/access-log: json"),
                Workloads.program("caller", ["sleep", "1000"], annotations: "apus.dev/access-log: text"))
            let web = try #require(try await platform.ready(1, "app=web").first)
            let caller = try #require(try await platform.ready(1, "app=caller").first)
            let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            let given = try await platform.exec(
                caller.name, "program", "curl", "-sS", "-H", "traceparent: 00-\(trace)-00f067aa0ba902b7-01",
                "http://web/fields?secret=1")
            #expect(given.output.contains("web v1"), "\(given.text)")
            let listed = try await platform.exec(
                caller.name, "program", "curl", "-sS", "-H", "traceparent: 00-\(trace)-00f067aa0ba902b7-01",
                "-H", "tracestate: theirs=1", "http://web/fields")
            #expect(listed.output.contains("00-\(trace)-"), "\(listed.text)")
            #expect(!listed.output.contains("00f067aa0ba902b7"), "the span is the sidecar's own: \(listed.text)")
            #expect(listed.output.contains("theirs=1"), "\(listed.text)")
            let made = try await platform.exec(caller.name, "program", "curl", "-sS", "http://web/fields")
            #expect(
                made.output.lowercased().contains(/traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]/), "\(made.text)")

            func lines(_ pod: JSON) async throws -> [String] {
                try await platform.apus("logs", pod.name, "-n", "test", "-c", "apus-proxy").split(separator: "\n")
                    .map(String.init)
            }
            let text = try await platform.until("the caller's line") {
                try await lines(caller).first { $0.contains("trace_id=\(trace)") && $0.contains("path=/fields ") }
            }
            for part in [
                "direction=outbound", "method=GET", "authority=web", "status=200", "service=test/web",
                "destination=test/\(web.name)", "destination_identity=spiffe://cluster.local/ns/test/sa/web",
                "secured=true", "user_agent=curl/",
            ] { #expect(text.contains(part), "\(part) is not in: \(text)") }
            let json = try await platform.until("the server's line") {
                try await lines(web).filter { $0.hasPrefix("{") }.map { try JSON.parse($0) }.first {
                    $0["trace_id"].text == trace && $0["path"].text == "/fields"
                }
            }
            #expect(json["direction"].text == "inbound" && json["status"].count == 200)
            #expect(json["source_identity"].text == "spiffe://cluster.local/ns/test/sa/default")
            #expect(json["secured"].isTrue && json["response_bytes"].count > 50)
            // What is in a query is often nobody else's business.
            #expect(try await !lines(caller).contains { $0.contains("secret") })
            #expect(try await !lines(web).contains { $0.contains("secret") })
            #expect(json["time"].text.hasSuffix("Z"))
        }
    }
}
