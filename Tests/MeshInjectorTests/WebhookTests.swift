import AsyncHTTPClient
import Foundation
import Logging
import MeshInjector
import MeshKubernetes
import NIOCore
import NIOHTTP1
import NIOSSL
import Testing

/// The webhook over real TLS on loopback, asked as the API server asks it.
@Suite(.timeLimit(.minutes(1))) struct WebhookTests {
    static let name = "apus-control.apus-system.svc"
    static let quiet = Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() }

    /// A certificate that is its own root, made by openssl.
    static func certificate() throws -> WebhookCertificate {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("apus-webhook-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func openssl(_ arguments: String...) throws {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
            process.arguments = arguments
            process.currentDirectoryURL = folder
            process.standardError = FileHandle.nullDevice
            try process.run()
            process.waitUntilExit()
            try #require(process.terminationStatus == 0, "openssl \(arguments)")
        }
        try openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem",
            "-out",
            "cert.pem", "-days", "2", "-subj", "/CN=webhook", "-addext", "subjectAltName=DNS:\(name)")
        try openssl("x509", "-in", "cert.pem", "-outform", "der", "-out", "cert.der")
        try openssl("pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "der", "-out", "key.der")
        func bytes(_ file: String) throws -> [UInt8] {
            Array(try Data(contentsOf: folder.appendingPathComponent(file)))
        }
        return WebhookCertificate(
            chain: [try bytes("cert.der")], key: try bytes("key.der"), caBundle: try bytes("cert.pem"))
    }

    struct Answer: Sendable {
        var status: Int
        var body: [UInt8]

        func json() throws -> JSONValue { try JSONValue(parsing: body) }
    }

    /// One request over a connection of its own, verified against the root given.
    static func post(
        port: Int, root: [UInt8], path: String = "/inject", type: String = "application/json", _ body: [UInt8]
    ) async throws -> Answer {
        var configuration = HTTPClient.Configuration()
        configuration.tlsConfiguration = .makeClientConfiguration()
        configuration.tlsConfiguration?.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(root))
        configuration.dnsOverride = [name: "127.0.0.1"]
        configuration.connectionPool.retryConnectionEstablishment = false
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        var request = HTTPClientRequest(url: "https://\(name):\(port)\(path)")
        request.method = .POST
        request.headers.add(name: "content-type", value: type)
        request.body = .bytes(body, length: .known(Int64(body.count)))
        do {
            let response = try await client.execute(request, timeout: .seconds(10))
            let body = try await response.body.collect(upTo: 1 << 20)
            try await client.shutdown()
            return Answer(status: Int(response.status.code), body: Array(body.readableBytesView))
        } catch {
            try? await client.shutdown()
            throw error
        }
    }

    static func with(
        _ certificate: WebhookCertificate, _ body: @escaping @Sendable (InjectionWebhook, Int) async throws -> Void
    ) async throws {
        let webhook = try InjectionWebhook(
            host: "127.0.0.1", port: 0, certificate: certificate, settings: InjectionSettings(version: "1.2.3"),
            logger: quiet,
            namespaceLabels: { $0 == "quiet" ? ["apus.dev/inject": "disabled"] : [:] })
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await webhook.run() }
            group.addTask {
                while webhook.listeningPort == nil { try await Task.sleep(for: .milliseconds(2)) }
                try await body(webhook, webhook.listeningPort ?? 0)
            }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    static func review(_ pod: JSONValue, namespace: String = "shop", kind: String = "Pod") -> JSONValue {
        [
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": [
                "uid": "u-1", "kind": ["group": "", "version": "v1", "kind": .string(kind)], "operation": "CREATE",
                "namespace": .string(namespace), "object": pod,
            ],
        ]
    }

    static let pod: JSONValue = [
        "metadata": ["generateName": "web-"], "spec": ["containers": [["name": "web", "image": "host"]]],
    ]

    @Test func aPodIsAnsweredWithItsPatch() async throws {
        let certificate = try Self.certificate()
        try await Self.with(certificate) { webhook, port in
            let answer = try await Self.post(port: port, root: certificate.caBundle, Self.review(Self.pod).bytes())
            #expect(answer.status == 200)
            let response = try #require(try answer.json()["response"])
            #expect(try answer.json()["apiVersion"] == "admission.k8s.io/v1")
            #expect(response["uid"] == "u-1")
            #expect(response["allowed"] == true)
            #expect(response["patchType"] == "JSONPatch")
            let text = try #require(response["patch"]?.string)
            let patch = try JSONPatch(json: try JSONValue(parsing: try #require(Data(base64Encoded: text))))
            let injected = try patch.applied(to: Self.pod)
            #expect(injected[path: "spec", "initContainers"]?[1]?["image"] == "apus/proxy:1.2.3")

            // The settings are exchanged, and the injected pod comes again.
            webhook.update(settings: InjectionSettings(image: "other:1", version: "1.2.3"))
            let again = try await Self.post(port: port, root: certificate.caBundle, Self.review(injected).bytes())
            let second = try #require(try again.json()[path: "response", "patch"]?.string)
            let change = try JSONPatch(json: try JSONValue(parsing: try #require(Data(base64Encoded: second))))
            #expect(change.operations.count == 2)
            webhook.update(settings: InjectionSettings(version: "1.2.3"))
            let unchanged = try await Self.post(port: port, root: certificate.caBundle, Self.review(injected).bytes())
            #expect(try unchanged.json()["response"] == ["uid": "u-1", "allowed": true])
            #expect(webhook.counts.injected == 2)
            #expect(webhook.counts.unchanged == 1)
        }
    }

    @Test func aMalformedAnnotationIsRefusedWithTheReason() async throws {
        let certificate = try Self.certificate()
        try await Self.with(certificate) { webhook, port in
            var pod = Self.pod
            pod[path: "metadata", "annotations"] = ["apus.dev/drain-seconds": "soon"]
            let answer = try await Self.post(port: port, root: certificate.caBundle, Self.review(pod).bytes())
            let response = try #require(try answer.json()["response"])
            #expect(answer.status == 200)
            #expect(response["allowed"] == false)
            #expect(
                response[path: "status", "message"]
                    == "metadata.annotations[apus.dev/drain-seconds] is 'soon', expected a whole number of seconds from 0 to 3600"
            )
            #expect(webhook.counts.refused == 1)
        }
    }

    @Test(arguments: [("shop", "Deployment"), ("quiet", "Pod"), ("kube-system", "Pod")])
    func whatGetsNoSidecarIsAllowedAsItIs(namespace: String, kind: String) async throws {
        let certificate = try Self.certificate()
        try await Self.with(certificate) { webhook, port in
            let review = Self.review(Self.pod, namespace: namespace, kind: kind)
            let answer = try await Self.post(port: port, root: certificate.caBundle, review.bytes())
            #expect(try answer.json()["response"] == ["uid": "u-1", "allowed": true])
            #expect(webhook.counts.skipped == 1)
        }
    }

    @Test(arguments: [
        (
            "application/json", "{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1beta1\"}", 400,
            "apiVersion is 'admission.k8s.io/v1beta1', expected admission.k8s.io/v1"
        ),
        ("application/json", "{\"kind\":\"Pod\"}", 400, "kind is 'Pod', expected AdmissionReview"),
        (
            "application/json; charset=utf-8", "{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1\"}",
            400, "request.uid is absent"
        ),
        ("application/json", "{", 400, "not JSON at byte 1"),
        ("application/json", "", 400, "not JSON at byte 0"),
        ("text/plain", "{}", 415, "Content-Type is 'text/plain', expected application/json"),
    ])
    func whatIsNoReviewIsRefused(type: String, body: String, status: Int, message: String) async throws {
        let certificate = try Self.certificate()
        try await Self.with(certificate) { webhook, port in
            let answer = try await Self.post(port: port, root: certificate.caBundle, type: type, Array(body.utf8))
            #expect(answer.status == status)
            #expect(String(decoding: answer.body, as: UTF8.self).contains(message))
            #expect(webhook.counts.malformed == 1)
        }
    }

    @Test func aBodyBeyondTheLimitIsRefused() async throws {
        let certificate = try Self.certificate()
        try await Self.with(certificate) { _, port in
            let large = [UInt8](repeating: UInt8(ascii: " "), count: InjectionWebhook.bodyLimitBytes + 1)
            let answer = try await Self.post(port: port, root: certificate.caBundle, large)
            #expect(answer.status == 413)
        }
    }

    @Test func theCertificateIsExchangedWhileItRuns() async throws {
        let first = try Self.certificate()
        let second = try Self.certificate()
        try await Self.with(first) { webhook, port in
            let body = Self.review(Self.pod).bytes()
            #expect(try await Self.post(port: port, root: first.caBundle, body).status == 200)
            try webhook.update(certificate: second)
            #expect(try await Self.post(port: port, root: second.caBundle, body).status == 200)
            await #expect(throws: (any Error).self) { try await Self.post(port: port, root: first.caBundle, body) }
            #expect(throws: WebhookCertificateError.self) {
                try webhook.update(certificate: WebhookCertificate(chain: [[1, 2, 3]], key: [4], caBundle: []))
            }
            #expect(try await Self.post(port: port, root: second.caBundle, body).status == 200)
        }
    }

    @Test func itIsReadyOnlyWhileItListens() async throws {
        let certificate = try Self.certificate()
        let webhook = try InjectionWebhook(
            host: "127.0.0.1", port: 0, certificate: certificate, settings: InjectionSettings(), logger: Self.quiet)
        #expect(!webhook.isReady)
        let task = Task { try await webhook.run() }
        while !webhook.isReady { try await Task.sleep(for: .milliseconds(2)) }
        task.cancel()
        _ = await task.result
        #expect(!webhook.isReady)
    }
}
