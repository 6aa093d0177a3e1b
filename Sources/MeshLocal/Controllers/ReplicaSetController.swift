import Logging
import MeshKubernetes

/// Keeps as many pods of a template as wanted.
struct ReplicaSetController: Sendable {
    var api: LocalAPI
    var logger: Logger
    private var owned: OwnedObjects { OwnedObjects(store: api.store) }
    /// Pods made or deleted at a time; the rest follows in the next round.
    private static let burst = 100
    /// Pods made or deleted side by side.
    private static let width = 16

    init(api: LocalAPI, logger: Logger) {
        self.api = api
        self.logger = logger
    }

    func run() async throws {
        try await ControlLoop(
            name: "replicaset", api: api, logger: logger, workers: 4,
            triggers: [.itself(.replicaSet), .controller(of: .pod, is: .replicaSet)], reconcile: reconcile
        ).run()
    }

    private func reconcile(_ key: ObjectKey) async throws -> Int? {
        guard let set = owned.object(key), !set.isTerminating else { return nil }
        let wanted = set.json[path: "spec", "replicas"]?.int ?? 1
        let pods = owned.objects(.pod, namespace: key.namespace, controlledBy: set.uid)
        let active = pods.map(PodState.init).filter(\.isActive)
        var failure: StatusError?
        if active.count < wanted {
            failure = await create(min(wanted - active.count, Self.burst), for: set)
        } else if active.count > wanted {
            let extra = active.sorted(by: PodState.isDeletedBefore).prefix(min(active.count - wanted, Self.burst))
            await delete(Array(extra), namespace: key.namespace)
        }
        let wait = try await writeStatus(key, failure: failure)
        if let failure { throw failure }
        return wait
    }

    private func create(_ count: Int, for set: KubernetesObject) async -> StatusError? {
        let recorder = EventRecorder(api: api, component: "replicaset-controller")
        let pod = OwnedObjects.pod(
            from: set.json[path: "spec", "template"], generateName: set.name + "-", namespace: set.namespace ?? "",
            owner: set)
        // The first one is made alone: when it is refused, the others would be too.
        do {
            _ = try await api.create(.pod, pod)
        } catch {
            let failure = error as? StatusError ?? .internalError("\(error)")
            await recorder.record(set, isWarning: true, reason: "FailedCreate", "Error creating: \(failure.message)")
            return failure
        }
        return await withTaskGroup(of: StatusError?.self) { group in
            var failure: StatusError?
            for index in 1..<max(count, 1) {
                if index > Self.width, let failed = await group.next() ?? nil { failure = failed }
                group.addTask {
                    do {
                        _ = try await api.create(.pod, pod)
                        return nil
                    } catch {
                        return error as? StatusError ?? .internalError("\(error)")
                    }
                }
            }
            for await failed in group { failure = failed ?? failure }
            return failure
        }
    }

    private func delete(_ pods: [PodState], namespace: String) async {
        await withDiscardingTaskGroup { group in
            for pod in pods {
                group.addTask {
                    // A pod that has gone by itself is as good.
                    _ = try? await api.delete(
                        .pod, namespace: namespace, name: pod.name, gracePeriodSeconds: nil, uid: pod.uid)
                }
            }
        }
    }

    private func writeStatus(_ key: ObjectKey, failure: StatusError?) async throws -> Int? {
        guard let set = owned.object(key) else { return nil }
        let minReady = set.json[path: "spec", "minReadySeconds"]?.int ?? 0
        let now = KubernetesTime.now.seconds
        let active = owned.objects(.pod, namespace: key.namespace, controlledBy: set.uid).map(PodState.init).filter(
            \.isActive)
        let ready = active.filter(\.isReady)
        let available = ready.filter { $0.isAvailable(minReadySeconds: minReady, nowSeconds: now) }
        var status: JSONValue = [
            "replicas": .int(Int64(active.count)), "fullyLabeledReplicas": .int(Int64(active.count)),
            "readyReplicas": .int(Int64(ready.count)), "availableReplicas": .int(Int64(available.count)),
            "observedGeneration": set.json[path: "metadata", "generation"] ?? 1,
        ]
        if let failure {
            let present = set.json[path: "status", "conditions"]?.array?.first { $0["type"] == "ReplicaFailure" }
            status["conditions"] = [
                [
                    "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                    "message": .string(failure.message),
                    "lastTransitionTime": present?["lastTransitionTime"] ?? .string(KubernetesTime.now.description),
                ]
            ]
        }
        if set.json["status"] != status {
            var changed = set
            changed.json["status"] = status
            changed.json[path: "metadata", "resourceVersion"] = nil
            _ = try await api.update(.replicaSet, changed, subresource: "status")
        }
        return ready.count > available.count ? 1_000 : nil
    }
}
