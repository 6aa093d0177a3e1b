import Foundation
import MeshAddress
import MeshKubernetes
import MeshLocal
import Synchronization
import Testing

@Suite struct ServerTests {
    private static func client(_ fixture: APIFixture, token: ClusterAccess.Token) throws -> KubernetesClient {
        try KubernetesClient(
            ClusterAccess(
                server: "https://\(fixture.server)", certificateAuthority: Array(fixture.authorityPEM.utf8),
                token: token))
    }

    @Test func whoIsNotKnownIsRefused() async throws {
        try await APIFixture.run { fixture in
            for (token, code) in [(ClusterAccess.Token.none, 403), (.fixed("wrong"), 401)] {
                let client = try Self.client(fixture, token: token)
                let answer = try? await client.raw(APIRequest("GET", "/api/v1/pods")).status
                await #expect {
                    try await client.list(.pod, namespace: nil, labelSelector: nil, fieldSelector: nil)
                } throws: {
                    ($0 as? StatusError)?.code == code
                }
                #expect(answer == nil || answer == code)
                await client.shutdown()
            }
            let nobody = try Self.client(fixture, token: .none)
            #expect(try await nobody.raw(APIRequest("GET", "/healthz")).status == 200)
            #expect(try await nobody.raw(APIRequest("GET", "/version")).status == 200)
            await nobody.shutdown()
        }
    }

    @Test func theKubeconfigIsPrivateAndLeadsToTheServer() async throws {
        try await APIFixture.run { fixture in
            let path = fixture.directory + "/kubeconfig"
            try fixture.apiServer.writeKubeconfig(to: path, server: fixture.server)
            #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == 0o600)
            let client = try KubernetesClient(Kubeconfig.load(path: path))
            let list = try await client.list(.namespace, namespace: nil, labelSelector: nil, fieldSelector: nil)
            #expect(list.items.map(\.name) == ["default", "kube-public", "kube-system"])
            await client.shutdown()
        }
    }

    @Test func aPodsTokenIsGoodUntilThePodIsGone() async throws {
        try await APIFixture.run { fixture in
            _ = try await fixture.client.create(
                .serviceAccount,
                KubernetesObject([
                    "apiVersion": "v1", "kind": "ServiceAccount", "metadata": ["name": "shop", "namespace": "default"],
                ]))
            var pod = KubernetesObject.pod("web")
            pod.json[path: "spec", "serviceAccountName"] = "shop"
            pod = try await fixture.client.create(.pod, pod)
            let answer = try await fixture.client.create(
                .serviceAccount, namespace: "default", name: "shop", subresource: "token",
                [
                    "spec": [
                        "audiences": ["apus"], "expirationSeconds": 3_600,
                        "boundObjectRef": ["kind": "Pod", "name": "web", "uid": .string(pod.uid)],
                    ]
                ])
            let token = try #require(answer[path: "status", "token"])
            func review(_ audience: JSONValue) async throws -> JSONValue? {
                try await fixture.client.create(
                    .tokenReview,
                    KubernetesObject([
                        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": [:],
                        "spec": ["token": token, "audiences": [audience]],
                    ])
                ).json["status"]
            }
            let good = try await review("apus")
            #expect(good?["authenticated"] == true)
            #expect(good?[path: "user", "username"] == "system:serviceaccount:default:shop")
            #expect(good?[path: "user", "extra", "authentication.kubernetes.io/pod-name"] == ["web"])
            #expect(good?[path: "user", "extra", "authentication.kubernetes.io/pod-uid"] == [.string(pod.uid)])
            #expect(try await review("others")?["authenticated"] == false)
            // A token for another audience does not open the API itself.
            let client = try Self.client(fixture, token: .fixed(token.string ?? ""))
            await #expect(throws: StatusError.self) { try await client.get(.pod, namespace: "default", name: "web") }
            await client.shutdown()
            try await fixture.client.delete(.pod, namespace: "default", name: "web", gracePeriodSeconds: 0, uid: nil)
            let gone = try await review("apus")
            #expect(gone?["authenticated"] == false)
            #expect(gone?["error"]?.string?.contains("pod") == true)
        }
    }

    @Test func kubectlsTableHasTheColumnsOfTheKind() async throws {
        try await APIFixture.run([.kubelet]) { fixture in
            _ = try await fixture.client.create(.pod, .pod("web"))
            try await fixture.eventually("the pod runs") {
                try await fixture.pods().first?.json[path: "status", "phase"] == "Running"
            }
            let table = try await fixture.raw(
                "/api/v1/namespaces/default/pods",
                accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
            ).json
            #expect(table["kind"] == "Table")
            let names = table["columnDefinitions"]?.array?.compactMap { $0["name"]?.string }
            #expect(names == ["Name", "Ready", "Status", "Restarts", "Age", "IP", "Node"])
            let cells = table["rows"]?[0]?["cells"]?.array
            #expect(cells?[0] == "web" && cells?[2] == "Running" && cells?[6] == "machine")
            #expect(table["rows"]?[0]?[path: "object", "metadata", "name"] == "web")
        }
    }

    @Test func discoveryNamesEveryKindAndItsSubresources() async throws {
        try await APIFixture.run { fixture in
            let groups = try await fixture.raw("/apis").json["groups"]?.array?.compactMap { $0["name"]?.string } ?? []
            #expect(Set(groups).isSuperset(of: ["apps", "batch", "discovery.k8s.io", "apiextensions.k8s.io"]))
            let core =
                try await fixture.raw("/api/v1").json["resources"]?.array?.compactMap { $0["name"]?.string } ?? []
            #expect(
                Set(core).isSuperset(of: [
                    "pods", "pods/log", "pods/exec", "pods/status", "services/proxy", "serviceaccounts/token",
                ]))
            #expect(try await fixture.raw("/apis/nothing.example/v1").status == 404)
        }
    }

    @Test func customKindsAreServedCheckedPrunedAndWithdrawn() async throws {
        try await APIFixture.run { fixture in
            let definition: JSONValue = [
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": ["name": "routes.apus.dev"],
                "spec": [
                    "group": "apus.dev", "scope": "Namespaced", "names": ["plural": "routes", "kind": "Route"],
                    "versions": [
                        [
                            "name": "v1", "served": true, "storage": true, "subresources": ["status": [:]],
                            "additionalPrinterColumns": [
                                ["name": "Weight", "type": "integer", "jsonPath": ".spec.weight"]
                            ],
                            "schema": [
                                "openAPIV3Schema": [
                                    "type": "object",
                                    "properties": [
                                        "spec": [
                                            "type": "object", "required": ["weight"],
                                            "properties": [
                                                "weight": ["type": "integer", "minimum": 1],
                                                "mode": ["type": "string", "enum": ["a", "b"], "default": "a"],
                                            ],
                                        ],
                                        "status": ["type": "object", "x-kubernetes-preserve-unknown-fields": true],
                                    ],
                                ]
                            ],
                        ]
                    ],
                ],
            ]
            let made = try await fixture.client.create(.customResourceDefinition, KubernetesObject(definition))
            #expect(
                made.json[path: "status", "conditions"]?.array?.contains {
                    $0["type"] == "Established" && $0["status"] == "True"
                } == true)
            let kind = ResourceKind(
                group: "apus.dev", version: "v1", kind: "Route", plural: "routes", isNamespaced: true)
            func route(_ spec: JSONValue) -> KubernetesObject {
                KubernetesObject([
                    "apiVersion": "apus.dev/v1", "kind": "Route", "metadata": ["name": "r", "namespace": "default"],
                    "spec": spec,
                ])
            }
            await #expect { try await fixture.client.create(kind, route(["weight": 0, "mode": "c"])) } throws: {
                let fields = ($0 as? StatusError)?.details?["causes"]?.array?.compactMap { $0["field"]?.string }
                return fields == ["spec.mode", "spec.weight"]
            }
            let kept = try await fixture.client.create(kind, route(["weight": 2, "unknown": true]))
            #expect(kept.json["spec"] == ["weight": 2, "mode": "a"])
            _ = try await fixture.client.patch(
                kind, namespace: "default", name: "r", subresource: "status",
                .merge(["status": ["seen": 1], "spec": ["weight": 9]]))
            let now = try await fixture.client.get(kind, namespace: "default", name: "r")
            #expect(now.json[path: "status", "seen"] == 1 && now.json[path: "spec", "weight"] == 2)
            try await fixture.client.delete(
                .customResourceDefinition, namespace: nil, name: "routes.apus.dev", gracePeriodSeconds: nil, uid: nil)
            #expect(try await fixture.raw("/apis/apus.dev/v1/namespaces/default/routes").status == 404)
        }
    }

    @Test func scaleIsAViewOfTheReplicas() async throws {
        try await APIFixture.run { fixture in
            _ = try await fixture.client.create(.deployment, .deployment("web", replicas: 2))
            let path = "/apis/apps/v1/namespaces/default/deployments/web/scale"
            #expect(try await fixture.raw(path).json[path: "spec", "replicas"] == 2)
            let scaled = try await fixture.raw(
                path, method: "PATCH", body: ["spec": ["replicas": 5]], contentType: "application/merge-patch+json")
            #expect(scaled.json[path: "spec", "replicas"] == 5)
            #expect(
                try await fixture.client.get(.deployment, namespace: "default", name: "web").json[
                    path: "spec", "replicas"] == 5)
        }
    }

    @Test func logsAreStreamed() async throws {
        try await APIFixture.run { fixture in
            _ = try await fixture.client.create(.pod, .pod("web"))
            var options = KubernetesClient.LogOptions()
            options.tailLines = 3
            var text: [UInt8] = []
            for try await piece in fixture.client.log(namespace: "default", pod: "web", options) { text += piece }
            #expect(String(decoding: text, as: UTF8.self) == "main 3\n")
        }
    }

    @Test func execPassesInputOutputsAndTheExitCode() async throws {
        try await APIFixture.run { fixture in
            _ = try await fixture.client.create(.pod, .pod("web"))
            let exec = ExecClient(
                ClusterAccess(
                    server: "https://\(fixture.server)", certificateAuthority: Array(fixture.authorityPEM.utf8),
                    token: .fixed(fixture.token)))
            func run(_ command: [String], _ input: AsyncStream<[UInt8]>? = nil, pod: String = "web") async throws -> (
                Int, [UInt8], [UInt8]
            ) {
                let outputs = Mutex<([UInt8], [UInt8])>(([], []))
                let code = try await exec.run(
                    namespace: "default", pod: pod, container: nil, command: command, standardInput: input
                ) { piece in
                    outputs.withLock { outputs in
                        switch piece {
                        case .standardOutput(let bytes): outputs.0 += bytes
                        case .standardError(let bytes): outputs.1 += bytes
                        }
                    }
                }
                return outputs.withLock { (code, $0.0, $0.1) }
            }
            let (code, out, err) = try await run(["both"])
            #expect(code == 0 && out == Array("out".utf8) && err == Array("err".utf8))
            #expect(try await run(["fail", "42"]).0 == 42)
            // What comes together with the handshake's end must not be lost.
            for _ in 0..<50 { #expect(try await run(["both"]).1 == Array("out".utf8)) }
            #expect(try await run(["flood"]).1.count == 2_000_000)
            let input = AsyncStream<[UInt8]> { continuation in
                for index in 0..<100 { continuation.yield([UInt8](repeating: UInt8(index), count: 10_000)) }
                continuation.finish()
            }
            let echoed = try await run(["cat"], input).1
            #expect(echoed.count == 1_000_000 && echoed.last == 99)
            await #expect { try await run(["both"], pod: "missing") } throws: { ($0 as? StatusError)?.code == 404 }
            await #expect { try await run(["nonsense"]) } throws: { ($0 as? StatusError)?.message == "no such command" }
        }
    }

    @Test func aRequestIsPassedOnToAPodAndToAService() async throws {
        try await APIFixture.run { fixture in
            // The server itself plays the pod.
            _ = try await fixture.client.create(.pod, .pod("web"))
            fixture.access.addresses.withLock { $0["web"] = .loopback4 }
            let pod = try await fixture.raw(
                "/api/v1/namespaces/default/pods/https:web:\(fixture.server.port)/proxy/healthz")
            #expect(pod.status == 200)
            let service = try await fixture.raw(
                "/api/v1/namespaces/default/services/https:kubernetes:https/proxy/version")
            #expect(service.json["gitVersion"] == "v1.31.0+apus")
            #expect(try await fixture.raw("/api/v1/namespaces/default/services/none:80/proxy/").status == 404)
        }
    }

    @Test func whatIsNotServedIsToldClearly() async throws {
        try await APIFixture.run { fixture in
            #expect(try await fixture.raw("/api/v1/namespaces/default/gadgets").status == 404)
            #expect(try await fixture.raw("/api/v1/namespaces/default/pods", method: "PUT", body: [:]).status == 405)
            let patch = try await fixture.raw(
                "/api/v1/namespaces/default", method: "PATCH", body: [:], contentType: "application/apply-patch+yaml")
            #expect(patch.status == 415)
            let selector = try await fixture.raw("/api/v1/pods?labelSelector=a%20b")
            #expect(selector.status == 400)
        }
    }
}
