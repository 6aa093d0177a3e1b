import Foundation
import MeshKubernetes
import MeshLocal
import Testing

@Suite struct ObjectVerbTests {
    @Test func anObjectGoesThroughItsWholeLifeOverHTTPS() async throws {
        try await APIFixture.run { fixture in
            let made = try await fixture.client.create(.configMap, .configMap("settings", ["a": "1"]))
            #expect(!made.uid.isEmpty)
            #expect(made.json[path: "metadata", "creationTimestamp"]?.string.flatMap { KubernetesTime($0) } != nil)
            let patched = try await fixture.client.patch(
                .configMap, namespace: "default", name: "settings", subresource: nil,
                .merge(["data": ["a": nil, "b": "2"]]))
            #expect(patched.json["data"] == ["b": "2"])
            let again = try await fixture.client.patch(
                .configMap, namespace: "default", name: "settings", subresource: nil,
                .json([
                    ["op": "test", "path": "/data/b", "value": "2"], ["op": "add", "path": "/data/c", "value": "3"],
                ]))
            #expect(again.json["data"] == ["b": "2", "c": "3"])
            #expect(Int64(again.resourceVersion) ?? 0 > Int64(made.resourceVersion) ?? 0)
            try await fixture.client.delete(
                .configMap, namespace: "default", name: "settings", gracePeriodSeconds: nil, uid: nil)
            await #expect { try await fixture.client.get(.configMap, namespace: "default", name: "settings") } throws: {
                ($0 as? StatusError)?.code == 404
            }
        }
    }

    @Test func aStaleUpdateIsRefusedAndAnUnconditionalOneIsNot() async throws {
        try await APIFixture.run { fixture in
            let first = try await fixture.client.create(.configMap, .configMap("a", ["n": "1"]))
            var second = first
            second.json["data"] = ["n": "2"]
            _ = try await fixture.client.update(.configMap, second, subresource: nil)
            await #expect { try await fixture.client.update(.configMap, second, subresource: nil) } throws: {
                ($0 as? StatusError)?.code == 409 && ($0 as? StatusError)?.reason == "Conflict"
            }
            second.json[path: "metadata", "resourceVersion"] = nil
            second.json["data"] = ["n": "3"]
            #expect(try await fixture.client.update(.configMap, second, subresource: nil).json["data"] == ["n": "3"])
        }
    }

    @Test func aSecondObjectOfTheSameNameIsRefused() async throws {
        try await APIFixture.run { fixture in
            _ = try await fixture.client.create(.configMap, .configMap("a"))
            await #expect { try await fixture.client.create(.configMap, .configMap("a")) } throws: {
                ($0 as? StatusError)?.reason == "AlreadyExists"
            }
            await #expect {
                try await fixture.client.create(.configMap, .configMap("a", namespace: "nowhere"))
            } throws: {
                ($0 as? StatusError)?.code == 404
            }
        }
    }

    @Test func fieldErrorsNameTheFieldTheValueAndWhatWasExpected() async throws {
        try await APIFixture.run { fixture in
            let pod = KubernetesObject.pod(
                "web",
                spec: [
                    "hostNetwork": true,
                    "containers": [
                        [
                            "name": "Main", "ports": [["containerPort": 70_000]], "tty": true,
                            "volumeMounts": [["name": "x", "mountPath": "/x"]],
                        ]
                    ],
                    "volumes": [["name": "disk", "hostPath": ["path": "/"]]], "affinity": ["nodeAffinity": ["a": 1]],
                ])
            do {
                _ = try await fixture.client.create(.pod, pod)
                Issue.record("the pod was accepted")
            } catch let error as StatusError {
                #expect(error.code == 422)
                let causes = error.details?["causes"]?.array ?? []
                let fields = Set(causes.compactMap { $0["field"]?.string })
                #expect(
                    fields.isSuperset(of: [
                        "spec.hostNetwork", "spec.containers[0].name", "spec.containers[0].image",
                        "spec.containers[0].ports[0].containerPort", "spec.containers[0].tty",
                        "spec.containers[0].volumeMounts[0].name", "spec.volumes[0].hostPath", "spec.affinity",
                    ]))
                #expect(
                    error.message.contains(
                        "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535"))
            }
        }
    }

    @Test func aPodGetsItsDefaults() async throws {
        try await APIFixture.run { fixture in
            let pod = try await fixture.client.create(
                .pod,
                .pod(
                    "web",
                    spec: [
                        "containers": [
                            [
                                "name": "main", "image": "host", "ports": [["containerPort": 80]],
                                "readinessProbe": ["httpGet": ["port": 80]],
                            ]
                        ]
                    ]))
            let spec = pod.json["spec"]
            #expect(spec?["restartPolicy"] == "Always")
            #expect(spec?["terminationGracePeriodSeconds"] == 30)
            #expect(spec?["nodeName"] == "machine")
            #expect(spec?["serviceAccountName"] == "default")
            #expect(spec?["containers"]?[0]?["ports"]?[0]?["protocol"] == "TCP")
            let probe = spec?["containers"]?[0]?["readinessProbe"]
            #expect(probe?["periodSeconds"] == 10 && probe?["failureThreshold"] == 3 && probe?["timeoutSeconds"] == 1)
            #expect(probe?[path: "httpGet", "path"] == "/")
            #expect(pod.json[path: "status", "phase"] == "Pending")
        }
    }

    @Test func statusAndSpecAreWrittenApart() async throws {
        try await APIFixture.run { fixture in
            var object = try await fixture.client.create(.deployment, .deployment("web", replicas: 2))
            #expect(object.json[path: "metadata", "generation"] == 1)
            object.json["status"] = ["replicas": 9]
            object.json[path: "spec", "replicas"] = 3
            object = try await fixture.client.update(.deployment, object, subresource: nil)
            #expect(object.json["status"] == nil)
            #expect(object.json[path: "metadata", "generation"] == 2)
            object.json["status"] = ["replicas": 9]
            object.json[path: "spec", "replicas"] = 100
            object = try await fixture.client.update(.deployment, object, subresource: "status")
            #expect(object.json[path: "status", "replicas"] == 9)
            #expect(object.json[path: "spec", "replicas"] == 3)
            #expect(object.json[path: "metadata", "generation"] == 2)
        }
    }

    @Test func immutableFieldsStay() async throws {
        try await APIFixture.run { fixture in
            var object = try await fixture.client.create(.deployment, .deployment("web", replicas: 1))
            object.json[path: "spec", "selector", "matchLabels"] = ["app": "other"]
            object.json[path: "spec", "template", "metadata", "labels"] = ["app": "other"]
            let changed = object
            await #expect { try await fixture.client.update(.deployment, changed, subresource: nil) } throws: {
                ($0 as? StatusError)?.message.contains("spec.selector: Invalid value") == true
            }
        }
    }

    @Test func aPodIsKeptUntilItsRunnerDeletesIt() async throws {
        try await APIFixture.run { fixture in
            let pod = try await fixture.client.create(.pod, .pod("web"))
            let gone = try await fixture.client.delete(
                .pod, namespace: "default", name: "web", gracePeriodSeconds: 7, uid: nil)
            #expect(gone.json[path: "metadata", "deletionGracePeriodSeconds"] == 7)
            let present = try await fixture.client.get(.pod, namespace: "default", name: "web")
            #expect(present.isTerminating && present.uid == pod.uid)
            try await fixture.client.delete(
                .pod, namespace: "default", name: "web", gracePeriodSeconds: 0, uid: pod.uid)
            #expect(try await fixture.pods().isEmpty)
        }
    }

    @Test func aFinalizerKeepsTheObjectUntilItIsRemoved() async throws {
        try await APIFixture.run { fixture in
            var map = KubernetesObject.configMap("a")
            map.json[path: "metadata", "finalizers"] = ["example.com/cleanup"]
            _ = try await fixture.client.create(.configMap, map)
            try await fixture.client.delete(
                .configMap, namespace: "default", name: "a", gracePeriodSeconds: nil, uid: nil)
            #expect(try await fixture.client.get(.configMap, namespace: "default", name: "a").isTerminating)
            _ = try await fixture.client.patch(
                .configMap, namespace: "default", name: "a", subresource: nil, .merge(["metadata": ["finalizers": nil]])
            )
            await #expect(throws: StatusError.self) {
                try await fixture.client.get(.configMap, namespace: "default", name: "a")
            }
        }
    }

    @Test func aDeletionOfAnotherObjectOfTheNameIsRefused() async throws {
        try await APIFixture.run { fixture in
            _ = try await fixture.client.create(.configMap, .configMap("a"))
            await #expect {
                try await fixture.client.delete(
                    .configMap, namespace: "default", name: "a", gracePeriodSeconds: nil, uid: "another")
            } throws: { ($0 as? StatusError)?.code == 409 }
        }
    }

    @Test func servicesGetAnAddressAndGiveItBack() async throws {
        try await APIFixture.run { fixture in
            let service = try await fixture.client.create(.service, .service("web", spec: ["ports": [["port": 80]]]))
            let address = try #require(service.json[path: "spec", "clusterIP"]?.string)
            #expect(address.hasPrefix("10.96."))
            #expect(service.json["spec"]?["ports"]?[0]?["targetPort"] == 80)
            let wanted: JSONValue = ["clusterIP": .string(address), "ports": [["port": 80]]]
            await #expect { try await fixture.client.create(.service, .service("other", spec: wanted)) } throws: {
                ($0 as? StatusError)?.message.contains("already allocated") == true
            }
            try await fixture.client.delete(
                .service, namespace: "default", name: "web", gracePeriodSeconds: nil, uid: nil)
            let other = try await fixture.client.create(.service, .service("other", spec: wanted))
            #expect(other.json[path: "spec", "clusterIP"]?.string == address)
            let headless = try await fixture.client.create(.service, .service("none", spec: ["clusterIP": "None"]))
            #expect(headless.json[path: "spec", "clusterIPs"] == ["None"])
        }
    }

    @Test func selectorsAndPagesNarrowAList() async throws {
        try await APIFixture.run { fixture in
            for index in 0..<7 {
                var map = KubernetesObject.configMap("m\(index)")
                map.json[path: "metadata", "labels"] = ["even": .string(index % 2 == 0 ? "yes" : "no")]
                _ = try await fixture.client.create(.configMap, map)
            }
            let even = try await fixture.client.list(
                .configMap, namespace: "default", labelSelector: "even in (yes)", fieldSelector: nil)
            #expect(even.items.map(\.name) == ["m0", "m2", "m4", "m6"])
            let one = try await fixture.client.list(
                .configMap, namespace: nil, labelSelector: nil, fieldSelector: "metadata.name=m3")
            #expect(one.items.map(\.name) == ["m3"])
            var names: [String] = []
            var next = ""
            repeat {
                let page = try await fixture.raw(
                    "/api/v1/namespaces/default/configmaps?limit=3&continue=\(next)&labelSelector=even"
                ).json
                names += page["items"]?.array?.compactMap { $0[path: "metadata", "name"]?.string } ?? []
                next = page[path: "metadata", "continue"]?.string ?? ""
            } while !next.isEmpty
            #expect(names == (0..<7).map { "m\($0)" })
        }
    }

    @Test func generatedNamesDiffer() async throws {
        try await APIFixture.run { fixture in
            var map = KubernetesObject.configMap("")
            map.json["metadata"] = ["generateName": "job-", "namespace": "default"]
            let first = try await fixture.client.create(.configMap, map)
            let second = try await fixture.client.create(.configMap, map)
            #expect(first.name.hasPrefix("job-") && first.name.count == 9 && first.name != second.name)
        }
    }

    @Test func objectsSurviveARestart() async throws {
        let place = NSTemporaryDirectory() + "apus-api-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: place) }
        nonisolated(unsafe) var version: Int64 = 0
        nonisolated(unsafe) var token = ""
        try await APIFixture.run(directory: place) { fixture in
            _ = try await fixture.client.create(.configMap, .configMap("kept", ["a": "1"]))
            let last = try await fixture.client.create(.configMap, .configMap("gone"))
            try await fixture.client.delete(
                .configMap, namespace: "default", name: "gone", gracePeriodSeconds: nil, uid: nil)
            version = Int64(last.resourceVersion) ?? 0
            token = fixture.token
            let mode =
                try FileManager.default.attributesOfItem(atPath: "\(place)/objects.sqlite")[.posixPermissions] as? Int
            #expect(mode == 0o600)
        }
        try await APIFixture.run(directory: place) { fixture in
            #expect(
                try await fixture.client.get(.configMap, namespace: "default", name: "kept").json["data"] == ["a": "1"])
            await #expect(throws: StatusError.self) {
                try await fixture.client.get(.configMap, namespace: "default", name: "gone")
            }
            let next = try await fixture.client.create(.configMap, .configMap("new"))
            #expect(Int64(next.resourceVersion) ?? 0 > version)
            #expect(fixture.token == token)
        }
    }

    @Test func aTooLargeObjectIsRefused() async throws {
        try await APIFixture.run { fixture in
            let text = String(repeating: "x", count: 1_600_000)
            await #expect {
                try await fixture.client.create(.configMap, .configMap("big", ["a": .string(text)]))
            } throws: {
                ($0 as? StatusError)?.code == 413
            }
        }
    }
}

extension APIFixture {
    /// A request as a client without knowledge of kinds would send it.
    func raw(
        _ target: String, method: String = "GET", accept: String = "application/json", body: JSONValue? = nil,
        contentType: String = "application/json"
    ) async throws -> (status: Int, json: JSONValue) {
        let parts = target.split(separator: "?", maxSplits: 1)
        let query =
            parts.count > 1
            ? parts[1].split(separator: "&").map { pair -> (name: String, value: String) in
                let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                return (String(sides[0]), sides.count > 1 ? String(sides[1]) : "")
            } : []
        do {
            let answer = try await client.raw(
                APIRequest(
                    method, String(parts[0]), query: query, body: body.map { Array($0.data()) },
                    contentType: contentType,
                    accept: accept))
            return (answer.status, (try? JSONValue(parsing: Data(answer.body))) ?? .null)
        } catch let error as StatusError {
            return (error.code, error.json)
        }
    }
}
