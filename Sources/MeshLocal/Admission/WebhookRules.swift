import MeshKubernetes

/// What is asked of admission.
struct AdmissionRequest: Sendable {
    enum Operation: String, Sendable {
        case create = "CREATE"
        case update = "UPDATE"
        case delete = "DELETE"
    }

    var kind: ResourceKind
    var operation: Operation
    var subresource: String?
    var namespace: String?
    var name: String
    var object: KubernetesObject
    var oldObject: KubernetesObject?
    var user: RequestUser
    var isDryRun = false
}

/// One webhook of a MutatingWebhookConfiguration, as far as it says whether and how it is called.
struct AdmissionWebhook: Sendable {
    enum Target: Sendable, Hashable {
        case url(String)
        case service(namespace: String, name: String, path: String, port: Int)
    }

    struct Rule: Sendable {
        var operations: Set<String>
        var groups: Set<String>
        var versions: Set<String>
        var resources: Set<String>
        /// `Cluster`, `Namespaced` or `*`.
        var scope: String
    }

    var name: String
    var target: Target
    /// In PEM.
    var authorities: [UInt8]
    var rules: [Rule]
    var namespaceSelector: LabelSelector
    var objectSelector: LabelSelector
    var isFailureIgnored: Bool
    var timeoutSeconds: Int
    var isReinvocable: Bool

    init?(_ json: JSONValue) {
        guard let name = json["name"]?.string else { return nil }
        self.name = name
        if let url = json[path: "clientConfig", "url"]?.string {
            target = .url(url)
        } else if let service = json[path: "clientConfig", "service"], let serviceName = service["name"]?.string {
            target = .service(
                namespace: service["namespace"]?.string ?? "", name: serviceName, path: service["path"]?.string ?? "/",
                port: service["port"]?.int ?? 443)
        } else {
            return nil
        }
        authorities = json[path: "clientConfig", "caBundle"]?.string.flatMap { [UInt8](base64URL: $0) } ?? []
        func texts(_ value: JSONValue?) -> Set<String> { Set((value?.array ?? []).compactMap(\.string)) }
        rules = (json["rules"]?.array ?? []).map {
            Rule(
                operations: texts($0["operations"]), groups: texts($0["apiGroups"]), versions: texts($0["apiVersions"]),
                resources: texts($0["resources"]), scope: $0["scope"]?.string ?? "*")
        }
        namespaceSelector = (try? json["namespaceSelector"]?.decoded()) ?? LabelSelector()
        objectSelector = (try? json["objectSelector"]?.decoded()) ?? LabelSelector()
        isFailureIgnored = json["failurePolicy"] == "Ignore"
        timeoutSeconds = min(max(json["timeoutSeconds"]?.int ?? 10, 1), 30)
        isReinvocable = json["reinvocationPolicy"] == "IfNeeded"
    }

    /// Whether the webhook is called for a request. `namespaceLabels` is nil when the namespace does not exist.
    func matches(_ request: AdmissionRequest, namespaceLabels: [String: String]?) -> Bool {
        guard rules.contains(where: { $0.matches(request) }) else { return false }
        if request.kind.isNamespaced {
            guard namespaceSelector.matches(namespaceLabels ?? [:]) else { return false }
        } else if request.kind.storageName == ResourceKind.namespace.storageName {
            guard namespaceSelector.matches(request.object.labels) else { return false }
        }
        return objectSelector.matches(request.object.labels)
            || request.oldObject.map { objectSelector.matches($0.labels) } == true
    }
}

extension AdmissionWebhook.Rule {
    /// `matchPolicy` makes no difference here: every built-in kind has one version.
    func matches(_ request: AdmissionRequest) -> Bool {
        func has(_ set: Set<String>, _ value: String) -> Bool { set.contains("*") || set.contains(value) }
        guard has(operations, request.operation.rawValue), has(groups, request.kind.group),
            has(versions, request.kind.version)
        else { return false }
        switch scope {
        case "Namespaced" where !request.kind.isNamespaced: return false
        case "Cluster" where request.kind.isNamespaced: return false
        default: break
        }
        let plural = request.kind.plural
        guard let subresource = request.subresource else {
            return resources.contains("*") || resources.contains("*/*") || resources.contains(plural)
        }
        return resources.contains("*/*") || resources.contains("\(plural)/*") || resources.contains("*/\(subresource)")
            || resources.contains("\(plural)/\(subresource)")
    }
}
