package import MeshKubernetes

/// Turns what a user types (`pods`, `po`, `Pod`, `deployment/web`, a kind that a CustomResourceDefinition declares) into kinds and names.
package struct ResourceCatalog {
    package let kinds: [ResourceKind]

    private static let others: [ResourceKind] = [
        .replicaSet, .statefulSet, .daemonSet, .cronJob, .role, .roleBinding, .clusterRole, .clusterRoleBinding,
    ]

    /// What both platforms serve, and what this one's CustomResourceDefinitions declare.
    static func load(_ client: KubernetesClient) async throws -> ResourceCatalog {
        let definitions = try await client.list(
            .customResourceDefinition, namespace: nil, labelSelector: nil, fieldSelector: nil
        ).items
        return ResourceCatalog(kinds: ResourceKind.builtIn + others + definitions.compactMap(declared))
    }

    package static let builtIn = ResourceCatalog(kinds: ResourceKind.builtIn + others)

    private static func declared(_ definition: KubernetesObject) -> ResourceKind? {
        let spec = definition.json["spec"]
        let versions = spec?["versions"]?.array ?? []
        guard let group = spec?["group"]?.string, let kind = spec?["names"]?["kind"]?.string,
            let plural = spec?["names"]?["plural"]?.string,
            let version = versions.first(where: { $0["served"]?.bool == true })?["name"]?.string
        else { return nil }
        return ResourceKind(
            group: group, version: version, kind: kind, plural: plural,
            isNamespaced: spec?["scope"]?.string == "Namespaced",
            shortNames: (spec?["names"]?["shortNames"]?.array ?? []).compactMap(\.string))
    }

    func kind(named word: String) throws -> ResourceKind {
        let word = word.lowercased()
        let found = kinds.first {
            $0.plural == word || $0.kind.lowercased() == word || $0.shortNames.contains(word)
                || "\($0.plural).\($0.group)" == word
        }
        guard let found else {
            throw CommandFailure(
                "the platform has no resource type '\(word)'; it has: \(kinds.map(\.plural).sorted().joined(separator: ", "))"
            )
        }
        return found
    }

    func kind(of object: KubernetesObject) throws -> ResourceKind {
        if let found = kinds.first(where: { $0.kind == object.kind && $0.apiVersion == object.apiVersion }) {
            return found
        }
        throw CommandFailure("the platform does not serve '\(object.kind)' of '\(object.apiVersion)'")
    }

    /// `TYPE`, `TYPE NAME…` or `TYPE/NAME…`.
    package func parse(_ words: [String]) throws -> [(kind: ResourceKind, name: String?)] {
        guard let first = words.first else { throw CommandFailure("name a resource type, such as 'pods'") }
        if first.contains("/") {
            return try words.map { word in
                let parts = word.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                guard parts.count == 2, !parts[1].isEmpty else { throw CommandFailure("'\(word)' is not TYPE/NAME") }
                return (try kind(named: parts[0]), parts[1])
            }
        }
        let kinds = try first.split(separator: ",").map { try kind(named: String($0)) }
        if words.count == 1 { return kinds.map { ($0, nil) } }
        guard kinds.count == 1, let kind = kinds.first else {
            throw CommandFailure("names can be given for one resource type only")
        }
        return words.dropFirst().map { (kind, $0) }
    }
}

/// The pod that a user names: `web-1`, `pod/web-1`, or the newest ready one of `deployment/web` and its like.
struct PodReferenceResolver {
    let client: KubernetesClient

    func pod(_ word: String, namespace: String) async throws -> KubernetesObject {
        let parts = word.split(separator: "/", maxSplits: 1).map(String.init)
        guard parts.count == 2 else { return try await client.get(.pod, namespace: namespace, name: word) }
        let kind = try ResourceCatalog.builtIn.kind(named: parts[0])
        guard kind != .pod else { return try await client.get(.pod, namespace: namespace, name: parts[1]) }
        let owner = try await client.get(kind, namespace: namespace, name: parts[1])
        let selector =
            owner.json[path: "spec", "selector", "matchLabels"]
            ?? (kind == .service ? owner.json[path: "spec", "selector"] : nil)
        guard let labels = selector?.object, !labels.isEmpty else {
            throw CommandFailure("\(word) in namespace \(namespace) selects no pods: name a pod")
        }
        let text = labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value.string ?? "")" }.joined(separator: ",")
        let pods = try await client.list(.pod, namespace: namespace, labelSelector: text, fieldSelector: nil).items
        guard let chosen = pods.max(by: { rank($0) < rank($1) }) else {
            throw CommandFailure("\(word) in namespace \(namespace) has no pods")
        }
        return chosen
    }

    private func rank(_ pod: KubernetesObject) -> String {
        let isReady = (pod.json[path: "status", "conditions"]?.array ?? []).contains {
            $0["type"]?.string == "Ready" && $0["status"]?.string == "True"
        }
        let created = pod.json[path: "metadata", "creationTimestamp"]?.string ?? ""
        return "\(pod.isTerminating ? 0 : 1)\(isReady ? 1 : 0)\(created)"
    }
}
