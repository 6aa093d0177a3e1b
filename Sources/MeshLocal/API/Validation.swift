import MeshAddress
import MeshKubernetes

/// What is wrong with an object, field by field. Runs after defaults and admission.
enum Validation {
    static func errors(_ object: KubernetesObject, served: ServedKind, settings: LocalAPISettings) -> [FieldError] {
        var errors = metadata(object, served.kind)
        switch served.kind.storageName {
        case "pods": errors += PodValidation.spec(object.json["spec"], "spec", settings, isTemplate: false)
        case "deployments.apps", "replicasets.apps": errors += workload(object, settings)
        case "jobs.batch": errors += job(object, settings)
        case "services": errors += service(object)
        case "endpointslices.discovery.k8s.io": errors += endpointSlice(object)
        case "configmaps", "secrets": errors += keys(object)
        case "mutatingwebhookconfigurations.admissionregistration.k8s.io": errors += webhooks(object)
        case "customresourcedefinitions.apiextensions.k8s.io": errors += CustomDefinition.errors(object)
        default: errors += served.schema?.errors(in: object.json) ?? []
        }
        return errors
    }

    // MARK: - Metadata

    static func metadata(_ object: KubernetesObject, _ kind: ResourceKind) -> [FieldError] {
        var errors: [FieldError] = []
        let name = object.name
        if name.isEmpty {
            errors.append(.required("metadata.name", "name or generateName is required"))
        } else if let problem = nameProblem(name, kind) {
            errors.append(.invalid("metadata.name", .string(name), problem))
        }
        for (field, value) in [
            ("labels", object.json[path: "metadata", "labels"]),
            ("annotations", object.json[path: "metadata", "annotations"]),
        ] {
            guard let value, !value.isNull else { continue }
            guard let members = value.object else {
                errors.append(.invalid("metadata.\(field)", value, "must be an object of texts"))
                continue
            }
            errors += labels(members, "metadata.\(field)", checksValues: field == "labels")
        }
        if let references = object.json[path: "metadata", "ownerReferences"]?.array {
            for (index, reference) in references.enumerated() {
                for field in ["apiVersion", "kind", "name", "uid"] where (reference[field]?.string ?? "").isEmpty {
                    errors.append(.required("metadata.ownerReferences[\(index)].\(field)"))
                }
            }
            if references.filter({ $0["controller"]?.bool == true }).count > 1 {
                errors.append(
                    .invalid("metadata.ownerReferences", nil, "only one reference can have controller set to true"))
            }
        }
        return errors
    }

    static func nameProblem(_ name: String, _ kind: ResourceKind) -> String? {
        switch kind.storageName {
        case "namespaces": LabelSyntax.problem(inDNSLabel: name)
        case "services":
            LabelSyntax.problem(inDNSLabel: name) ?? (name.first?.isLetter == true ? nil : "must begin with a letter")
        case let resource where resource.hasSuffix("rbac.authorization.k8s.io"):
            name.contains("/") || name.contains("%") || name == "." || name == ".."
                ? "must be usable as a part of a path" : nil
        default: LabelSyntax.problem(inSubdomain: name)
        }
    }

    static func labels(_ members: [String: JSONValue], _ path: String, checksValues: Bool) -> [FieldError] {
        var errors: [FieldError] = []
        for (key, value) in members.sorted(by: { $0.key < $1.key }) {
            if let problem = LabelSyntax.problem(inKey: checksValues ? key : key.lowercased()) {
                errors.append(.invalid(path, .string(key), problem))
            }
            guard let text = value.string else {
                errors.append(.invalid("\(path)[\(key)]", value, "must be a text; put it in quotes"))
                continue
            }
            if checksValues, let problem = LabelSyntax.problem(inValue: text) {
                errors.append(.invalid("\(path)[\(key)]", value, problem))
            }
        }
        return errors
    }

    // MARK: - Workloads

    private static func workload(_ object: KubernetesObject, _ settings: LocalAPISettings) -> [FieldError] {
        var errors: [FieldError] = []
        let spec = object.json["spec"]
        for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            errors += count(spec?[field], "spec.\(field)")
        }
        let template = spec?[path: "template", "metadata", "labels"]?.object ?? [:]
        if let selector: LabelSelector = try? spec?["selector"]?.decoded() {
            if selector.isEmpty {
                errors.append(.required("spec.selector"))
            } else if !selector.matches(template.compactMapValues(\.string)) {
                errors.append(
                    .invalid(
                        "spec.template.metadata.labels", .object(template),
                        "`selector` does not match template `labels`"))
            }
        } else {
            errors.append(.required("spec.selector", "a label selector with matchLabels or matchExpressions"))
        }
        errors += podTemplate(object, settings, policies: ["Always"])
        guard object.kind == "Deployment" else { return errors }
        let strategy = spec?["strategy"]
        switch strategy?["type"]?.string {
        case "RollingUpdate":
            let surge = proportion(strategy?[path: "rollingUpdate", "maxSurge"])
            let unavailable = proportion(strategy?[path: "rollingUpdate", "maxUnavailable"])
            for (name, value) in [("maxSurge", surge), ("maxUnavailable", unavailable)] where value == nil {
                errors.append(
                    .invalid(
                        "spec.strategy.rollingUpdate.\(name)", strategy?[path: "rollingUpdate", name],
                        "must be a number of pods (2) or a percentage (25%)"))
            }
            if surge == 0, unavailable == 0 {
                errors.append(
                    .invalid("spec.strategy.rollingUpdate.maxUnavailable", 0, "may not be 0 when `maxSurge` is 0"))
            }
        case "Recreate":
            if strategy?["rollingUpdate"]?.object != nil {
                errors.append(
                    .forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
                )
            }
        default:
            errors.append(.notSupported("spec.strategy.type", strategy?["type"], ["Recreate", "RollingUpdate"]))
        }
        return errors
    }

    private static func job(_ object: KubernetesObject, _ settings: LocalAPISettings) -> [FieldError] {
        var errors: [FieldError] = []
        let spec = object.json["spec"]
        for field in ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
        {
            errors += count(spec?[field], "spec.\(field)")
        }
        if spec?["completionMode"] != "NonIndexed" {
            errors.append(.notSupported("spec.completionMode", spec?["completionMode"], ["NonIndexed"]))
        }
        for field in ["podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes", "managedBy"]
        where spec?[field] != nil {
            errors.append(.forbidden("spec.\(field)", "apus up does not support this field; remove it"))
        }
        return errors + podTemplate(object, settings, policies: ["Never", "OnFailure"])
    }

    private static func podTemplate(_ object: KubernetesObject, _ settings: LocalAPISettings, policies: [String])
        -> [FieldError]
    {
        let template = object.json[path: "spec", "template"]
        guard template?["spec"]?.object != nil else { return [.required("spec.template.spec")] }
        var errors = PodValidation.spec(template?["spec"], "spec.template.spec", settings, isTemplate: true)
        if let members = template?[path: "metadata", "labels"]?.object {
            errors += labels(members, "spec.template.metadata.labels", checksValues: true)
        }
        let policy = template?[path: "spec", "restartPolicy"]
        if !policies.contains(policy?.string ?? "") {
            errors.append(.notSupported("spec.template.spec.restartPolicy", policy, policies))
        }
        return errors
    }

    // MARK: - Services

    private static func service(_ object: KubernetesObject) -> [FieldError] {
        var errors: [FieldError] = []
        let spec = object.json["spec"]
        let type = spec?["type"]?.string ?? ""
        if !["ClusterIP", "ExternalName", "NodePort", "LoadBalancer"].contains(type) {
            errors.append(
                .notSupported("spec.type", spec?["type"], ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]))
        } else if type == "NodePort" || type == "LoadBalancer" {
            errors.append(.forbidden("spec.type", "\(type) is not supported by apus up; use ClusterIP"))
        }
        if type == "ExternalName", (spec?["externalName"]?.string ?? "").isEmpty {
            errors.append(.required("spec.externalName"))
        }
        if let members = spec?["selector"]?.object { errors += labels(members, "spec.selector", checksValues: true) }
        if let affinity = spec?["sessionAffinity"], affinity != "None", affinity != "ClientIP" {
            errors.append(.notSupported("spec.sessionAffinity", affinity, ["ClientIP", "None"]))
        }
        for field in ["externalIPs", "loadBalancerIP", "loadBalancerSourceRanges"]
        where spec?[field] != nil && spec?[field] != .array([]) {
            errors.append(.forbidden("spec.\(field)", "apus up does not support this field; remove it"))
        }
        let ports = spec?["ports"]?.array ?? []
        let headless = spec?["clusterIP"] == "None"
        if ports.isEmpty, type != "ExternalName", !headless { errors.append(.required("spec.ports")) }
        var names: Set<String> = []
        var numbers: Set<String> = []
        for (index, port) in ports.enumerated() {
            let path = "spec.ports[\(index)]"
            errors += portNumber(port["port"], "\(path).port")
            let name = port["name"]?.string ?? ""
            if name.isEmpty, ports.count > 1 { errors.append(.required("\(path).name")) }
            if !name.isEmpty, let problem = LabelSyntax.problem(inDNSLabel: name) {
                errors.append(.invalid("\(path).name", port["name"], problem))
            }
            if !names.insert(name).inserted { errors.append(.duplicate("\(path).name", port["name"])) }
            let transport = port["protocol"]?.string ?? ""
            if !["TCP", "UDP", "SCTP"].contains(transport) {
                errors.append(.notSupported("\(path).protocol", port["protocol"], ["SCTP", "TCP", "UDP"]))
            }
            if !numbers.insert("\(port["port"]?.int ?? 0)/\(transport)").inserted {
                errors.append(.duplicate(path, port))
            }
            if port["nodePort"]?.int ?? 0 != 0 {
                errors.append(
                    .forbidden("\(path).nodePort", "may only be used when `type` is 'NodePort' or 'LoadBalancer'"))
            }
            switch port["targetPort"] {
            case .string(let text): errors += portName(text, "\(path).targetPort")
            case let number: errors += portNumber(number, "\(path).targetPort")
            }
        }
        return errors
    }

    private static func endpointSlice(_ object: KubernetesObject) -> [FieldError] {
        var errors: [FieldError] = []
        let type = object.json["addressType"]
        if !["IPv4", "IPv6", "FQDN"].contains(type?.string ?? "") {
            errors.append(.notSupported("addressType", type, ["FQDN", "IPv4", "IPv6"]))
        }
        let endpoints = object.json["endpoints"]?.array ?? []
        if endpoints.count > 1000 {
            errors.append(.invalid("endpoints", .int(Int64(endpoints.count)), "must have at most 1000 items"))
        }
        for (index, endpoint) in endpoints.enumerated() {
            let addresses = endpoint["addresses"]?.array ?? []
            if addresses.isEmpty { errors.append(.required("endpoints[\(index)].addresses")) }
            for (place, address) in addresses.enumerated() where type != "FQDN" {
                guard let parsed = IPAddress(address.string ?? ""), parsed.isV4 == (type == "IPv4") else {
                    errors.append(
                        .invalid(
                            "endpoints[\(index)].addresses[\(place)]", address,
                            "must be an address of type \(type?.string ?? "")"))
                    continue
                }
            }
        }
        for (index, port) in (object.json["ports"]?.array ?? []).enumerated() where port["port"] != nil {
            errors += portNumber(port["port"], "ports[\(index)].port")
        }
        return errors
    }

    // MARK: - The others

    private static func keys(_ object: KubernetesObject) -> [FieldError] {
        var errors: [FieldError] = []
        for field in ["data", "binaryData"] {
            guard let value = object.json[field], !value.isNull else { continue }
            guard let members = value.object else {
                errors.append(.invalid(field, value, "must be an object of texts"))
                continue
            }
            for (key, value) in members.sorted(by: { $0.key < $1.key }) {
                let isValid =
                    !key.isEmpty && key.utf8.count <= 253 && key != "." && key != ".."
                    && key.utf8.allSatisfy {
                        ($0 | 0x20) >= 97 && ($0 | 0x20) <= 122 || (48...57).contains($0) || $0 == 45 || $0 == 46
                            || $0 == 95
                    }
                if !isValid {
                    errors.append(
                        .invalid("\(field)[\(key)]", .string(key), "must consist of letters, digits, '-', '_' or '.'"))
                }
                guard let text = value.string else {
                    errors.append(.invalid("\(field)[\(key)]", value, "must be a text; put it in quotes"))
                    continue
                }
                if object.kind == "Secret" || field == "binaryData", !Base64Text.isValid(text) {
                    errors.append(.invalid("\(field)[\(key)]", "…", "must be base64; use stringData for plain text"))
                }
            }
        }
        return errors
    }

    private static func webhooks(_ object: KubernetesObject) -> [FieldError] {
        var errors: [FieldError] = []
        for (index, webhook) in (object.json["webhooks"]?.array ?? []).enumerated() {
            let path = "webhooks[\(index)]"
            let name = webhook["name"]?.string ?? ""
            if name.split(separator: ".").count < 3 {
                errors.append(
                    .invalid(
                        "\(path).name", webhook["name"],
                        "should be a domain with at least three segments separated by dots"))
            }
            let hasURL = webhook[path: "clientConfig", "url"]?.string != nil
            let hasService = webhook[path: "clientConfig", "service"]?.object != nil
            if hasURL == hasService {
                errors.append(.required("\(path).clientConfig", "exactly one of url or service is required"))
            }
            if hasURL, webhook[path: "clientConfig", "url"]?.string?.hasPrefix("https://") != true {
                errors.append(
                    .invalid(
                        "\(path).clientConfig.url", webhook[path: "clientConfig", "url"], "must begin with https://"))
            }
            if hasService {
                for field in ["name", "namespace"]
                where (webhook[path: "clientConfig", "service", field]?.string ?? "").isEmpty {
                    errors.append(.required("\(path).clientConfig.service.\(field)"))
                }
            }
            if webhook["admissionReviewVersions"]?.array?.contains("v1") != true {
                errors.append(
                    .invalid("\(path).admissionReviewVersions", webhook["admissionReviewVersions"], "must include v1"))
            }
            if !["None", "NoneOnDryRun"].contains(webhook["sideEffects"]?.string ?? "") {
                errors.append(.notSupported("\(path).sideEffects", webhook["sideEffects"], ["None", "NoneOnDryRun"]))
            }
            if !["Fail", "Ignore"].contains(webhook["failurePolicy"]?.string ?? "") {
                errors.append(.notSupported("\(path).failurePolicy", webhook["failurePolicy"], ["Fail", "Ignore"]))
            }
            if !["Never", "IfNeeded"].contains(webhook["reinvocationPolicy"]?.string ?? "") {
                errors.append(
                    .notSupported("\(path).reinvocationPolicy", webhook["reinvocationPolicy"], ["IfNeeded", "Never"]))
            }
            if !(1...30).contains(webhook["timeoutSeconds"]?.int ?? 0) {
                errors.append(.invalid("\(path).timeoutSeconds", webhook["timeoutSeconds"], "must be between 1 and 30"))
            }
            if let conditions = webhook["matchConditions"]?.array, !conditions.isEmpty {
                errors.append(.forbidden("\(path).matchConditions", "apus up does not support this field; remove it"))
            }
            for (place, rule) in (webhook["rules"]?.array ?? []).enumerated() {
                for field in ["apiGroups", "apiVersions", "operations", "resources"]
                where (rule[field]?.array ?? []).isEmpty {
                    errors.append(.required("\(path).rules[\(place)].\(field)"))
                }
            }
        }
        return errors
    }

    // MARK: - Values

    static func count(_ value: JSONValue?, _ path: String) -> [FieldError] {
        guard let value, !value.isNull else { return [] }
        guard case .int(let number) = value, (0...Int64(Int32.max)).contains(number) else {
            return [.invalid(path, value, "must be a number from 0 to \(Int32.max)")]
        }
        return []
    }

    static func portNumber(_ value: JSONValue?, _ path: String) -> [FieldError] {
        guard let value else { return [.required(path)] }
        guard case .int(let number) = value, (1...65_535).contains(number) else {
            return [.invalid(path, value, "must be between 1 and 65535, inclusive")]
        }
        return []
    }

    /// An IANA service name (RFC 6335 §5.1), in lower case.
    static func portName(_ name: String, _ path: String) -> [FieldError] {
        let isValid =
            LabelSyntax.problem(inDNSLabel: name, limit: 15) == nil && name.contains(where: \.isLetter)
            && !name.contains("--")
        return isValid
            ? []
            : [
                .invalid(
                    path, .string(name),
                    "must have at most 15 lower-case letters, digits and single '-', one letter at least")
            ]
    }

    private static func proportion(_ value: JSONValue?) -> Int? {
        guard let parsed: IntOrString = try? value?.decoded(), let scaled = parsed.scaled(of: 100, roundUp: true),
            scaled >= 0
        else {
            return nil
        }
        return scaled
    }
}

enum Base64Text {
    static func isValid(_ text: String) -> Bool { text.isEmpty || [UInt8](base64URL: text) != nil }
}
