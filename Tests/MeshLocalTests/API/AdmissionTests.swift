import Crypto
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTLS
import Logging
import MeshAddress
import MeshKubernetes
import MeshLocal
import NIOCore
import NIOSSL
import SwiftASN1
import Synchronization
import Testing
import X509

/// A webhook over HTTPS whose answers a test decides.
private final class FakeWebhook: Sendable {
    let certificatePEM: String
    private let keyPEM: String
    private let calls = Mutex<[JSONValue]>([])
    private let answer: @Sendable (JSONValue) -> JSONValue

    init(names: [String], _ answer: @escaping @Sendable (JSONValue) -> JSONValue) throws {
        self.answer = answer
        let key = P256.Signing.PrivateKey()
        let name = try DistinguishedName { CommonName("webhook") }
        let certificate = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: .init(key.publicKey), notValidBefore: Date() - 60,
            notValidAfter: Date() + 3_600, issuer: name, subject: name, signatureAlgorithm: .ecdsaWithSHA256,
            extensions: Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: nil))
                SubjectAlternativeNames(names.map { .dnsName($0) })
            }, issuerPrivateKey: .init(key))
        certificatePEM = try certificate.serializeAsPEM().pemString
        keyPEM = key.pemRepresentation
    }

    var requests: [JSONValue] { calls.withLock { $0 } }

    func run(_ onListening: @escaping @Sendable (Int) -> Void) async throws {
        let router = Router()
        router.post("mutate") { [self] request, _ in
            let body = try await request.body.collect(upTo: 1 << 20)
            let review = try JSONValue(parsing: Data(Array(buffer: body)))
            calls.withLock { $0.append(review["request"] ?? .null) }
            var response = answer(review["request"] ?? .null)
            response["uid"] = review[path: "request", "uid"]
            let answer: JSONValue = [
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
            ]
            return Response(status: .ok, body: ResponseBody(byteBuffer: ByteBuffer(bytes: answer.data())))
        }
        let tls = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMBytes(Array(certificatePEM.utf8)).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(keyPEM.utf8), format: .pem)))
        let application = try Application(
            router: router, server: .tls(.http1(), tlsConfiguration: tls),
            configuration: ApplicationConfiguration(address: .hostname("127.0.0.1", port: 0)),
            onServerRunning: { onListening($0.localAddress?.port ?? 0) })
        try await serveUntilCancelled(application, logger: Logger(label: "webhook"))
    }

    /// A patch that sets a label.
    static func labels(_ name: String, _ value: String = "yes") -> JSONValue {
        let patch: JSONValue = [["op": "add", "path": .string("/metadata/labels/\(name)"), "value": .string(value)]]
        return [
            "allowed": true, "patchType": "JSONPatch", "patch": .string(patch.data().base64EncodedString()),
            "warnings": ["look out"],
        ]
    }
}

@Suite struct AdmissionTests {
    /// Runs a webhook behind a Service and its configuration, beside an API server.
    private static func run(
        answer: @escaping @Sendable (JSONValue) -> JSONValue,
        change: @escaping @Sendable (inout JSONValue) -> Void = { _ in },
        names: [String] = ["hook.kube-system.svc"],
        _ test: @escaping @Sendable (APIFixture, FakeWebhook) async throws -> Void
    ) async throws {
        let webhook = try FakeWebhook(names: names, answer)
        let (ports, announce) = AsyncStream.makeStream(of: Int.self)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await webhook.run { announce.yield($0) } }
            var iterator = ports.makeAsyncIterator()
            let port = try #require(await iterator.next())
            group.addTask {
                try await APIFixture.run { fixture in
                    try await install(fixture, webhook, port: port, change)
                    try await test(fixture, webhook)
                }
            }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    private static func install(
        _ fixture: APIFixture, _ webhook: FakeWebhook, port: Int, _ change: (inout JSONValue) -> Void
    ) async throws {
        var service = KubernetesObject.service("hook", spec: ["ports": [["port": 443]]])
        service.json[path: "metadata", "namespace"] = "kube-system"
        _ = try await fixture.client.create(.service, service)
        _ = try await fixture.client.create(
            .endpointSlice,
            KubernetesObject([
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": [
                    "name": "hook", "namespace": "kube-system", "labels": ["kubernetes.io/service-name": "hook"],
                ],
                "addressType": "IPv4", "endpoints": [["addresses": ["127.0.0.1"]]],
                "ports": [["name": "", "port": .int(Int64(port))]],
            ]))
        var hook: JSONValue = [
            "name": "hook.apus.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 5,
            "clientConfig": [
                "caBundle": .string(Data(webhook.certificatePEM.utf8).base64EncodedString()),
                "service": ["name": "hook", "namespace": "kube-system", "path": "/mutate"],
            ],
            "rules": [["operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]]],
        ]
        change(&hook)
        _ = try await fixture.client.create(
            .mutatingWebhookConfiguration,
            KubernetesObject([
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                "metadata": ["name": "hooks"],
                "webhooks": [hook],
            ]))
    }

    @Test func aPatchIsAppliedAndWhatItLeavesIsCheckedAgain() async throws {
        try await Self.run(answer: { _ in FakeWebhook.labels("injected") }) { fixture, webhook in
            let pod = try await fixture.client.create(.pod, .pod("web"))
            #expect(pod.labels["injected"] == "yes")
            let request = try #require(webhook.requests.first)
            #expect(request["operation"] == "CREATE" && request["namespace"] == "default")
            #expect(request[path: "resource", "resource"] == "pods" && request[path: "kind", "kind"] == "Pod")
            #expect(request[path: "userInfo", "username"] == "admin")
            #expect(request[path: "object", "spec", "restartPolicy"] == "Always")
            _ = try await fixture.client.create(.configMap, .configMap("other"))
            #expect(webhook.requests.count == 1)
        }
        try await Self.run(answer: { _ in FakeWebhook.labels("injected", "not valid!") }) { fixture, _ in
            await #expect { try await fixture.client.create(.pod, .pod("web")) } throws: {
                ($0 as? StatusError)?.code == 422
            }
        }
    }

    @Test func aDenialIsToldInKubernetesWords() async throws {
        try await Self.run(answer: { _ in ["allowed": false, "status": ["message": "no such owner", "code": 403]] }) {
            fixture, _ in
            await #expect { try await fixture.client.create(.pod, .pod("web")) } throws: {
                let error = $0 as? StatusError
                return error?.code == 403
                    && error?.message.contains("admission webhook \"hook.apus.dev\" denied the request: no such owner")
                        == true
            }
        }
    }

    @Test func selectorsAndDryRunReachTheWebhook() async throws {
        try await Self.run(
            answer: { _ in FakeWebhook.labels("injected") },
            change: { hook in
                hook["namespaceSelector"] = [
                    "matchExpressions": [
                        ["key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-public"]]
                    ]
                ]
                hook["objectSelector"] = [
                    "matchExpressions": [["key": "inject", "operator": "NotIn", "values": ["disabled"]]]
                ]
            }
        ) { fixture, webhook in
            var excluded = KubernetesObject.pod("a")
            excluded.json[path: "metadata", "namespace"] = "kube-public"
            #expect(try await fixture.client.create(.pod, excluded).labels["injected"] == nil)
            #expect(
                try await fixture.client.create(.pod, .pod("b", labels: ["inject": "disabled"])).labels["injected"]
                    == nil)
            #expect(webhook.requests.isEmpty)
            let dry = try await fixture.raw(
                "/api/v1/namespaces/default/pods?dryRun=All", method: "POST", body: KubernetesObject.pod("c").json)
            #expect(dry.json[path: "metadata", "labels", "injected"] == "yes")
            #expect(webhook.requests.first?["dryRun"] == true)
            #expect(try await fixture.pods().map(\.name) == ["b"])
        }
    }

    @Test(arguments: ["Fail", "Ignore"])
    func aWebhookThatIsNotWhoItShouldBeFailsAsItsPolicySays(policy: String) async throws {
        try await Self.run(
            answer: { _ in FakeWebhook.labels("injected") }, change: { $0["failurePolicy"] = .string(policy) },
            names: ["somebody.else.svc"]
        ) { fixture, webhook in
            if policy == "Ignore" {
                let pod = try await fixture.client.create(.pod, .pod("web"))
                #expect(pod.labels["injected"] == nil)
            } else {
                await #expect { try await fixture.client.create(.pod, .pod("web")) } throws: {
                    let error = $0 as? StatusError
                    return error?.code == 500
                        && error?.message.contains("failed calling webhook \"hook.apus.dev\"") == true
                }
            }
            #expect(webhook.requests.isEmpty)
        }
    }

    @Test func aWebhookIsAskedAgainWhenALaterOneChangedTheObject() async throws {
        try await Self.run(
            answer: { request in
                let labels = request[path: "object", "metadata", "labels"]
                if labels?["first"] == nil { return FakeWebhook.labels("first") }
                if labels?["second"] == nil { return FakeWebhook.labels("second") }
                return ["allowed": true]
            }, change: { $0["reinvocationPolicy"] = "IfNeeded" }
        ) { fixture, webhook in
            _ = try await fixture.client.patch(
                .mutatingWebhookConfiguration, namespace: nil, name: "hooks", subresource: nil,
                .json([
                    ["op": "copy", "from": "/webhooks/0", "path": "/webhooks/1"],
                    ["op": "replace", "path": "/webhooks/1/name", "value": "later.apus.dev"],
                    ["op": "replace", "path": "/webhooks/1/reinvocationPolicy", "value": "Never"],
                ]))
            let pod = try await fixture.client.create(.pod, .pod("web"))
            #expect(pod.labels["first"] == "yes" && pod.labels["second"] == "yes")
            #expect(webhook.requests.count == 3)
        }
    }
}
