import Foundation
import MeshKubernetes
import MeshLocal
import Testing

/// Inside a namespace of the test's own; `NamespaceTests` runs them there.
@Suite(.serialized, .enabled(if: TestNamespace.isInside), .timeLimit(.minutes(3)))
struct PodBehaviour {
    @Test func aPodRunsWithItsOwnNameAddressFilesAndUser() async throws {
        try await PodMachine.with { machine in
            _ = try await machine.api.create(
                .configMap,
                KubernetesObject([
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": ["name": "settings", "namespace": "default"],
                    "data": ["colour": "blue", "size.txt": "large\n"],
                ]))
            try await machine.create(
                "one", "echo started; exec sleep 1000",
                spec: [
                    "hostname": "named", "hostAliases": [["ip": "192.0.2.7", "hostnames": ["alias.example"]]],
                    "securityContext": ["fsGroup": 2000],
                    "volumes": [
                        ["name": "files", "configMap": ["name": "settings"]],
                        ["name": "scratch", "emptyDir": ["medium": "Memory"]],
                    ],
                ],
                container: [
                    "env": [
                        ["name": "WHO", "value": "you"],
                        ["name": "GREETING", "value": "hello $(WHO) $$(WHO) $(NOBODY)"],
                        ["name": "COLOUR", "valueFrom": ["configMapKeyRef": ["name": "settings", "key": "colour"]]],
                        ["name": "ADDRESS", "valueFrom": ["fieldRef": ["fieldPath": "status.podIP"]]],
                    ],
                    "securityContext": ["runAsUser": 1234, "runAsGroup": 1235, "capabilities": ["drop": ["ALL"]]],
                    "volumeMounts": [
                        ["name": "files", "mountPath": "/etc/settings"],
                        ["name": "scratch", "mountPath": "/not/on/the/host"],
                    ],
                ])
            try await machine.waitRunning("one")
            let address = try await machine.pod("one").status.podIP
            let facts = try await machine.exec(
                "one",
                [
                    "sh", "-c",
                    "id -u; id -g; hostname; echo $GREETING $COLOUR $ADDRESS; cat /etc/settings/size.txt; echo x > /not/on/the/host/f; "
                        + "stat -c %g /not/on/the/host/f; grep CapBnd /proc/self/status; getent hosts alias.example; ls /proc | grep -c '^[0-9]'",
                ])
            let lines = facts.output.split(separator: "\n").map(String.init)
            #expect(
                lines.prefix(5) == ["1234", "1235", "named", "hello you $(WHO) $(NOBODY) blue \(address)", "large"])
            #expect(lines[5] == "2000")
            #expect(lines[6] == "CapBnd:\t0000000000000000")
            #expect(lines[7].hasPrefix("192.0.2.7"))
            #expect(Int(lines[8]).map { $0 < 12 } == true, "the container sees only its own processes")
            #expect(access("/not", F_OK) != 0, "nothing was made on the host")
            #expect(try await machine.log("one") == "started\n")
            let hidden = try await machine.exec("one", ["sh", "-c", "ls \(machine.directory) 2>&1 | head -c 200"])
            #expect(!hidden.output.contains("objects.sqlite"))
        }
    }

    @Test func changedFilesAndNewTokensReachARunningPod() async throws {
        try await PodMachine.with { machine in
            func object(_ kind: String, _ value: JSONValue) -> KubernetesObject {
                KubernetesObject([
                    "apiVersion": "v1", "kind": .string(kind),
                    "metadata": ["name": "settings", "namespace": "default"],
                    kind == "Secret" ? "stringData" : "data": value,
                ])
            }
            _ = try await machine.api.create(.configMap, object("ConfigMap", ["colour": "blue", "gone": "soon"]))
            _ = try await machine.api.create(.secret, object("Secret", ["word": "old"]))
            let source: JSONValue = [
                "serviceAccountToken": ["path": "token", "audience": "x", "expirationSeconds": 600]
            ]
            try await machine.create(
                "reader", "exec sleep 1000",
                spec: [
                    "volumes": [
                        ["name": "map", "configMap": ["name": "settings"]],
                        ["name": "secret", "secret": ["secretName": "settings"]],
                        ["name": "token", "projected": ["sources": [source]]],
                        [
                            "name": "fields",
                            "downwardAPI": [
                                "items": [["path": "labels", "fieldRef": ["fieldPath": "metadata.labels"]]]
                            ],
                        ],
                    ]
                ],
                container: [
                    "volumeMounts": [
                        ["name": "map", "mountPath": "/files/map"], ["name": "secret", "mountPath": "/files/secret"],
                        ["name": "token", "mountPath": "/files/token"],
                        ["name": "fields", "mountPath": "/files/fields"],
                    ]
                ])
            try await machine.waitRunning("reader")
            let script = "cd /files; cat map/colour secret/word fields/labels; ls map | tr '\\n' ' '"
            func files() async throws -> String { try await machine.exec("reader", ["sh", "-c", script]).output }
            func presentToken() async throws -> String {
                try await machine.exec("reader", ["cat", "/files/token/token"]).output
            }
            let former = try await files()
            let formerToken = try await presentToken()
            #expect(former.hasPrefix("blueold") && former.hasSuffix("colour gone "), "\(former)")
            #expect(formerToken.split(separator: ".").count == 3)

            let merge = { (patch: JSONValue) in KubernetesPatch.merge(patch) }
            _ = try await machine.api.patch(
                .configMap, namespace: "default", name: "settings", subresource: nil,
                merge(["data": ["colour": "green", "gone": .null]]))
            _ = try await machine.api.patch(
                .secret, namespace: "default", name: "settings", subresource: nil,
                merge(["stringData": ["word": "new"]]))
            _ = try await machine.api.patch(
                .pod, namespace: "default", name: "reader", subresource: nil,
                merge(["metadata": ["labels": ["tier": "front"]]]))
            var now = ""
            var newToken = formerToken
            for _ in 0..<200 where !(now.hasPrefix("greennew") && now.contains("front")) || newToken == formerToken {
                try await Task.sleep(for: .milliseconds(100))
                (now, newToken) = (try await files(), try await presentToken())
            }
            #expect(now.hasPrefix("greennew") && now.contains("tier=\"front\"") && now.hasSuffix("colour "), "\(now)")
            #expect(newToken != formerToken && newToken.split(separator: ".").count == 3)
        }
    }

    @Test func commandsGetTheirInputAndReturnTheirCode() async throws {
        try await PodMachine.with { machine in
            try await machine.create("one", "exec sleep 1000")
            try await machine.waitRunning("one")
            let echoed = try await machine.exec("one", ["sh", "-c", "cat; exit 9"], input: "through the pipe")
            #expect(echoed.output == "through the pipe")
            #expect(echoed.code == 9)
            let big = try await machine.exec("one", ["head", "-c", "3000000", "/dev/zero"])
            #expect(big.output.utf8.count == 3_000_000)
            await #expect(throws: StatusError.self) { try await machine.exec("one", ["/no/such/program"]) }
            await #expect(throws: StatusError.self) { try await machine.exec("one", ["true"], container: "other") }
        }
    }

    @Test func initContainersAndSidecarsStartInOrderAndEndInReverse() async throws {
        try await PodMachine.with { machine in
            let directory: JSONValue = [["name": "shared", "mountPath": "/shared"]]
            func container(_ name: String, _ script: String, _ more: [String: JSONValue] = [:]) -> JSONValue {
                var value: [String: JSONValue] = [
                    "name": .string(name), "image": "host", "command": ["sh", "-c", .string(script), .string(name)],
                    "volumeMounts": directory,
                ]
                value.merge(more) { $1 }
                return .object(value)
            }
            let ending = "trap 'echo $0-ends >> /shared/order; exit 0' TERM; while true; do sleep 0.05; done"
            let uid = try await machine.create(
                "ordered", "echo main >> /shared/order; " + ending,
                spec: [
                    "volumes": [["name": "shared", "emptyDir": [:]]],
                    "initContainers": [
                        container("first", "echo first >> /shared/order"),
                        container(
                            "sidecar", "sleep 0.3; echo sidecar >> /shared/order; touch /shared/up; " + ending,
                            [
                                "restartPolicy": "Always",
                                "startupProbe": [
                                    "exec": ["command": ["test", "-f", "/shared/up"]], "periodSeconds": 1,
                                ],
                            ]),
                        container("second", "echo second >> /shared/order"),
                    ],
                ],
                container: [
                    "volumeMounts": directory,
                    "command": ["sh", "-c", .string("echo main >> /shared/order; " + ending), "main"],
                    "lifecycle": ["preStop": ["exec": ["command": ["sh", "-c", "echo hook >> /shared/order"]]]],
                ])
            try await machine.waitRunning("ordered")
            let order = try await machine.exec("ordered", ["cat", "/shared/order"])
            #expect(order.output == "first\nsidecar\nsecond\nmain\n")
            let file = "\(machine.directory)/pods/\(uid)/volumes/shared/order"
            let kept = machine.directory + "/order"
            #expect(link(file, kept) == 0)
            try await machine.delete("ordered")
            try await machine.waitGone("ordered")
            let whole = try String(contentsOfFile: kept, encoding: .utf8)
            #expect(whole == "first\nsidecar\nsecond\nmain\nhook\nmain-ends\nsidecar-ends\n")
        }
    }

    @Test func exitsAreToldWithCodeReasonAndRestarts() async throws {
        try await PodMachine.with { machine in
            try await machine.create("completes", "exit 0", spec: ["restartPolicy": "Never"])
            try await machine.create("fails", "exit 7", spec: ["restartPolicy": "Never"])
            try await machine.create("killed", "kill -9 $$$$", spec: ["restartPolicy": "Never"])
            try await machine.create("crashes", "echo run; exit 3")
            try await machine.create("missing", "true", container: ["command": ["/no/such/program"]])
            let completed = try await machine.wait("completes", "succeeded") { $0.status.phase == "Succeeded" }
            #expect(completed.status.containerStatuses.first?.state.terminated?.reason == "Completed")
            let failed = try await machine.wait("fails", "failed") { $0.status.phase == "Failed" }
            #expect(failed.status.containerStatuses.first?.state.terminated?.exitCode == 7)
            let killed = try await machine.wait("killed", "failed") { $0.status.phase == "Failed" }
            #expect(killed.status.containerStatuses.first?.state.terminated?.exitCode == 137)
            #expect(killed.status.containerStatuses.first?.state.terminated?.signal == 9)
            let looping = try await machine.wait("crashes", "waits to be restarted") {
                $0.status.containerStatuses.first?.state.waiting?.reason == "CrashLoopBackOff"
                    && ($0.status.containerStatuses.first?.restartCount ?? 0) > 0
            }
            #expect(looping.status.containerStatuses.first?.lastState.terminated?.exitCode == 3)
            #expect(looping.status.phase == "Running")
            #expect(try await machine.log("crashes", previous: true) == "run\n")
            let missing = try await machine.wait("missing", "tells why") {
                $0.status.containerStatuses.first?.lastState.terminated != nil
            }
            let end = missing.status.containerStatuses.first?.lastState.terminated
            #expect(end?.reason == "StartError")
            #expect(end?.message.contains("/no/such/program") == true)
        }
    }

    @Test func probesDecideReadinessAndRestarts() async throws {
        try await PodMachine.with { machine in
            try await machine.create(
                "changing", "exec sleep 1000",
                container: [
                    "readinessProbe": [
                        "exec": ["command": ["test", "-f", "/tmp/ready"]], "periodSeconds": 1, "failureThreshold": 1,
                    ]
                ])
            try await machine.wait("changing", "runs") { $0.status.phase == "Running" }
            #expect(try await machine.pod("changing").status.isReady == false)
            _ = try await machine.exec("changing", ["touch", "/tmp/ready"])
            try await machine.waitRunning("changing")
            _ = try await machine.exec("changing", ["rm", "/tmp/ready"])
            try await machine.wait("changing", "no longer ready") { !$0.status.isReady }

            try await machine.create(
                "served", "exec python3 -m http.server 8080 --directory /etc",
                container: [
                    "ports": [["name": "web", "containerPort": 8080]],
                    "startupProbe": ["httpGet": ["path": "/hostname", "port": "web"], "periodSeconds": 10],
                    "readinessProbe": ["tcpSocket": ["port": 8080], "periodSeconds": 10],
                ])
            try await machine.waitRunning("served")

            try await machine.create(
                "dead", "exec sleep 1000",
                container: ["livenessProbe": ["tcpSocket": ["port": 9], "periodSeconds": 1, "failureThreshold": 1]])
            let restarted = try await machine.wait("dead", "restarted") {
                ($0.status.containerStatuses.first?.restartCount ?? 0) > 0
            }
            #expect(
                restarted.status.containerStatuses.first?.lastState.terminated?.message.contains("liveness") == true)
        }
    }

    @Test func aProcessThatIgnoresItsEndIsKilledAfterTheGrace() async throws {
        try await PodMachine.with { machine in
            try await machine.create(
                "stubborn", "trap '' TERM; while true; do sleep 0.1; done", spec: ["terminationGracePeriodSeconds": 1])
            try await machine.waitRunning("stubborn")
            try await machine.delete("stubborn")
            try await machine.waitGone("stubborn")
            let left = try FileManager.default.contentsOfDirectory(atPath: machine.directory + "/pods")
            #expect(left.isEmpty, "nothing of the pod is left")
        }
    }

    @Test func servicesLeadToReadyPodsFromPodsAndFromTheHost() async throws {
        try await PodMachine.with { machine in
            let server =
                "exec python3 -c \"import http.server,socketserver\nclass H(http.server.BaseHTTPRequestHandler):\n"
                + " def do_GET(s):\n  s.send_response(200);s.end_headers();s.wfile.write(b'served')\n"
                + "http.server.HTTPServer(('',8080),H).serve_forever()\""
            try await machine.create(
                "web", server, container: ["readinessProbe": ["tcpSocket": ["port": 8080], "periodSeconds": 1]])
            try await machine.create("client", "exec sleep 1000")
            for (name, address) in [("web", nil), ("headless", "None" as JSONValue?)] {
                var spec: [String: JSONValue] = [
                    "selector": ["app": "web"], "ports": [["name": "http", "port": 80, "targetPort": 8080]],
                ]
                spec["clusterIP"] = address
                _ = try await machine.api.create(
                    .service,
                    KubernetesObject([
                        "apiVersion": "v1", "kind": "Service",
                        "metadata": ["name": .string(name), "namespace": "default"],
                        "spec": .object(spec),
                    ]))
            }
            try await machine.waitRunning("web")
            try await machine.waitRunning("client")
            let service: Kubernetes.Service = try await machine.api.get(.service, namespace: "default", name: "web")
                .view()
            let address = try #require(service.spec.clusterIP)
            // Rules follow the endpoints within milliseconds; the client's own retries bridge them.
            let curl = [
                "curl", "-sS", "--retry", "20", "--retry-delay", "0", "--retry-all-errors", "--retry-max-time", "10",
            ]
            #expect(try await machine.exec("client", curl + ["http://web/"]).output == "served")
            #expect(
                try await machine.exec("client", curl + ["http://web.default.svc.cluster.local/"]).output == "served")
            #expect(try await machine.exec("client", curl + ["http://headless:8080/"]).output == "served")
            #expect(
                try await machine.exec("web", curl + ["http://web.default/"]).output == "served",
                "a pod reaches itself through its Service")
            #expect(try TestTools.run("curl", ["-sS", "http://\(address)/"]).output == "served")
            let refused = try await machine.exec("client", ["curl", "-sS", "--max-time", "5", "http://\(address):81/"])
            #expect(refused.code == 7, "a port that no Service has is refused at once")
            #expect(try await machine.exec("client", ["getent", "hosts", "nothing"]).code == 2)
        }
    }

    @Test func podsComeBackWhenTheirSpawnerIsKilled() async throws {
        try await PodMachine.with { machine in
            try await machine.create("one", "exec sleep 1000")
            try await machine.waitRunning("one")
            for entry in try FileManager.default.contentsOfDirectory(atPath: "/proc") {
                let fields =
                    (try? String(contentsOfFile: "/proc/\(entry)/stat", encoding: .utf8))?.split(separator: " ") ?? []
                guard fields.count > 4, fields[1] == "(apus-spawner)", fields[3] == "\(getpid())", let id = Int32(entry)
                else { continue }
                kill(id, SIGKILL)
            }
            try await machine.wait("one", "restarted") {
                $0.status.isReady && ($0.status.containerStatuses.first?.restartCount ?? 0) > 0
            }
            #expect(try await machine.exec("one", ["echo", "back"]).output == "back\n")
        }
    }

    @Test func whatIsMadeIsRemoved() async throws {
        let before = Self.trace()
        try await PodMachine.with { machine in
            try await machine.create("one", "exec sleep 1000")
            try await machine.waitRunning("one")
            #expect(Self.trace() != before)
        }
        #expect(Self.trace() == before)
    }

    /// What the machine has of links, rules, namespaces and settings.
    private static func trace() -> [String] {
        let links = (try? TestTools.run("ip", ["-br", "link"]).output) ?? ""
        let tables = (try? TestTools.run("nft", ["list", "tables"]).output) ?? ""
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/run/netns")) ?? []
        let forwarding = (try? String(contentsOfFile: "/proc/sys/net/ipv4/ip_forward", encoding: .utf8)) ?? ""
        return [
            links.split(separator: "\n").map { String($0.prefix { $0 != " " }) }.joined(separator: " "), tables,
            forwarding,
        ]
            + names.filter { $0.hasPrefix("apus-") }.sorted()
    }
}
