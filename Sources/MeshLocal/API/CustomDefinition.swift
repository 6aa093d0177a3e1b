import MeshKubernetes

/// A CustomResourceDefinition as this server uses it.
struct CustomDefinition: Sendable {
    var name: String
    /// One for each served version.
    var served: [ServedKind]

    /// Nil when it lacks what `errors` reports.
    init?(_ definition: KubernetesObject) {
        let spec = definition.json["spec"]
        guard let group = spec?["group"]?.string, let plural = spec?[path: "names", "plural"]?.string,
            let kind = spec?[path: "names", "kind"]?.string
        else { return nil }
        name = definition.name
        served = (spec?["versions"]?.array ?? []).compactMap { version in
            guard version["served"]?.bool == true, let versionName = version["name"]?.string else { return nil }
            var served = ServedKind(
                ResourceKind(
                    group: group, version: versionName, kind: kind, plural: plural,
                    isNamespaced: spec?["scope"]?.string == "Namespaced",
                    shortNames: spec?[path: "names", "shortNames"]?.array?.compactMap(\.string) ?? []),
                hasStatus: version[path: "subresources", "status"] != nil, hasGeneration: true)
            served.isCustom = true
            served.singular = spec?[path: "names", "singular"]?.string ?? kind.lowercased()
            served.categories = spec?[path: "names", "categories"]?.array?.compactMap(\.string) ?? []
            served.schema = version[path: "schema", "openAPIV3Schema"].map(StructuralSchema.init)
            served.columns = (version["additionalPrinterColumns"]?.array ?? []).compactMap { column in
                guard let name = column["name"]?.string, let path = column["jsonPath"]?.string else { return nil }
                return PrinterColumn(
                    name: name, type: column["type"]?.string ?? "string", path: path,
                    priority: column["priority"]?.int ?? 0)
            }
            return served
        }
    }

    /// What is wrong with a definition.
    static func errors(_ definition: KubernetesObject) -> [FieldError] {
        var errors: [FieldError] = []
        let spec = definition.json["spec"]
        let group = spec?["group"]?.string ?? ""
        let plural = spec?[path: "names", "plural"]?.string ?? ""
        if let problem = LabelSyntax.problem(inSubdomain: group) {
            errors.append(.invalid("spec.group", .string(group), problem))
        }
        if let problem = LabelSyntax.problem(inDNSLabel: plural) {
            errors.append(.invalid("spec.names.plural", .string(plural), problem))
        }
        if (spec?[path: "names", "kind"]?.string ?? "").isEmpty { errors.append(.required("spec.names.kind")) }
        if definition.name != "\(plural).\(group)" {
            errors.append(
                .invalid("metadata.name", .string(definition.name), "must be spec.names.plural+\".\"+spec.group"))
        }
        let scope = spec?["scope"]
        if scope?.string != "Namespaced", scope?.string != "Cluster" {
            errors.append(.notSupported("spec.scope", scope, ["Cluster", "Namespaced"]))
        }
        let versions = spec?["versions"]?.array ?? []
        if versions.isEmpty { errors.append(.required("spec.versions")) }
        for (index, version) in versions.enumerated() {
            let name = version["name"]?.string ?? ""
            if let problem = LabelSyntax.problem(inDNSLabel: name) {
                errors.append(.invalid("spec.versions[\(index)].name", .string(name), problem))
            }
            if version[path: "schema", "openAPIV3Schema"]?.object == nil {
                errors.append(.required("spec.versions[\(index)].schema.openAPIV3Schema"))
            }
        }
        if versions.filter({ $0["storage"]?.bool == true }).count != 1, !versions.isEmpty {
            errors.append(.invalid("spec.versions", nil, "must have exactly one version marked as storage version"))
        }
        if spec?[path: "conversion", "strategy"]?.string == "Webhook" {
            errors.append(
                .forbidden("spec.conversion.strategy", "conversion webhooks are not supported by apus up; use None"))
        }
        return errors
    }

    /// The definition with the status that says it is served.
    static func established(_ definition: KubernetesObject, now: String) -> KubernetesObject {
        var definition = definition
        var names = definition.json[path: "spec", "names"] ?? [:]
        let kind = names["kind"]?.string ?? ""
        if names["singular"] == nil { names["singular"] = .string(kind.lowercased()) }
        if names["listKind"] == nil { names["listKind"] = .string(kind + "List") }
        definition.json[path: "spec", "names"] = names
        if definition.json[path: "spec", "conversion"] == nil {
            definition.json[path: "spec", "conversion"] = ["strategy": "None"]
        }
        let storage =
            (definition.json[path: "spec", "versions"]?.array ?? [])
            .first { $0["storage"]?.bool == true }?["name"] ?? "v1"
        guard definition.json["status"]?["conditions"] == nil else {
            definition.json[path: "status", "acceptedNames"] = names
            return definition
        }
        definition.json["status"] = [
            "acceptedNames": names, "storedVersions": [storage],
            "conditions": [
                [
                    "type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found",
                    "lastTransitionTime": .string(now),
                ],
                [
                    "type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                    "message": "the initial names have been accepted", "lastTransitionTime": .string(now),
                ],
            ],
        ]
        return definition
    }
}
