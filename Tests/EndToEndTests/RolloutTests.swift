import Foundation
import Testing

/// A rolling update under load of every protocol that a service may speak.
@Suite("Rollout", .serialized, .timeLimit(.minutes(5)))
struct RolloutTests {
    @Test("HTTP/1, gRPC calls and streams, and connections of bytes lose nothing while every pod is replaced twice")
    func everyProtocol() async throws {
        try await Platform.with { platform in
            try await platform.apply(
                try Workloads.code(["rollout_server.py", "rollout_client.py"]), Workloads.account("web"),
                Workloads.account("client"), service, server("v1"))
            _ = try await platform.ready(3, "app=web")
            try await platform.apply(client)
            _ = try await platform.ready(1, "app=client")
            var protocols = try await goOn(platform, after: "the start")
            for version in ["v2", "v3"] {
                try await platform.apply(server(version))
                _ = try await platform.ready(3, "app=web,version=\(version)", seconds: 120)
                _ = try await platform.ready(3, "app=web", seconds: 120)
                protocols = try await goOn(platform, after: "the rollout of \(version)")
                for (name, seen) in protocols {
                    #expect(seen["failures"].count == 0, "\(name) after the rollout of \(version): \(seen["errors"])")
                    #expect(seen["servers"].members.keys.contains { $0.hasPrefix(version) }, "\(name): \(seen)")
                }
            }
            for (name, seen) in protocols.sorted(by: { $0.key < $1.key }) {
                print("rollout: \(name) \(seen["answers"].count) answers, \(seen["failures"].count) failures")
            }
        }
    }

    /// Waits until every protocol has had so many more answers, and answers what each has seen.
    private func goOn(_ platform: Platform, after what: String) async throws -> [String: JSON] {
        func answers(_ seen: [String: JSON], _ name: String) -> Int {
            seen[name].map { $0["answers"].count + $0["failures"].count } ?? 0
        }
        func seen() async throws -> [String: JSON] {
            try await platform.newestLine("deployment/client", container: "main")?["protocols"].members ?? [:]
        }
        let before = try await seen()
        return try await platform.until("more answers after \(what)", seconds: 60) {
            let now = try await seen()
            let more = ["get": 200, "post": 200, "unary": 200, "stream": 20, "line": 200]
            return more.allSatisfy { answers(now, $0.key) >= answers(before, $0.key) + $0.value } ? now : nil
        }
    }

    private let service = """
        apiVersion: v1
        kind: Service
        metadata: {name: web, namespace: test}
        spec:
          selector: {app: web}
          ports:
          - {name: http, port: 80, targetPort: 8080}
          - {name: grpc, port: 9000, targetPort: 9090}
          - {name: tcp, port: 7070, targetPort: 7070}
        """

    private func server(_ version: String) -> String {
        deployment(
            "web", replicas: 3, version: version, program: "rollout_server.py", variable: "VERSION", value: version,
            more: "readinessProbe: {tcpSocket: {port: 9090}, periodSeconds: 1}")
    }

    private var client: String {
        deployment(
            "client", replicas: 1, version: "v1", program: "rollout_client.py", variable: "TARGET", value: "web")
    }

    private func deployment(
        _ name: String, replicas: Int, version: String, program: String, variable: String, value: String,
        more: String = ""
    ) -> String {
        """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: \(name), namespace: test}
        spec:
          replicas: \(replicas)
          selector: {matchLabels: {app: \(name)}}
          template:
            metadata: {labels: {app: \(name), version: \(version)}}
            spec:
              serviceAccountName: \(name)
              containers:
              - name: main
                image: host
                command: [\(Workloads.pythonWithGRPC), /code/\(program)]
                env: [{name: \(variable), value: \(value)}]
                volumeMounts: [{name: code, mountPath: /code}]
                \(more)
              volumes: [{name: code, configMap: {name: code}}]
        """
    }
}
