import MeshKubernetes

/// What controllers read of the objects that they look after, straight from the storage.
struct OwnedObjects: Sendable {
    var store: ObjectStore

    func object(_ key: ObjectKey) -> KubernetesObject? { store.object(key)?.object }

    /// The objects of a kind whose controller has this uid.
    func objects(_ kind: ResourceKind, namespace: String, controlledBy uid: String) -> [KubernetesObject] {
        store.objects(of: kind.storageName, namespace: namespace).objects.map(\.object).filter {
            $0.controller?.uid == uid
        }
    }

    static func reference(to owner: KubernetesObject) -> JSONValue {
        [
            "apiVersion": .string(owner.apiVersion), "kind": .string(owner.kind), "name": .string(owner.name),
            "uid": .string(owner.uid), "controller": true, "blockOwnerDeletion": true,
        ]
    }

    /// The pod that a template describes.
    static func pod(from template: JSONValue?, generateName: String, namespace: String, owner: KubernetesObject)
        -> KubernetesObject
    {
        var metadata: JSONValue = [
            "generateName": .string(generateName), "namespace": .string(namespace),
            "ownerReferences": [reference(to: owner)],
        ]
        for field in ["labels", "annotations", "finalizers"] { metadata[field] = template?[path: "metadata", field] }
        return KubernetesObject([
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template?["spec"] ?? [:],
        ])
    }
}

/// A pod as controllers count it.
struct PodState: Hashable, Sendable {
    var name: String
    var uid: String
    var phase: String
    var isTerminating: Bool
    var isReady: Bool
    /// Since when, in seconds since 1970; nil when it is not.
    var readySinceSeconds: Int64?
    var createdSeconds: Int64
    var restarts: Int
    var isScheduled: Bool

    init(_ pod: KubernetesObject) {
        name = pod.name
        uid = pod.uid
        phase = pod.json[path: "status", "phase"]?.string ?? "Pending"
        isTerminating = pod.isTerminating
        let ready = pod.json[path: "status", "conditions"]?.array?.first { $0["type"] == "Ready" }
        isReady = ready?["status"] == "True"
        readySinceSeconds =
            isReady ? ready?["lastTransitionTime"]?.string.flatMap { KubernetesTime($0) }?.seconds ?? 0 : nil
        createdSeconds =
            pod.json[path: "metadata", "creationTimestamp"]?.string.flatMap { KubernetesTime($0) }?.seconds ?? 0
        // A status says what its writer wants: numbers are held where sums of them stay numbers.
        restarts = (pod.json[path: "status", "containerStatuses"]?.array ?? []).prefix(1_000)
            .reduce(0) { $0 + min(max($1["restartCount"]?.int ?? 0, 0), 1_000_000) }
        isScheduled = pod.json[path: "spec", "nodeName"]?.string?.isEmpty == false
    }

    var isFinished: Bool { phase == "Succeeded" || phase == "Failed" }
    /// Counts for the wanted number.
    var isActive: Bool { !isTerminating && !isFinished }

    func isAvailable(minReadySeconds: Int, nowSeconds: Int64) -> Bool {
        guard let since = readySinceSeconds, isActive else { return false }
        return minReadySeconds == 0 || nowSeconds - since >= Int64(minReadySeconds)
    }

    /// Whom to delete first when there are too many: who serves least, then who is new.
    static func isDeletedBefore(_ left: PodState, _ right: PodState) -> Bool {
        func rank(_ pod: PodState) -> [Int64] {
            let phase: Int64 = pod.phase == "Pending" ? 0 : pod.phase == "Unknown" ? 1 : 2
            // Of the ready ones the one that became ready last goes first, and so on for restarts and age.
            return [
                pod.isScheduled ? 1 : 0, phase, pod.isReady ? 1 : 0, -(pod.readySinceSeconds ?? 0),
                -Int64(pod.restarts),
                -pod.createdSeconds,
            ]
        }
        for (left, right) in zip(rank(left), rank(right)) where left != right { return left < right }
        return left.name < right.name
    }
}
