import Logging
import MeshAddress
import MeshKubernetes

/// Writes Events about pods. The same event again within the window only raises its count; a pod that has many different
/// ones is silenced until the window ends.
actor PodEvents {
    private struct Key: Hashable {
        var uid: String
        var reason: String
        var message: String
    }
    private struct Known {
        var name: String
        var count: Int
        var seen: KubernetesTime
    }

    private static let windowSeconds: Int64 = 600
    private static let limitPerPod = 50
    private static let limit = 4096

    private let api: any KubernetesAPI
    private let nodeName: String
    private let log: Logger
    private var known: [Key: Known] = [:]
    private var countByPod: [String: Int] = [:]
    /// Events that were not written because of a limit.
    private(set) var silenced = 0

    init(api: any KubernetesAPI, nodeName: String, log: Logger) {
        self.api = api
        self.nodeName = nodeName
        self.log = log
    }

    nonisolated func record(
        _ pod: PodReference, container: String?, isWarning: Bool, _ reason: String, _ message: String
    ) {
        Task { await write(pod, container, isWarning, reason, message) }
    }

    private func write(
        _ pod: PodReference, _ container: String?, _ isWarning: Bool, _ reason: String, _ message: String
    ) async {
        let now = KubernetesTime.now
        let text = String(message.prefix(1024))
        let key = Key(uid: pod.uid, reason: reason, message: text)
        if let former = known[key], now.seconds - former.seen.seconds < PodEvents.windowSeconds {
            known[key] = Known(name: former.name, count: former.count + 1, seen: now)
            let change: JSONValue = ["count": .int(Int64(former.count + 1)), "lastTimestamp": .string("\(now)")]
            _ = try? await api.patch(
                .event, namespace: pod.namespace, name: former.name, subresource: nil, .merge(change))
            return
        }
        if known.count >= PodEvents.limit { forgetOld(now) }
        guard known.count < PodEvents.limit, countByPod[pod.uid, default: 0] < PodEvents.limitPerPod else {
            silenced += 1
            return
        }
        let suffix = String(UInt64(now.seconds) &* 1_000_000 &+ UInt64(now.microseconds), radix: 16)
        let random = String(UInt16.random(in: .min ... .max), radix: 16)
        let name = "\(pod.name.prefix(200)).\(suffix)\(random)"
        known[key] = Known(name: name, count: 1, seen: now)
        countByPod[pod.uid, default: 0] += 1
        var involved: JSONValue = [
            "apiVersion": "v1", "kind": "Pod", "namespace": .string(pod.namespace), "name": .string(pod.name),
            "uid": .string(pod.uid),
        ]
        if let container { involved["fieldPath"] = .string("spec.containers{\(container)}") }
        let event: JSONValue = [
            "apiVersion": "v1", "kind": "Event",
            "metadata": ["name": .string(name), "namespace": .string(pod.namespace)],
            "involvedObject": involved, "reason": .string(reason), "message": .string(text),
            "type": isWarning ? "Warning" : "Normal", "count": 1, "firstTimestamp": .string("\(now)"),
            "lastTimestamp": .string("\(now)"), "source": ["component": "kubelet", "host": .string(nodeName)],
        ]
        do {
            _ = try await api.create(.event, KubernetesObject(event))
        } catch {
            log.debug(
                "an Event was not written", metadata: ["pod": "\(pod.namespace)/\(pod.name)", "reason": "\(error)"])
        }
    }

    private func forgetOld(_ now: KubernetesTime) {
        for (key, value) in known where now.seconds - value.seen.seconds >= PodEvents.windowSeconds { forget(key) }
    }

    private func forget(_ key: Key) {
        known[key] = nil
        let count = countByPod[key.uid, default: 1] - 1
        countByPod[key.uid] = count > 0 ? count : nil
    }

    /// The pod is gone.
    func forget(pod uid: String) {
        for key in known.keys where key.uid == uid { forget(key) }
    }
}
