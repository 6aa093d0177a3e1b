import Foundation
import MeshKubernetes
import MeshLocal
import Testing

@Suite struct RobustnessTests {
    /// Whatever stands where an object's parts belong, the server answers and lives on; so do the controllers that look at it.
    @Test func oddBodiesAreAnsweredNotTrappedOn() async throws {
        try await APIFixture.run([.controllers, .kubelet]) { fixture in
            let odd: [JSONValue] = [
                nil, true, -1, .int(.min), .int(.max), .double(1e300), "", "x", [], [nil], ["x"], [[:]], [:],
                ["x": nil], ["a": ["b": [1]]],
            ]
            var bodies: [(String, JSONValue)] = []
            let template: JSONValue = [
                "metadata": ["labels": ["a": "b"]], "spec": ["containers": [["name": "c", "image": "host"]]],
            ]
            for value in odd {
                for path in ["pods", "services", "configmaps", "secrets", "events", "serviceaccounts"] {
                    bodies.append(("/api/v1/namespaces/default/\(path)", value))
                    bodies.append(("/api/v1/namespaces/default/\(path)", ["metadata": value]))
                    bodies.append(
                        (
                            "/api/v1/namespaces/default/\(path)",
                            ["metadata": ["name": "a"], "spec": value, "data": value, "stringData": value]
                        ))
                    bodies.append(
                        (
                            "/api/v1/namespaces/default/\(path)",
                            [
                                "metadata": [
                                    "generateName": "a-", "labels": value, "ownerReferences": value,
                                    "finalizers": value,
                                ]
                            ]
                        ))
                }
                for field in [
                    "containers", "initContainers", "volumes", "restartPolicy", "nodeSelector", "securityContext",
                ] {
                    var spec = template["spec"] ?? [:]
                    spec[field] = value
                    bodies.append(
                        ("/api/v1/namespaces/default/pods", ["metadata": ["generateName": "p-"], "spec": spec]))
                }
                for field in ["name", "image", "ports", "env", "livenessProbe", "lifecycle", "volumeMounts", "command"]
                {
                    var container: JSONValue = ["name": "c", "image": "host"]
                    container[field] = value
                    bodies.append(
                        (
                            "/api/v1/namespaces/default/pods",
                            ["metadata": ["generateName": "q-"], "spec": ["containers": [container]]]
                        ))
                }
                for field in [
                    "replicas", "selector", "strategy", "minReadySeconds", "revisionHistoryLimit",
                    "progressDeadlineSeconds", "template",
                ] {
                    var spec: JSONValue = [
                        "selector": ["matchLabels": ["a": "b"]], "template": template, "replicas": 1,
                    ]
                    spec[field] = value
                    bodies.append(
                        (
                            "/apis/apps/v1/namespaces/default/deployments",
                            ["metadata": ["generateName": "d-"], "spec": spec]
                        ))
                }
                for field in [
                    "parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "template", "selector",
                ] {
                    var spec: JSONValue = ["template": template]
                    spec[path: "template", "spec", "restartPolicy"] = "Never"
                    spec[field] = value
                    bodies.append(
                        ("/apis/batch/v1/namespaces/default/jobs", ["metadata": ["generateName": "j-"], "spec": spec]))
                }
                for field in ["ports", "selector", "clusterIP", "type"] {
                    var spec: JSONValue = ["ports": [["port": 80]]]
                    spec[field] = value
                    bodies.append(
                        ("/api/v1/namespaces/default/services", ["metadata": ["generateName": "s-"], "spec": spec]))
                }
                for field in ["endpoints", "ports", "addressType"] {
                    var slice: JSONValue = ["metadata": ["generateName": "e-"], "addressType": "IPv4"]
                    slice[field] = value
                    bodies.append(("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice))
                }
                bodies.append(
                    (
                        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                        ["metadata": ["name": "a.b"], "spec": value]
                    ))
                bodies.append(("/apis/authentication.k8s.io/v1/tokenreviews", ["spec": ["token": value]]))
                bodies.append(
                    ("/api/v1/namespaces/default/serviceaccounts/default/token", ["spec": ["expirationSeconds": value]])
                )
            }
            for (path, body) in bodies {
                let answer = try await fixture.raw(path, method: "POST", body: body)
                #expect((200..<300).contains(answer.status) || (400..<500).contains(answer.status), "\(path) \(body)")
                for type in ["merge", "json", "strategic-merge"] where answer.status == 201 {
                    guard let name = answer.json[path: "metadata", "name"]?.string, !name.isEmpty else { continue }
                    let patch = try await fixture.raw(
                        "\(path)/\(name)", method: "PATCH", body: body, contentType: "application/\(type)-patch+json")
                    #expect(patch.status < 500)
                    _ = try await fixture.raw(
                        "\(path)/\(name)/status", method: "PATCH", body: ["status": body],
                        contentType: "application/merge-patch+json")
                }
            }
            for path in ["pods", "services", "events"] {
                let table = try await fixture.raw(
                    "/api/v1/\(path)", accept: "application/json;as=Table;v=v1;g=meta.k8s.io")
                #expect(table.status == 200)
            }
            #expect(try await fixture.raw("/healthz").status == 200)
        }
    }

    @Test(arguments: [
        "{", "{\"a\":}", "\u{0}", String(repeating: "[", count: 100_000), "{\"metadata\":{\"name\":\"\u{FFFF}\"}}",
    ])
    func whatIsNotJSONIsRefused(text: String) async throws {
        try await APIFixture.run { fixture in
            let answer = try await fixture.client.raw(
                APIRequest("POST", "/api/v1/namespaces/default/configmaps", body: Array(text.utf8)))
            #expect((400..<500).contains(answer.status))
        }
    }

    /// A process that is killed closes nothing: what it had answered for is there when the next one opens the file.
    @Test func whatWasAnsweredForSurvivesAProcessThatIsKilled() async throws {
        let place = NSTemporaryDirectory() + "apus-store-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: place) }
        let killed = try ObjectStore(directory: place)
        try await withThrowingDiscardingTaskGroup { group in
            for index in 0..<500 {
                group.addTask {
                    _ = try await killed.write(
                        ObjectKey(resource: "configmaps", namespace: "default", name: "m\(index)"),
                        .configMap("m\(index)"), expecting: .absent)
                }
            }
        }
        let next = try ObjectStore(directory: place)
        #expect(next.objects(of: "configmaps").objects.count == 500)
        #expect(next.objects(of: "configmaps").version > killed.objects(of: "configmaps").version)
        #expect(killed.statistics.commits < 500)
    }
}
