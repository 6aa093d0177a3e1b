import MeshAddress
import MeshKubernetes

/// A pod's own facts, as `fieldRef` and the downward API name them. Pure.
struct DownwardFields: Sendable {
    var metadata: Kubernetes.ObjectMeta
    var spec: Kubernetes.PodSpec
    var podAddress: IPAddress
    var hostAddress: IPAddress
    var nodeName: String

    /// Nil for a path that the API does not define.
    func value(_ path: String) -> String? {
        switch path {
        case "metadata.name": metadata.name
        case "metadata.namespace": metadata.namespace
        case "metadata.uid": metadata.uid
        case "metadata.labels": listing(metadata.labels)
        case "metadata.annotations": listing(metadata.annotations)
        case "spec.nodeName": nodeName
        case "spec.serviceAccountName": spec.serviceAccountName ?? "default"
        case "status.podIP", "status.podIPs": "\(podAddress)"
        case "status.hostIP", "status.hostIPs": "\(hostAddress)"
        default:
            key(path, "metadata.labels", metadata.labels) ?? key(path, "metadata.annotations", metadata.annotations)
        }
    }

    /// `metadata.labels['app']`; empty when the pod has no such label.
    private func key(_ path: String, _ field: String, _ values: [String: String]) -> String? {
        guard path.hasPrefix(field + "['"), path.hasSuffix("']") else { return nil }
        return values[String(path.dropFirst(field.count + 2).dropLast(2))] ?? ""
    }

    /// One `key="value"` a line, by key, the value quoted as in C.
    private func listing(_ values: [String: String]) -> String {
        values.sorted { $0.key < $1.key }.map { key, value in
            let quoted = value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
            return "\(key)=\"\(quoted)\""
        }.joined(separator: "\n")
    }

    /// A container's limit or request, such as `limits.memory`, in units of the divisor, rounded up. What has no limit has the
    /// node's: its processors and memory.
    func resource(_ selector: Kubernetes.ResourceFieldSelector, container: String, _ node: NodeCapacity) -> String? {
        let name = selector.containerName ?? container
        guard let found = (spec.containers + spec.initContainers).first(where: { $0.name == name }) else { return nil }
        let parts = selector.resource.split(separator: ".", maxSplits: 1)
        guard parts.count == 2 else { return nil }
        let key = String(parts[1])
        let limit = found.resources.limits[key]
        let given = parts[0] == "limits" ? limit : parts[0] == "requests" ? found.resources.requests[key] ?? limit : nil
        let amount: Double
        switch (given?.value, parts[0], key) {
        case (let value?, _, _): amount = value
        case (nil, "limits", "cpu"): amount = Double(node.processors)
        case (nil, "limits", "memory"): amount = Double(node.memoryBytes)
        case (nil, "requests", "cpu"), (nil, "requests", "memory"): amount = 0
        default: return nil
        }
        var divisor = selector.divisor?.value ?? 1
        if divisor <= 0 { divisor = 1 }
        return Int64(exactly: (amount / divisor).rounded(.up)).map { "\($0)" }
    }
}

/// What the one node has.
struct NodeCapacity: Sendable, Hashable {
    var processors: Int
    var memoryBytes: Int64
}
