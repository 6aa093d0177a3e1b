import Foundation
import MeshInjector
import MeshKubernetes
import Testing

/// Each pod of `Golden/` with what becomes of it. `APUS_UPDATE_GOLDEN=1` writes the expectations anew, to be read in
/// review.
@Suite struct GoldenTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Golden")
    static let settings = InjectionSettings(
        version: "1.2.3", trustBundle: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var file: String
        var namespace = "shop"
        var namespaceLabels: [String: String] = [:]

        init(_ name: String, file: String? = nil, namespace: String = "shop", namespaceLabels: [String: String] = [:]) {
            self.name = name
            self.file = file ?? name
            self.namespace = namespace
            self.namespaceLabels = namespaceLabels
        }

        var testDescription: String { name }
    }

    static let cases: [Case] = [
        Case("plain"), Case("generate-name-only"), Case("init-containers"), Case("probes"), Case("annotations"),
        Case("resources"),
        Case("non-root"), Case("job"), Case("hooks"), Case("pod-opt-out"), Case("host-network"),
        Case("namespace-opt-out", file: "plain", namespaceLabels: ["apus.dev/inject": "disabled"]),
        Case("system-namespace", file: "plain", namespace: "kube-system"),
        Case("own-namespace", file: "plain", namespace: "apus-system"),
        Case("refused-annotation-value"), Case("refused-annotation-unknown"), Case("refused-limit-below-request"),
        Case("refused-label"), Case("refused-probe-port"), Case("refused-sidecar-port"), Case("refused-sidecar-user"),
        Case("refused-sidecar-name"),
    ]

    static func pod(_ name: String) throws -> JSONValue {
        let text = try String(contentsOf: folder.appendingPathComponent("\(name).pod.yaml"), encoding: .utf8)
        return try #require(try YAMLReader.documents(text).first)
    }

    @Test(arguments: cases)
    func aPodBecomesWhatItsGoldenFileSays(_ golden: Case) throws {
        let pod = try Self.pod(golden.file)
        let decision = Injection.patch(
            pod: pod, namespace: golden.namespace, namespaceLabels: golden.namespaceLabels, settings: Self.settings)
        let text =
            switch decision {
            case .patch(let patch): String(decoding: patch.json.data(pretty: true), as: UTF8.self) + "\n"
            case .skip(let reason): "skipped: \(reason)\n"
            case .refuse(let reason): "refused: \(reason)\n"
            }
        let file = Self.folder.appendingPathComponent("\(golden.name).expected")
        if ProcessInfo.processInfo.environment["APUS_UPDATE_GOLDEN"] == "1" {
            try Data(text.utf8).write(to: file)
        }
        #expect(try text == String(contentsOf: file, encoding: .utf8))
    }

    @Test(arguments: [
        "plain", "generate-name-only", "init-containers", "probes", "annotations", "resources", "non-root", "job",
        "hooks",
    ])
    func aSecondInjectionChangesNothing(_ name: String) throws {
        let pod = try Self.pod(name)
        let once = try injected(pod)
        #expect(once != pod)
        #expect(try injected(once) == once)
    }

    /// The platform fills in its defaults between two calls of one admission.
    @Test func aSecondInjectionAfterThePlatformsDefaultsChangesNothing() throws {
        var pod = try injected(Self.pod("probes"))
        for index in 0..<2 {
            var list = try #require(pod[path: "spec", "initContainers"]?.array)
            list[index]["imagePullPolicy"] = "IfNotPresent"
            list[index]["terminationMessagePath"] = "/dev/termination-log"
            list[index]["terminationMessagePolicy"] = "File"
            pod[path: "spec", "initContainers"] = .array(list)
        }
        #expect(try injected(pod) == pod)
    }

    /// Another webhook may add a container after the first call: its probes join those that are kept.
    @Test func aContainerAddedBetweenTwoCallsGetsItsProbesRewritten() throws {
        var pod = try injected(Self.pod("probes"))
        var containers = try #require(pod[path: "spec", "containers"]?.array)
        containers.append(["name": "late", "image": "host", "readinessProbe": ["tcpSocket": ["port": 7000]]])
        pod[path: "spec", "containers"] = .array(containers)
        let again = try injected(pod)
        let kept = try probes(again)
        #expect(kept.object?.keys.sorted() == ["db", "late", "web"])
        #expect(kept["web"] == (try probes(pod))["web"])
        #expect(kept[path: "late", "readiness", "tcpSocket", "port"] == 7000)
        let late = again[path: "spec", "containers"]?[3]
        #expect(late?[path: "readinessProbe", "httpGet", "path"] == "/apus/probe/late/readiness")
        #expect(try injected(again) == again)
    }

    /// Who labels a pod as injected does not thereby bring a sidecar of his own.
    @Test func aSidecarThatThePodBringsIsReplaced() throws {
        var pod = try Self.pod("plain")
        pod[path: "metadata", "labels", "apus.dev/injected"] = "true"
        pod[path: "spec", "initContainers"] = [
            ["name": "apus-proxy", "image": "evil", "command": ["sh"], "args": ["-c", "id"]]
        ]
        let sidecar = try #require(try injected(pod)[path: "spec", "initContainers"]?[1])
        #expect(sidecar["image"] == "apus/proxy:1.2.3")
        #expect(sidecar["command"] == nil)
        #expect(sidecar["args"] == ["run"])
    }

    @Test(
        arguments: [
            ([:], "spec is 'absent', expected an object"),
            (["spec": [:]], "spec.containers is '[]', expected at least one container"),
            (["spec": ["containers": "x"]], "spec.containers is '\"x\"', expected a list"),
            (["spec": ["containers": [5]]], "spec.containers[0] is '5', expected a container"),
            (["spec": 1], "spec is '1', expected an object"),
            (["metadata": ["labels": ["a": 1]], "spec": [:]], "metadata.labels[a] is '1', expected a text in quotes"),
            (["metadata": ["annotations": []], "spec": [:]], "metadata.annotations is '[]', expected an object"),
        ] as [(JSONValue, String)])
    func aDocumentThatIsNoPodIsRefused(pod: JSONValue, reason: String) {
        #expect(
            Injection.patch(pod: pod, namespace: "shop", namespaceLabels: [:], settings: Self.settings)
                == .refuse(reason: reason))
    }

    private func injected(_ pod: JSONValue) throws -> JSONValue {
        let decision = Injection.patch(pod: pod, namespace: "shop", namespaceLabels: [:], settings: Self.settings)
        guard case .patch(let patch) = decision else {
            Issue.record("\(decision)")
            return pod
        }
        return try patch.applied(to: pod)
    }

    private func probes(_ pod: JSONValue) throws -> JSONValue {
        let sidecar = try #require(pod[path: "spec", "initContainers"]?[1])
        let variable = try #require(sidecar["env"]?.array?.first { $0["name"] == "APUS_PROBES" })
        return try JSONValue(parsing: Data((variable["value"]?.string ?? "").replacing("$$", with: "$").utf8))
    }
}
