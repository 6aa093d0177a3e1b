import Logging
import MeshKubernetes

/// Moves a Deployment from one template to the next: a ReplicaSet for each, scaled step by step.
struct DeploymentController: Sendable {
    var api: LocalAPI
    var logger: Logger
    private var owned: OwnedObjects { OwnedObjects(store: api.store) }

    static let hashLabel = "pod-template-hash"
    static let revisionAnnotation = "deployment.kubernetes.io/revision"

    init(api: LocalAPI, logger: Logger) {
        self.api = api
        self.logger = logger
    }

    func run() async throws {
        let store = api.store
        // A change of a pod concerns the Deployment above its ReplicaSet: availability is counted from the pods themselves.
        let pods = ControlLoop.Trigger(kind: .pod) { event in
            guard let controller = event.stored.object.controller, controller.kind == "ReplicaSet",
                let set = store.object(
                    ObjectKey(.replicaSet, namespace: event.stored.key.namespace, name: controller.name))?.object,
                let owner = set.controller, owner.kind == "Deployment"
            else { return [] }
            return [ObjectKey(.deployment, namespace: event.stored.key.namespace, name: owner.name)]
        }
        try await ControlLoop(
            name: "deployment", api: api, logger: logger,
            triggers: [.itself(.deployment), .controller(of: .replicaSet, is: .deployment), pods], reconcile: reconcile
        ).run()
    }

    /// A ReplicaSet with its pods, as one round sees them.
    private struct Revision {
        var replicaSet: KubernetesObject
        var pods: [PodState]
        var minReadySeconds: Int

        var replicas: Int { replicaSet.json[path: "spec", "replicas"]?.int ?? 1 }
        var number: Int {
            replicaSet.annotations[DeploymentController.revisionAnnotation].flatMap { Int($0) }.map {
                min(max($0, 0), 1_000_000_000)
            } ?? 0
        }
        var active: [PodState] { pods.filter(\.isActive) }

        func available(_ now: Int64) -> Int {
            pods.count { $0.isAvailable(minReadySeconds: minReadySeconds, nowSeconds: now) }
        }

        func plan(_ now: Int64) -> RollingUpdate.Revision {
            RollingUpdate.Revision(name: replicaSet.name, replicas: replicas, available: available(now))
        }
    }

    private func reconcile(_ key: ObjectKey) async throws -> Int? {
        guard let deployment = owned.object(key), !deployment.isTerminating else { return nil }
        var (current, old) = revisions(of: deployment)
        let isPaused = deployment.json[path: "spec", "paused"]?.bool == true
        var created = false
        if current == nil, !isPaused {
            if deployment.json[path: "spec", "strategy", "type"] == "Recreate", try await stopAll(old, deployment) {
                return try await writeStatus(key, created: false)
            }
            current = try await makeRevision(of: deployment, after: old)
            created = true
        }
        guard let current else {
            try await scalePaused(nil, old, deployment)
            return try await writeStatus(key, created: false)
        }
        if isPaused {
            try await scalePaused(current, old, deployment)
            return try await writeStatus(key, created: created)
        }
        try await renumber(current, old, deployment)
        let now = KubernetesTime.now.seconds
        let wanted = deployment.json[path: "spec", "replicas"]?.int ?? 1
        if deployment.json[path: "spec", "strategy", "type"] == "Recreate" {
            if try await !stopAll(old, deployment), current.replicas != wanted {
                try await scale(current, to: wanted, deployment)
            }
        } else {
            let next = update(deployment).step(new: current.plan(now), old: old.map { $0.plan(now) })
            for revision in [current] + old {
                if let replicas = next[revision.replicaSet.name] { try await scale(revision, to: replicas, deployment) }
            }
        }
        try await removeHistory(of: deployment, current: current, old)
        return try await writeStatus(key, created: created)
    }

    private func update(_ deployment: KubernetesObject) -> RollingUpdate {
        func value(_ field: String) -> IntOrString {
            (try? deployment.json[path: "spec", "strategy", "rollingUpdate", field]?.decoded()) ?? .string("25%")
        }
        return RollingUpdate(
            replicas: deployment.json[path: "spec", "replicas"]?.int ?? 1, maxSurge: value("maxSurge"),
            maxUnavailable: value("maxUnavailable"))
    }

    // MARK: - Revisions

    /// The ReplicaSet of the present template, and the others by age.
    private func revisions(of deployment: KubernetesObject) -> (current: Revision?, old: [Revision]) {
        let namespace = deployment.namespace ?? ""
        let minReady = deployment.json[path: "spec", "minReadySeconds"]?.int ?? 0
        let pods = Dictionary(
            grouping: api.store.objects(of: ResourceKind.pod.storageName, namespace: namespace).objects.map(\.object),
            by: { $0.controller?.uid ?? "" })
        let all = owned.objects(.replicaSet, namespace: namespace, controlledBy: deployment.uid)
            .filter { !$0.isTerminating }
            .sorted {
                ($0.json[path: "metadata", "creationTimestamp"]?.string ?? "", $0.name) < (
                    $1.json[path: "metadata", "creationTimestamp"]?.string ?? "", $1.name
                )
            }
            .map { Revision(replicaSet: $0, pods: (pods[$0.uid] ?? []).map(PodState.init), minReadySeconds: minReady) }
        let template = Self.bare(deployment.json[path: "spec", "template"])
        let index = all.firstIndex { Self.bare($0.replicaSet.json[path: "spec", "template"]) == template }
        return (index.map { all[$0] }, all.enumerated().filter { $0.offset != index }.map(\.element))
    }

    /// A template without what the controller adds to it.
    static func bare(_ template: JSONValue?) -> JSONValue {
        var bare = template ?? [:]
        bare[path: "metadata", "labels", hashLabel] = nil
        bare[path: "metadata", "creationTimestamp"] = nil
        return bare
    }

    private func makeRevision(of deployment: KubernetesObject, after old: [Revision]) async throws -> Revision {
        let template = deployment.json[path: "spec", "template"] ?? [:]
        let collisions = deployment.json[path: "status", "collisionCount"]?.int ?? 0
        let text = String(decoding: Self.bare(template).data(), as: UTF8.self)
        let hash = StableHash.name(collisions == 0 ? text : "\(text)#\(collisions)")
        var labeled = template
        labeled[path: "metadata", "labels", Self.hashLabel] = .string(hash)
        var selector = deployment.json[path: "spec", "selector"] ?? [:]
        selector[path: "matchLabels", Self.hashLabel] = .string(hash)
        let minReady = deployment.json[path: "spec", "minReadySeconds"]?.int ?? 0
        let first =
            deployment.json[path: "spec", "strategy", "type"] == "Recreate"
            ? deployment.json[path: "spec", "replicas"]?.int ?? 1
            : update(deployment).step(
                new: .init(name: "", replicas: 0, available: 0),
                old: old.map { $0.plan(KubernetesTime.now.seconds) })[""] ?? 0
        var spec: JSONValue = ["replicas": .int(Int64(first)), "selector": selector, "template": labeled]
        if minReady > 0 { spec["minReadySeconds"] = .int(Int64(minReady)) }
        let name = "\(deployment.name)-\(hash)"
        let number = (old.map(\.number).max() ?? 0) + 1
        var annotations = deployment.json[path: "metadata", "annotations"] ?? [:]
        annotations["kubectl.kubernetes.io/last-applied-configuration"] = nil
        annotations[Self.revisionAnnotation] = .string(String(number))
        do {
            let set = try await api.create(
                .replicaSet,
                KubernetesObject([
                    "apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "metadata": [
                        "name": .string(name), "namespace": .string(deployment.namespace ?? ""),
                        "labels": labeled[path: "metadata", "labels"] ?? [:], "annotations": annotations,
                        "ownerReferences": [OwnedObjects.reference(to: deployment)],
                    ], "spec": spec,
                ]))
            await EventRecorder(api: api, component: "deployment-controller").record(
                deployment, isWarning: false, reason: "ScalingReplicaSet",
                "Scaled up replica set \(name) from 0 to \(first)")
            return Revision(replicaSet: set, pods: [], minReadySeconds: minReady)
        } catch let error as StatusError where error.reason == "AlreadyExists" {
            // Another template has the same hash: the next round uses another one.
            _ = try await api.patch(
                .deployment, namespace: deployment.namespace, name: deployment.name, subresource: "status",
                .merge(["status": ["collisionCount": .int(Int64(collisions &+ 1))]]))
            throw error
        }
    }

    /// The current revision has the highest number, also after a step back to an older template.
    private func renumber(_ current: Revision, _ old: [Revision], _ deployment: KubernetesObject) async throws {
        let number = max((old.map(\.number).max() ?? 0) + 1, current.number)
        guard
            String(number) != current.replicaSet.annotations[Self.revisionAnnotation]
                || deployment.annotations[Self.revisionAnnotation] != String(number)
        else { return }
        let change: JSONValue = ["metadata": ["annotations": [Self.revisionAnnotation: .string(String(number))]]]
        for (kind, name) in [(ResourceKind.replicaSet, current.replicaSet.name), (.deployment, deployment.name)] {
            _ = try await api.patch(kind, namespace: deployment.namespace, name: name, subresource: nil, .merge(change))
        }
    }

    private func removeHistory(of deployment: KubernetesObject, current: Revision, _ old: [Revision]) async throws {
        let limit = deployment.json[path: "spec", "revisionHistoryLimit"]?.int ?? 10
        let idle = old.filter { $0.replicas == 0 && $0.pods.isEmpty }.sorted { $0.number < $1.number }
        for revision in idle.prefix(max(idle.count - limit, 0)) {
            try await api.delete(
                .replicaSet, namespace: deployment.namespace, name: revision.replicaSet.name, gracePeriodSeconds: nil,
                uid: revision.replicaSet.uid)
        }
    }

    // MARK: - Scaling

    private func scale(_ revision: Revision, to replicas: Int, _ deployment: KubernetesObject) async throws {
        guard replicas != revision.replicas else { return }
        _ = try await api.patch(
            .replicaSet, namespace: deployment.namespace, name: revision.replicaSet.name, subresource: nil,
            .merge(["spec": ["replicas": .int(Int64(replicas))]]))
        await EventRecorder(api: api, component: "deployment-controller").record(
            deployment, isWarning: false, reason: "ScalingReplicaSet",
            "Scaled \(replicas > revision.replicas ? "up" : "down") replica set \(revision.replicaSet.name) from \(revision.replicas) to \(replicas)"
        )
    }

    /// A paused Deployment still has as many pods as wanted, of the revision that has most.
    private func scalePaused(_ current: Revision?, _ old: [Revision], _ deployment: KubernetesObject) async throws {
        let wanted = deployment.json[path: "spec", "replicas"]?.int ?? 1
        let active = ([current].compactMap { $0 } + old).filter { $0.replicas > 0 }
        guard active.count <= 1, let only = active.first ?? current ?? old.last else { return }
        try await scale(only, to: wanted, deployment)
    }

    /// Recreate: true while pods of old revisions are there.
    private func stopAll(_ old: [Revision], _ deployment: KubernetesObject) async throws -> Bool {
        for revision in old { try await scale(revision, to: 0, deployment) }
        return old.contains { $0.pods.contains { !$0.isFinished } }
    }

    // MARK: - Status

    private func writeStatus(_ key: ObjectKey, created: Bool) async throws -> Int? {
        guard let deployment = owned.object(key) else { return nil }
        let (current, old) = revisions(of: deployment)
        let now = KubernetesTime.now
        let all = ([current].compactMap { $0 } + old)
        let counts = DeploymentStatus.Counts(
            wanted: deployment.json[path: "spec", "replicas"]?.int ?? 1,
            replicas: all.reduce(0) { $0 + $1.active.count },
            updated: current?.active.count ?? 0,
            ready: all.reduce(0) { $0 + $1.active.count(where: \.isReady) },
            available: all.reduce(0) { $0 + $1.available(now.seconds) },
            // Pods that were to go but are still there have not been replaced yet.
            hasOld: old.contains { $0.replicas > 0 || !$0.active.isEmpty })
        let (status, wait) = DeploymentStatus.next(
            deployment.json["status"] ?? [:], counts, generation: deployment.json[path: "metadata", "generation"] ?? 1,
            leastAvailable: counts.wanted - update(deployment).maxUnavailable, current: current?.replicaSet.name,
            deadlineSeconds: deployment.json[path: "spec", "progressDeadlineSeconds"]?.int ?? 600, now: now)
        if deployment.json["status"] != status {
            var changed = deployment
            changed.json["status"] = status
            changed.json[path: "metadata", "resourceVersion"] = nil
            _ = try await api.update(.deployment, changed, subresource: "status")
        }
        return counts.ready > counts.available ? 1_000 : wait
    }
}
