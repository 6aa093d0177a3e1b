import MeshCore
package import MeshKubernetes

extension Injection {
    /// What happened to one document of a manifest.
    package struct DocumentOutcome: Hashable, Sendable {
        /// `Deployment shop/web`.
        package var object: String
        package var isInjected: Bool
        /// Why not; empty when it is injected.
        package var reason: String
    }

    /// A manifest with a sidecar in every pod and pod template; other documents stay as they are, to the letter. Fails
    /// when a document cannot be read or a pod is refused.
    /// - Parameter namespace: of documents that name none.
    package static func inject(documents text: String, namespace: String, settings: InjectionSettings)
        throws(ManifestError)
        -> (text: String, outcomes: [DocumentOutcome])
    {
        var outcomes: [DocumentOutcome] = []
        var output: [String] = []
        for document in split(text) {
            guard let value = try YAMLReader.documents(document).first else { continue }
            var changed = value
            let found = try injectObject(&changed, namespace: namespace, settings: settings)
            outcomes += found
            output.append(changed == value ? document : YAMLWriter.text(changed))
        }
        return (output.map { $0.hasSuffix("\n") ? $0 : $0 + "\n" }.joined(separator: "---\n"), outcomes)
    }

    /// The documents between lines of `---`.
    private static func split(_ text: String) -> [String] {
        var documents: [String] = []
        var current: [Substring] = []
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line == "---" || line.hasPrefix("--- ") || line.hasPrefix("---\t") || line == "---\r" {
                documents.append(current.joined(separator: "\n"))
                current = []
                let rest = line.dropFirst(3).drop { $0.isWhitespace }
                if !rest.isEmpty, !rest.hasPrefix("#") { current.append(rest) }
            } else {
                current.append(line)
            }
        }
        documents.append(current.joined(separator: "\n"))
        return documents
    }

    private static func injectObject(_ object: inout JSONValue, namespace: String, settings: InjectionSettings)
        throws(ManifestError) -> [DocumentOutcome]
    {
        if object["kind"]?.string == "List", var items = object["items"]?.array {
            var outcomes: [DocumentOutcome] = []
            for index in items.indices {
                outcomes += try injectObject(&items[index], namespace: namespace, settings: settings)
            }
            object["items"] = .array(items)
            return outcomes
        }
        guard let place = templatePlace(object) else { return [] }
        let named = KubernetesObject(object)
        let namespace = named.namespace ?? namespace
        let title = "\(named.kind) \(namespace)/\(named.name)"
        guard var pod = object[place], pod.object != nil else {
            throw ManifestError("\(title): \(place) is absent, expected a pod template")
        }
        let isTemplate = !place.tokens.isEmpty
        // The pods of a template are named after its owner, which is therefore what their metrics name.
        let ownName = pod[path: "metadata", "name"]
        if isTemplate { pod[path: "metadata", "name"] = .string(named.name) }
        switch patch(pod: pod, namespace: namespace, namespaceLabels: [:], settings: settings) {
        case .skip(let reason):
            return [DocumentOutcome(object: title, isInjected: false, reason: reason)]
        case .refuse(let reason):
            throw ManifestError("\(title): \(isTemplate ? "in \(place): " : "")\(reason)")
        case .patch(let patch):
            do {
                var injected = try patch.applied(to: pod)
                if isTemplate { injected[path: "metadata", "name"] = ownName }
                let replacement = JSONPatch([.replace(place, injected)])
                object = try replacement.applied(to: object)
            } catch {
                throw ManifestError("\(title): \(error)")
            }
            return [DocumentOutcome(object: title, isInjected: true, reason: "")]
        }
    }

    /// Where an object keeps its pod; nil for a kind without one.
    private static func templatePlace(_ object: JSONValue) -> JSONPointer? {
        let group = object["apiVersion"]?.string?.split(separator: "/").dropLast().joined() ?? ""
        switch (group, object["kind"]?.string) {
        case ("", "Pod"): return JSONPointer()
        case ("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("apps", "ReplicaSet"),
            ("batch", "Job"):
            return JSONPointer(["spec", "template"])
        case ("batch", "CronJob"): return JSONPointer(["spec", "jobTemplate", "spec", "template"])
        default: return nil
        }
    }
}
