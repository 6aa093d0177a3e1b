import MeshKubernetes

/// What a Deployment's status says: pure.
enum DeploymentStatus {
    struct Counts: Hashable, Sendable {
        var wanted: Int
        var replicas: Int
        var updated: Int
        var ready: Int
        var available: Int
        var hasOld: Bool

        var isComplete: Bool { updated == wanted && replicas == wanted && available == wanted && !hasOld }
    }

    /// The next status, and after how many milliseconds it has to be looked at again because of the deadline.
    static func next(
        _ old: JSONValue, _ counts: Counts, generation: JSONValue, leastAvailable: Int, current: String?,
        deadlineSeconds: Int,
        now: KubernetesTime
    ) -> (status: JSONValue, waitMilliseconds: Int?) {
        var status: JSONValue = [
            "observedGeneration": generation, "replicas": .int(Int64(counts.replicas)),
            "updatedReplicas": .int(Int64(counts.updated)), "readyReplicas": .int(Int64(counts.ready)),
            "availableReplicas": .int(Int64(counts.available)),
            "unavailableReplicas": .int(Int64(max(counts.wanted - counts.available, 0))),
        ]
        status["collisionCount"] = old["collisionCount"]
        let hasProgressed =
            ["updatedReplicas", "readyReplicas", "availableReplicas"].contains {
                (status[$0]?.int ?? 0) > (old[$0]?.int ?? 0)
            } || (status["replicas"]?.int ?? 0) < (old["replicas"]?.int ?? 0) || old["observedGeneration"] != generation
        let enough = counts.available >= leastAvailable
        let available = condition(
            old, "Available", enough, enough ? "MinimumReplicasAvailable" : "MinimumReplicasUnavailable",
            enough ? "Deployment has minimum availability." : "Deployment does not have minimum availability.",
            hasProgressed, now)
        var wait: Int?
        let progressing: JSONValue
        let present = find(old, "Progressing")
        if counts.isComplete {
            progressing = condition(
                old, "Progressing", true, "NewReplicaSetAvailable",
                "ReplicaSet \"\(current ?? "")\" has successfully progressed.", false, now)
        } else {
            let last = present?["lastUpdateTime"]?.string.flatMap { KubernetesTime($0) } ?? now
            let wasComplete = present?["reason"] == "NewReplicaSetAvailable"
            let late = !hasProgressed && !wasComplete && now.seconds - last.seconds >= Int64(deadlineSeconds)
            let stays = !hasProgressed && present?["reason"] == "ProgressDeadlineExceeded"
            if late || stays {
                progressing = condition(
                    old, "Progressing", false, "ProgressDeadlineExceeded",
                    "ReplicaSet \"\(current ?? "")\" has timed out progressing.", false, now)
            } else {
                progressing = condition(
                    old, "Progressing", true, "ReplicaSetUpdated", "ReplicaSet \"\(current ?? "")\" is progressing.",
                    hasProgressed, now)
                let left = Int64(deadlineSeconds) - (hasProgressed ? 0 : now.seconds - last.seconds)
                wait = Int(min(max(left, 1), 3_600)) * 1_000
            }
        }
        status["conditions"] = [available, progressing]
        return (status, wait)
    }

    private static func find(_ status: JSONValue, _ type: String) -> JSONValue? {
        status["conditions"]?.array?.first { $0["type"]?.string == type }
    }

    /// A condition keeps its times while it stays the same.
    private static func condition(
        _ old: JSONValue, _ type: String, _ isTrue: Bool, _ reason: String, _ message: String, _ touched: Bool,
        _ now: KubernetesTime
    ) -> JSONValue {
        let present = find(old, type)
        let value: JSONValue = isTrue ? "True" : "False"
        let isSame =
            present?["status"] == value && present?["reason"]?.string == reason
            && present?["message"]?.string == message
        let stamp = JSONValue.string(now.description)
        let keepsUpdate = isSame && !(touched && type == "Progressing")
        return [
            "type": .string(type), "status": value, "reason": .string(reason), "message": .string(message),
            "lastUpdateTime": keepsUpdate ? present?["lastUpdateTime"] ?? stamp : stamp,
            "lastTransitionTime": present?["status"] == value ? present?["lastTransitionTime"] ?? stamp : stamp,
        ]
    }
}
