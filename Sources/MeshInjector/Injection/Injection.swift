package import MeshKubernetes

/// Whether and how a pod gets its sidecar. Pure: a pod in, a patch out.
package enum Injection {
    package enum Decision: Hashable, Sendable {
        /// Empty when the pod is already as it should be.
        case patch(JSONPatch)
        /// It gets none, and that is in order.
        case skip(reason: String)
        /// It must not be created as it is: the reason names the field, its value and what is expected.
        case refuse(reason: String)
    }

    /// - Parameters:
    ///   - namespace: the request's; a pod that is being created often has none in its own document.
    ///   - namespaceLabels: of that namespace.
    package static func patch(
        pod: JSONValue, namespace: String, namespaceLabels: [String: String], settings: InjectionSettings
    ) -> Decision {
        if let reason = skipReason(pod: pod, namespace: namespace, namespaceLabels: namespaceLabels, settings: settings)
        {
            return .skip(reason: reason)
        }
        do {
            return .patch(JSONPatch.difference(from: pod, to: try injected(pod, settings)))
        } catch {
            return .refuse(reason: error.description)
        }
    }

    private static func skipReason(
        pod: JSONValue, namespace: String, namespaceLabels: [String: String], settings: InjectionSettings
    ) -> String? {
        if settings.excludedNamespaces.contains(namespace) { return "the namespace \(namespace) is the system's" }
        if namespaceLabels[MeshLabel.inject] == "disabled" {
            return "the namespace \(namespace) has the label \(MeshLabel.inject)=disabled"
        }
        if pod[path: "metadata", "labels"]?[MeshLabel.inject]?.string == "disabled" {
            return "the pod has the label \(MeshLabel.inject)=disabled"
        }
        if pod[path: "spec", "hostNetwork"]?.bool == true {
            return "the pod is on its node's network, whose traffic is not the pod's alone"
        }
        if pod[path: "spec", "os", "name"]?.string == "windows" { return "the pod is for Windows" }
        return nil
    }

    /// The pod as it should be. Doing it again changes nothing: what an earlier call added is taken out first.
    private static func injected(_ pod: JSONValue, _ settings: InjectionSettings) throws(Refusal) -> JSONValue {
        let metadata = try object(pod["metadata"], "metadata", mayBeAbsent: true)
        let spec = try object(pod["spec"], "spec", mayBeAbsent: false)
        let labels = try texts(metadata["labels"], "metadata.labels")
        let annotationTexts = try texts(metadata["annotations"], "metadata.annotations")
        if let label = labels[MeshLabel.inject], label != "enabled" {
            throw Refusal(field: "metadata.labels[\(MeshLabel.inject)]", value: label, expected: "enabled or disabled")
        }
        let annotations = try PodAnnotations(annotationTexts, settings)
        var containers = try list(spec["containers"], "spec.containers")
        guard !containers.isEmpty else {
            throw Refusal(field: "spec.containers", value: "[]", expected: "at least one container")
        }
        var initContainers = try list(spec["initContainers"], "spec.initContainers")
        var volumes = try list(spec["volumes"], "spec.volumes")
        let isInjected = labels[MeshLabel.injected] == "true"
        let earlier = isInjected ? initContainers : []
        let earlierCapture = earlier.first { $0["name"]?.string == SidecarNames.capture }
        let earlierProxy = earlier.first { $0["name"]?.string == SidecarNames.proxy }
        if isInjected {
            initContainers.removeAll { SidecarNames.containers.contains($0["name"]?.string ?? "") }
            volumes.removeAll { SidecarNames.volumes.contains($0["name"]?.string ?? "") }
        }
        try check(spec, containers, initContainers, volumes)

        var rewrite = ProbeRewrite()
        let kept = SidecarParts.keptProbes(in: earlierProxy)
        for index in initContainers.indices {
            try rewrite.rewrite(&initContainers[index], field: "spec.initContainers[\(index)]", earlier: kept)
        }
        for index in containers.indices {
            try rewrite.rewrite(&containers[index], field: "spec.containers[\(index)]", earlier: kept)
            rewrite.addWithdrawal(to: &containers[index])
        }
        let parts = SidecarParts(
            settings: settings, annotations: annotations, owner: owner(pod), probes: rewrite.originals)
        var result = pod
        result[path: "spec", "containers"] = .array(containers)
        let added = [
            SidecarParts.keepingDefaults(parts.capture, of: earlierCapture),
            SidecarParts.keepingDefaults(parts.proxy, of: earlierProxy),
        ]
        result[path: "spec", "initContainers"] = .array(added + initContainers)
        result[path: "spec", "volumes"] = .array(volumes + parts.volumes)
        result[path: "metadata", "labels", MeshLabel.injected] = "true"
        result[path: "metadata", "annotations", MeshAnnotation.proxyVersion] = .string(settings.version)
        return result
    }

    private static func owner(_ pod: JSONValue) -> String {
        let metadata = try? (pod["metadata"] ?? [:]).decoded(as: Kubernetes.ObjectMeta.self)
        return metadata.map(PodView.owner) ?? ""
    }
}

// MARK: - What a pod must not have

extension Injection {
    private static func check(
        _ spec: JSONValue, _ containers: [JSONValue], _ initContainers: [JSONValue], _ volumes: [JSONValue]
    ) throws(Refusal) {
        if spec[path: "securityContext", "runAsUser"]?.int == SidecarPorts.user {
            throw userRefusal("spec.securityContext.runAsUser")
        }
        for (name, list) in [("containers", containers), ("initContainers", initContainers)] {
            for (index, container) in list.enumerated() { try check(container, "spec.\(name)[\(index)]") }
        }
        for (index, volume) in volumes.enumerated() {
            guard let name = volume["name"]?.string, SidecarNames.volumes.contains(name) else { continue }
            throw Refusal(
                field: "spec.volumes[\(index)].name", value: name,
                expected: "another name: this one is the sidecar's volume")
        }
    }

    private static func check(_ container: JSONValue, _ field: String) throws(Refusal) {
        guard container.object != nil else {
            throw Refusal(field: field, value: text(container), expected: "a container")
        }
        if let name = container["name"]?.string, SidecarNames.containers.contains(name) {
            throw Refusal(
                field: "\(field).name", value: name, expected: "another name: this one is the sidecar's container")
        }
        if container[path: "securityContext", "runAsUser"]?.int == SidecarPorts.user {
            throw userRefusal("\(field).securityContext.runAsUser")
        }
        for (index, port) in (container["ports"]?.array ?? []).enumerated() {
            guard let number = port["containerPort"]?.int, let port = UInt16(exactly: number),
                SidecarPorts.all.contains(port)
            else { continue }
            let ports = SidecarPorts.all.map { "\($0)" }.joined(separator: ", ")
            throw Refusal(
                field: "\(field).ports[\(index)].containerPort", value: "\(port)",
                expected: "a port other than the sidecar's own \(ports)")
        }
    }

    private static func userRefusal(_ field: String) -> Refusal {
        Refusal(
            field: field, value: "\(SidecarPorts.user)",
            expected: "another user: this one is the sidecar's, and its traffic is not redirected")
    }

    private static func object(_ value: JSONValue?, _ field: String, mayBeAbsent: Bool) throws(Refusal) -> JSONValue {
        guard let value, !value.isNull else {
            if mayBeAbsent { return [:] }
            throw Refusal(field: field, value: "absent", expected: "an object")
        }
        guard value.object != nil else { throw Refusal(field: field, value: text(value), expected: "an object") }
        return value
    }

    private static func list(_ value: JSONValue?, _ field: String) throws(Refusal) -> [JSONValue] {
        guard let value, !value.isNull else { return [] }
        guard let list = value.array else { throw Refusal(field: field, value: text(value), expected: "a list") }
        return list
    }

    private static func texts(_ value: JSONValue?, _ field: String) throws(Refusal) -> [String: String] {
        var texts: [String: String] = [:]
        for (name, member) in try object(value, field, mayBeAbsent: true).object ?? [:] {
            guard let text = member.string else {
                throw Refusal(field: "\(field)[\(name)]", value: self.text(member), expected: "a text in quotes")
            }
            texts[name] = text
        }
        return texts
    }

    private static func text(_ value: JSONValue) -> String { String(decoding: value.bytes().prefix(80), as: UTF8.self) }
}
