import Foundation
import MeshAddress
import MeshKubernetes
import MeshLocal
import Testing

@Suite struct ControllerTests {
    private static func status(_ fixture: APIFixture, _ name: String, _ field: String) async throws -> Int {
        try await fixture.client.get(.deployment, namespace: "default", name: name).json[path: "status", field]?.int
            ?? 0
    }

    @Test func aDeploymentMakesItsPodsAndMovesToANewTemplate() async throws {
        try await APIFixture.run([.controllers, .kubelet]) { fixture in
            _ = try await fixture.client.create(.deployment, .deployment("web", replicas: 3))
            try await fixture.eventually("three are available") {
                try await Self.status(fixture, "web", "availableReplicas") == 3
            }
            let first = try await fixture.pods("default", "app=web")
            #expect(first.count == 3)
            #expect(first.allSatisfy { $0.labels["pod-template-hash"] != nil && $0.controller?.kind == "ReplicaSet" })
            _ = try await fixture.client.patch(
                .deployment, namespace: "default", name: "web", subresource: nil,
                .json([["op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"]]))
            try await fixture.eventually("all are of the new template") {
                let pods = try await fixture.pods("default", "app=web")
                return pods.count == 3 && pods.allSatisfy { $0.json["spec"]?["containers"]?[0]?["image"] == "other" }
            }
            try await fixture.eventually("the status says so") {
                let object = try await fixture.client.get(.deployment, namespace: "default", name: "web")
                let progressing = object.json[path: "status", "conditions"]?.array?.first {
                    $0["type"] == "Progressing"
                }
                return progressing?["reason"] == "NewReplicaSetAvailable"
                    && object.json[path: "status", "updatedReplicas"] == 3
                    && object.json[path: "status", "observedGeneration"] == object.json[path: "metadata", "generation"]
            }
            let sets = try await fixture.client.list(
                .replicaSet, namespace: "default", labelSelector: nil, fieldSelector: nil
            ).items
            #expect(Set(sets.compactMap { $0.annotations["deployment.kubernetes.io/revision"] }) == ["1", "2"])
        }
    }

    @Test func anUpdateThatDoesNotBecomeReadyLeavesTheOldPodsServing() async throws {
        try await APIFixture.run([.controllers, .kubelet]) { fixture in
            _ = try await fixture.client.create(.deployment, .deployment("web", replicas: 4))
            try await fixture.eventually("four are available") {
                try await Self.status(fixture, "web", "availableReplicas") == 4
            }
            _ = try await fixture.client.patch(
                .deployment, namespace: "default", name: "web", subresource: nil,
                .merge(["spec": ["template": ["metadata": ["annotations": ["test/fate": "unready"]]]]]))
            try await fixture.eventually("the update has begun") {
                try await Self.status(fixture, "web", "updatedReplicas") == 2
            }
            // 25% of four: one more, one less.
            try await fixture.eventually("one old one is gone") {
                try await Self.status(fixture, "web", "availableReplicas") == 3
            }
            #expect(try await fixture.pods("default", "app=web").filter { !$0.isTerminating }.count == 5)
        }
    }

    @Test func recreateStopsAllBeforeItStartsAny() async throws {
        try await APIFixture.run([.controllers, .kubelet]) { fixture in
            _ = try await fixture.client.create(
                .deployment, .deployment("web", replicas: 2, strategy: ["type": "Recreate"]))
            try await fixture.eventually("two are available") {
                try await Self.status(fixture, "web", "availableReplicas") == 2
            }
            let start = try await fixture.client.list(
                .pod, namespace: "default", labelSelector: nil, fieldSelector: nil)
            let watch = fixture.client.watch(
                .pod, namespace: "default", labelSelector: "app=web", fieldSelector: nil,
                resourceVersion: start.resourceVersion)
            async let order: [String] = {
                var order: [String] = []
                for try await event in watch where event.change == .added || event.change == .deleted {
                    order.append(event.change.rawValue)
                    if order.count == 4 { break }
                }
                return order
            }()
            _ = try await fixture.client.patch(
                .deployment, namespace: "default", name: "web", subresource: nil,
                .json([["op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"]]))
            #expect(try await order == ["DELETED", "DELETED", "ADDED", "ADDED"])
        }
    }

    @Test func aPodThatGoesIsReplacedAndScalingDownTakesTheUnreadyFirst() async throws {
        try await APIFixture.run([.controllers, .kubelet]) { fixture in
            _ = try await fixture.client.create(.deployment, .deployment("web", replicas: 2))
            try await fixture.eventually("two are available") {
                try await Self.status(fixture, "web", "availableReplicas") == 2
            }
            let victim = try #require(try await fixture.pods("default", "app=web").first)
            try await fixture.client.delete(
                .pod, namespace: "default", name: victim.name, gracePeriodSeconds: nil, uid: nil)
            try await fixture.eventually("it is replaced") {
                let pods = try await fixture.pods("default", "app=web")
                return pods.count == 2 && !pods.contains { $0.uid == victim.uid }
                    && pods.allSatisfy { !$0.isTerminating }
            }
            let pods = try await fixture.pods("default", "app=web")
            var unready = pods[0]
            unready.json[path: "status", "conditions"] = [["type": "Ready", "status": "False"]]
            unready.json[path: "metadata", "resourceVersion"] = nil
            _ = try await fixture.client.update(.pod, unready, subresource: "status")
            _ = try await fixture.client.patch(
                .deployment, namespace: "default", name: "web", subresource: nil, .merge(["spec": ["replicas": 1]]))
            try await fixture.eventually("one is left") { try await fixture.pods("default", "app=web").count == 1 }
            #expect(try await fixture.pods("default", "app=web").first?.uid == pods[1].uid)
        }
    }

    @Test func aDeploymentTakesEverythingItOwnsWithIt() async throws {
        try await APIFixture.run([.controllers, .kubelet]) { fixture in
            _ = try await fixture.client.create(.deployment, .deployment("web", replicas: 2))
            try await fixture.eventually("two are available") {
                try await Self.status(fixture, "web", "availableReplicas") == 2
            }
            try await fixture.client.delete(
                .deployment, namespace: "default", name: "web", gracePeriodSeconds: nil, uid: nil)
            try await fixture.eventually("nothing is left") {
                let sets = try await fixture.client.list(
                    .replicaSet, namespace: "default", labelSelector: nil, fieldSelector: nil)
                let pods = try await fixture.pods()
                return sets.items.isEmpty && pods.isEmpty
            }
        }
    }

    @Test func foregroundDeletionKeepsTheOwnerUntilTheLastDependentIsGone() async throws {
        try await APIFixture.run([.controllers]) { fixture in
            let owner = try await fixture.client.create(.configMap, .configMap("owner"))
            var dependent = KubernetesObject.configMap("dependent")
            dependent.json[path: "metadata", "ownerReferences"] = [
                ["apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": .string(owner.uid)]
            ]
            dependent.json[path: "metadata", "finalizers"] = ["example.com/hold"]
            _ = try await fixture.client.create(.configMap, dependent)
            _ = try await fixture.raw(
                "/api/v1/namespaces/default/configmaps/owner", method: "DELETE",
                body: ["propagationPolicy": "Foreground"])
            try await fixture.eventually("the dependent terminates") {
                try await fixture.client.get(.configMap, namespace: "default", name: "dependent").isTerminating
            }
            #expect(try await fixture.client.get(.configMap, namespace: "default", name: "owner").isTerminating)
            _ = try await fixture.client.patch(
                .configMap, namespace: "default", name: "dependent", subresource: nil,
                .merge(["metadata": ["finalizers": nil]]))
            try await fixture.eventually("both are gone") {
                let names = try await fixture.client.list(
                    .configMap, namespace: "default", labelSelector: nil, fieldSelector: nil
                ).items.map(\.name)
                return !names.contains("owner") && !names.contains("dependent")
            }
        }
    }

    @Test func orphansLiveOn() async throws {
        try await APIFixture.run([.controllers]) { fixture in
            let owner = try await fixture.client.create(.configMap, .configMap("owner"))
            var dependent = KubernetesObject.configMap("dependent")
            dependent.json[path: "metadata", "ownerReferences"] = [
                ["apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": .string(owner.uid)]
            ]
            _ = try await fixture.client.create(.configMap, dependent)
            _ = try await fixture.raw(
                "/api/v1/namespaces/default/configmaps/owner", method: "DELETE", body: ["propagationPolicy": "Orphan"])
            try await fixture.eventually("the owner is gone") {
                (try? await fixture.client.get(.configMap, namespace: "default", name: "owner")) == nil
            }
            #expect(try await fixture.client.get(.configMap, namespace: "default", name: "dependent").controller == nil)
            #expect(
                try await fixture.client.get(.configMap, namespace: "default", name: "dependent").json[
                    path: "metadata", "ownerReferences"] == nil)
        }
    }

    @Test func aJobRunsToItsCompletions() async throws {
        try await APIFixture.run([.controllers, .kubelet]) { fixture in
            func job(_ name: String, fate: JSONValue, _ more: JSONValue) -> KubernetesObject {
                var spec: JSONValue = [
                    "template": [
                        "metadata": ["annotations": ["test/fate": fate]],
                        "spec": ["restartPolicy": "Never", "containers": [["name": "main", "image": "host"]]],
                    ]
                ]
                for (field, value) in more.object ?? [:] { spec[field] = value }
                return KubernetesObject([
                    "apiVersion": "batch/v1", "kind": "Job",
                    "metadata": ["name": .string(name), "namespace": "default"], "spec": spec,
                ])
            }
            func condition(_ name: String, _ type: String) async throws -> JSONValue? {
                try await fixture.client.get(.job, namespace: "default", name: name).json[path: "status", "conditions"]?
                    .array?
                    .first { $0["type"]?.string == type && $0["status"] == "True" }
            }
            _ = try await fixture.client.create(
                .job, job("good", fate: "succeed", ["completions": 4, "parallelism": 2]))
            _ = try await fixture.client.create(.job, job("bad", fate: "fail", ["backoffLimit": 1]))
            _ = try await fixture.client.create(.job, job("short", fate: "succeed", ["ttlSecondsAfterFinished": 0]))
            try await fixture.eventually("the good one completes") { try await condition("good", "Complete") != nil }
            #expect(
                try await fixture.client.get(.job, namespace: "default", name: "good").json[path: "status", "succeeded"]
                    == 4)
            try await fixture.eventually("the bad one fails") {
                try await condition("bad", "Failed")?["reason"] == "BackoffLimitExceeded"
            }
            #expect(try await fixture.pods("default", "job-name=bad").count == 2)
            try await fixture.eventually("the short one and its pod are removed") {
                let job = try? await fixture.client.get(.job, namespace: "default", name: "short")
                let pods = try await fixture.pods("default", "job-name=short")
                return job == nil && pods.isEmpty
            }
        }
    }

    @Test func slicesFollowThePodsOfAService() async throws {
        try await APIFixture.run([.controllers]) { fixture in
            func endpoints() async throws -> [JSONValue] {
                try await fixture.client.list(
                    .endpointSlice, namespace: "default", labelSelector: "kubernetes.io/service-name=web",
                    fieldSelector: nil
                ).items.flatMap { $0.json["endpoints"]?.array ?? [] }
            }
            _ = try await fixture.client.create(
                .service,
                .service("web", spec: ["selector": ["app": "web"], "ports": [["port": 80, "targetPort": 8080]]]))
            let pod = try await fixture.client.create(.pod, .pod("a", labels: ["app": "web"]))
            var running = pod
            running.json["status"] = [
                "phase": "Running", "podIP": "10.97.0.5", "conditions": [["type": "Ready", "status": "True"]],
            ]
            running.json[path: "metadata", "resourceVersion"] = nil
            _ = try await fixture.client.update(.pod, running, subresource: "status")
            try await fixture.eventually("it is an endpoint") {
                try await endpoints().first?["addresses"] == ["10.97.0.5"]
            }
            try await fixture.client.delete(.pod, namespace: "default", name: "a", gracePeriodSeconds: nil, uid: nil)
            try await fixture.eventually("it is terminating but serves") {
                try await endpoints().first?["conditions"] == ["ready": false, "serving": true, "terminating": true]
            }
            try await fixture.client.delete(.pod, namespace: "default", name: "a", gracePeriodSeconds: 0, uid: nil)
            try await fixture.eventually("it is gone") { try await endpoints().isEmpty }
        }
    }

    @Test func aNamespaceTakesItsContentWithIt() async throws {
        try await APIFixture.run([.controllers, .kubelet]) { fixture in
            _ = try await fixture.client.create(
                .namespace, KubernetesObject(["apiVersion": "v1", "kind": "Namespace", "metadata": ["name": "shop"]]))
            try await fixture.eventually("it has its account and authority") {
                let account = try? await fixture.client.get(.serviceAccount, namespace: "shop", name: "default")
                let map = try? await fixture.client.get(.configMap, namespace: "shop", name: "kube-root-ca.crt")
                return account != nil && map?.json[path: "data", "ca.crt"]?.string == fixture.authorityPEM
            }
            var pod = KubernetesObject.pod("web")
            pod.json[path: "metadata", "namespace"] = "shop"
            _ = try await fixture.client.create(.pod, pod)
            try await fixture.client.delete(.namespace, namespace: nil, name: "shop", gracePeriodSeconds: nil, uid: nil)
            try await fixture.eventually("it is gone") {
                (try? await fixture.client.get(.namespace, namespace: nil, name: "shop")) == nil
            }
            #expect(try await fixture.pods("shop").isEmpty)
            await #expect {
                try await fixture.client.create(.configMap, .configMap("late", namespace: "shop"))
            } throws: {
                ($0 as? StatusError)?.code == 404
            }
        }
    }

    @Test func theAPIServerIsAServiceOfItsOwn() async throws {
        try await APIFixture.run { fixture in
            let service = try await fixture.client.get(.service, namespace: "default", name: "kubernetes")
            #expect(service.json[path: "spec", "clusterIP"] == "10.96.0.1")
            let slice = try await fixture.client.get(.endpointSlice, namespace: "default", name: "kubernetes")
            #expect(slice.json["ports"]?[0]?["port"]?.int == Int(fixture.server.port))
        }
    }
}
