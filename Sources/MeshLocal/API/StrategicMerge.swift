package import MeshKubernetes

/// The document of a PATCH, by its content type.
enum PatchDocument: Sendable {
    case merge(JSONValue)
    case json(JSONValue)
    /// `application/strategic-merge-patch+json`: what kubectl sends for the kinds that it knows.
    case strategic(JSONValue)

    func applied(to document: JSONValue) throws -> JSONValue {
        do {
            switch self {
            case .merge(let patch): return MergePatch.apply(patch, to: document)
            case .json(let patch): return try JSONPatch(json: patch).applied(to: document)
            case .strategic(let patch): return StrategicMerge.apply(patch, to: document)
            }
        } catch {
            throw StatusError(code: 422, reason: "Invalid", message: "the patch cannot be applied: \(error)")
        }
    }

    /// The version that the patch insists on.
    var resourceVersion: String? {
        switch self {
        case .merge(let patch), .strategic(let patch): patch[path: "metadata", "resourceVersion"]?.string
        case .json: nil
        }
    }
}

/// Kubernetes' merge by meaning: a list whose elements have a key is merged element by element, and directives
/// (`$patch`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`, `$retainKeys`) say what merging alone cannot.
package enum StrategicMerge {
    private static let depthLimit = 128

    /// The member that tells the elements of a list apart, for lists whose elements have one.
    private static let keys: [String: [String]] = [
        "containers": ["name"], "initContainers": ["name"], "volumes": ["name"], "env": ["name"],
        "volumeMounts": ["mountPath"],
        "ports": ["containerPort", "port"], "conditions": ["type"], "ownerReferences": ["uid"], "hostAliases": ["ip"],
        "imagePullSecrets": ["name"], "secrets": ["name"], "webhooks": ["name"],
        "topologySpreadConstraints": ["topologyKey"],
    ]
    private static let sets: Set<String> = ["finalizers"]

    package static func apply(_ patch: JSONValue, to target: JSONValue) -> JSONValue {
        merge(patch, into: target, depth: 0)
    }

    private static func merge(_ patch: JSONValue, into target: JSONValue, depth: Int) -> JSONValue {
        guard depth < depthLimit, case .object(let members) = patch else { return patch }
        if members["$patch"] == "replace" { return .object(members.filter { !$0.key.hasPrefix("$") }) }
        if members["$patch"] == "delete" { return [:] }
        var result = target.object ?? [:]
        if let retained = members["$retainKeys"]?.array?.compactMap(\.string) {
            result = result.filter { retained.contains($0.key) }
        }
        for (name, value) in members where !name.hasPrefix("$") {
            switch value {
            case .null: result[name] = nil
            case .array(let elements):
                result[name] = list(elements, into: result[name]?.array ?? [], name, depth: depth)
            case .object: result[name] = merge(value, into: result[name] ?? [:], depth: depth + 1)
            default: result[name] = value
            }
        }
        for (name, value) in members where name.hasPrefix("$deleteFromPrimitiveList/") {
            let list = String(name.dropFirst("$deleteFromPrimitiveList/".count))
            let gone = value.array ?? []
            if let elements = result[list]?.array { result[list] = .array(elements.filter { !gone.contains($0) }) }
        }
        for (name, value) in members where name.hasPrefix("$setElementOrder/") {
            let list = String(name.dropFirst("$setElementOrder/".count))
            if let elements = result[list]?.array {
                result[list] = .array(ordered(elements, by: value.array ?? [], list))
            }
        }
        return .object(result)
    }

    private static func list(_ patch: [JSONValue], into target: [JSONValue], _ name: String, depth: Int) -> JSONValue {
        if sets.contains(name) { return .array(target + patch.filter { !target.contains($0) }) }
        guard let candidates = keys[name],
            let key = candidates.first(where: { key in patch.contains { $0[key] != nil } })
        else {
            return .array(patch)
        }
        if patch.contains(where: { $0["$patch"] == "replace" }) {
            return .array(patch.filter { $0["$patch"] == nil })
        }
        var result = target
        for element in patch {
            let index = result.firstIndex { $0[key] != nil && $0[key] == element[key] }
            if element["$patch"] == "delete" {
                if let index { result.remove(at: index) }
            } else if let index {
                result[index] = merge(element, into: result[index], depth: depth + 1)
            } else {
                result.append(merge(element, into: [:], depth: depth + 1))
            }
        }
        return .array(result)
    }

    /// The elements that the order names come in that order; those that it does not name, such as what admission added, stay where they are.
    private static func ordered(_ elements: [JSONValue], by order: [JSONValue], _ name: String) -> [JSONValue] {
        let key = (keys[name] ?? []).first { key in order.contains { $0[key] != nil } }
        func place(_ element: JSONValue) -> Int? {
            order.firstIndex { wanted in key.map { wanted[$0] == element[$0] } ?? (wanted == element) }
        }
        let named = elements.enumerated().compactMap { index, element in place(element).map { (index, $0, element) } }
        let inOrder = named.sorted { ($0.1, $0.0) < ($1.1, $1.0) }
        var result = elements
        for (slot, source) in zip(named, inOrder) { result[slot.0] = source.2 }
        return result
    }
}
