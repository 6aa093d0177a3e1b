import Foundation
import Testing

/// HTTP/2 and gRPC between pods, by programs that others wrote.
@Suite("HTTP/2 and gRPC between pods", .serialized, .timeLimit(.minutes(5)))
struct HTTP2Tests {
    private func service(_ name: String, port: Int, portName: String, targetPort: Int) -> String {
        """
        apiVersion: v1
        kind: Service
        metadata: {name: \(name), namespace: test}
        spec: {selector: {app: \(name)}, ports: [{name: \(portName), port: \(port), targetPort: \(targetPort)}]}
        """
    }

    @Test("HTTP/2 and gRPC, unary and streaming, pass between pods and are encrypted on the bridge")
    func calls() async throws {
        try await Platform.with { platform in
            let wire = try RunningCommand(
                try platform.inside([
                    try Command.path(Workloads.python), try Workloads.path("wire.py"), "apus0",
                    "the-marker-that-nobody-may-read",
                ]))
            defer { wire.stop() }
            let probe = "readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"
            try await platform.apply(
                try Workloads.code(), service("echo", port: 9000, portName: "grpc", targetPort: 9000),
                service("files", port: 80, portName: "http2", targetPort: 8080),
                service("plain", port: 80, portName: "unnamed", targetPort: 8080),
                Workloads.program(
                    "echo", [Workloads.pythonWithGRPC, "/code/grpc_server.py"],
                    more: "readinessProbe: {grpc: {port: 9000}, periodSeconds: 1, timeoutSeconds: 5}"),
                Workloads.program("files", ["/usr/sbin/nghttpd", "--no-tls", "-d", "/code", "8080"], more: probe),
                Workloads.program("plain", ["/usr/sbin/nghttpd", "--no-tls", "-d", "/code", "8080"], more: probe),
                Workloads.program("caller", ["sleep", "1000"]))
            for app in ["echo", "files", "plain", "caller"] { _ = try await platform.ready(1, "app=\(app)") }
            for host in ["files", "plain"] {
                let page = try await platform.exec(
                    "deployment/caller", "program", "curl", "-sS", "--http2-prior-knowledge", "--max-time", "20",
                    "-w", "version %{http_version} status %{http_code}", "http://\(host)/server.py")
                #expect(page.output.contains("the-marker-that-nobody-may-read"), "\(host): \(page.text)")
                #expect(page.output.hasSuffix("version 2 status 200"), "\(host): \(page.text)")
            }
            for _ in 0..<2 {
                let done = try await platform.exec(
                    "deployment/caller", "program", Workloads.pythonWithGRPC, "/code/grpc_caller.py", "echo:9000", "50")
                try #require(done.status == 0, "\(done.text)")
                let said = try JSON.parse(done.output)
                #expect(said["unary"].count == 50 && said["streamed"].count == 50 && said["large"].count == 2 << 20)
                #expect(said["missing"].text == "UNIMPLEMENTED")
            }
            let seen = try await platform.until("TLS records on the bridge") {
                try wire.output.split(separator: "\n").last { $0.hasSuffix("}") }.map { try JSON.parse(String($0)) }
                    .flatMap { $0["tls"].count > 100 ? $0 : nil }
            }
            #expect(seen["readable"].count == 0)
            let edges = try await platform.until("the edges of the caller") {
                let edges = try JSON.parse(try await platform.apus("edges", "-o", "json"))["edges"].items
                    .filter { $0["source"]["name"].text == "caller" }
                return edges.count == 3 ? edges : nil
            }
            #expect(edges.allSatisfy { $0["security"].text == "mutual_tls" }, "\(edges)")
            // Each run sends 2 MiB and gets them back; over a minute that is 70 kB a second.
            _ = try await platform.until("the bytes of the calls in apus stat", seconds: 20) {
                let rows = try JSON.parse(try await platform.apus("stat", "-o", "json"))["rows"].items
                let figures = rows.first { $0["destination"]["name"].text == "echo" }?["figures"] ?? .null
                return figures["receivedBytesPerSecond"].count > 60_000 && figures["sentBytesPerSecond"].count > 60_000
                    ? true : nil
            }
        }
    }

    @Test("gRPC probes ask a real gRPC server through its sidecar, and decide start, readiness and restart")
    func probes() async throws {
        try await Platform.with { platform in
            let probes = """
                startupProbe: {grpc: {port: 9000}, periodSeconds: 1, failureThreshold: 20, timeoutSeconds: 5}
                        livenessProbe: {grpc: {port: 9000}, periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 5}
                        readinessProbe: {grpc: {port: 9000, service: ready}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 5}
                """
            let never =
                "startupProbe: {grpc: {port: 9000, service: missing}, periodSeconds: 1, failureThreshold: 3, timeoutSeconds: 5}"
            let command = [Workloads.pythonWithGRPC, "/code/grpc_server.py"]
            try await platform.apply(
                try Workloads.code(), Workloads.program("echo", command, more: probes),
                Workloads.program("never", command, more: never), Workloads.program("caller", ["sleep", "1000"]))
            let echo = try #require(try await platform.ready(1, "app=echo").first)
            _ = try await platform.ready(1, "app=caller")

            func set(_ health: String) async throws {
                let script =
                    "import grpc,sys; c=grpc.insecure_channel(sys.argv[1]); c.unary_unary('/test.Echo/SetHealth')(sys.argv[2].encode(),timeout=20)"
                let done = try await platform.exec(
                    "deployment/caller", "program", Workloads.pythonWithGRPC, "-c", script, "\(echo.address):9000",
                    health)
                try #require(done.status == 0, "\(done.text)")
            }
            func pod(_ app: String, _ what: String, _ isWanted: (JSON) -> Bool) async throws {
                _ = try await platform.until("the pod of \(app) to be \(what)") {
                    try await platform.pods("app=\(app)").first.flatMap { isWanted($0) ? $0 : nil }
                }
            }
            func restarts(_ pod: JSON) -> Int {
                pod["status"]["containerStatuses"].items.first?["restartCount"].count ?? 0
            }
            try await set("ready=2")
            try await pod("echo", "unready and not restarted") { !$0.isReady && restarts($0) == 0 }
            try await set("ready=1")
            try await pod("echo", "ready again") { $0.isReady && restarts($0) == 0 }
            try await set("=2")
            try await pod("echo", "restarted and ready") { $0.isReady && restarts($0) == 1 }
            try await pod("never", "restarted for want of a start") { !$0.isReady && restarts($0) >= 1 }
            let events = try await platform.apus("get", "events", "-n", "test")
            for part in [
                "Startup probe failed", "Readiness probe failed", "Liveness probe failed", "failed startup probe",
            ] {
                #expect(events.contains(part), "\(part) is not in: \(events)")
            }
        }
    }
}
