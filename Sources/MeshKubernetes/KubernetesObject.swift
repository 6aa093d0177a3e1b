/// A kind of resource and where the API serves it.
package struct ResourceKind: Hashable, Sendable {
    /// Empty for the core group.
    package var group: String
    package var version: String
    package var kind: String
    /// The plural in the URL: `pods`.
    package var plural: String
    package var isNamespaced: Bool
    package var shortNames: [String]

    package init(
        group: String, version: String, kind: String, plural: String, isNamespaced: Bool, shortNames: [String] = []
    ) {
        self.group = group
        self.version = version
        self.kind = kind
        self.plural = plural
        self.isNamespaced = isNamespaced
        self.shortNames = shortNames
    }

    /// `v1` or `apps/v1`.
    package var apiVersion: String { group.isEmpty ? version : "\(group)/\(version)" }

    /// `/api/v1/namespaces/shop/pods` or `/apis/apps/v1/deployments`.
    package func path(namespace: String?) -> String {
        let root = group.isEmpty ? "/api/\(version)" : "/apis/\(group)/\(version)"
        guard isNamespaced, let namespace else { return "\(root)/\(plural)" }
        return "\(root)/namespaces/\(namespace)/\(plural)"
    }

    package static let namespace = ResourceKind(
        group: "", version: "v1", kind: "Namespace", plural: "namespaces", isNamespaced: false, shortNames: ["ns"])
    package static let node = ResourceKind(
        group: "", version: "v1", kind: "Node", plural: "nodes", isNamespaced: false, shortNames: ["no"])
    package static let pod = ResourceKind(
        group: "", version: "v1", kind: "Pod", plural: "pods", isNamespaced: true, shortNames: ["po"])
    package static let service = ResourceKind(
        group: "", version: "v1", kind: "Service", plural: "services", isNamespaced: true, shortNames: ["svc"])
    package static let serviceAccount = ResourceKind(
        group: "", version: "v1", kind: "ServiceAccount", plural: "serviceaccounts", isNamespaced: true,
        shortNames: ["sa"])
    package static let configMap = ResourceKind(
        group: "", version: "v1", kind: "ConfigMap", plural: "configmaps", isNamespaced: true, shortNames: ["cm"])
    package static let secret = ResourceKind(
        group: "", version: "v1", kind: "Secret", plural: "secrets", isNamespaced: true)
    package static let event = ResourceKind(
        group: "", version: "v1", kind: "Event", plural: "events", isNamespaced: true, shortNames: ["ev"])
    package static let deployment = ResourceKind(
        group: "apps", version: "v1", kind: "Deployment", plural: "deployments", isNamespaced: true,
        shortNames: ["deploy"])
    package static let job = ResourceKind(
        group: "batch", version: "v1", kind: "Job", plural: "jobs", isNamespaced: true)
    package static let endpointSlice = ResourceKind(
        group: "discovery.k8s.io", version: "v1", kind: "EndpointSlice", plural: "endpointslices", isNamespaced: true)
    package static let mutatingWebhookConfiguration = ResourceKind(
        group: "admissionregistration.k8s.io", version: "v1", kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations", isNamespaced: false)
    package static let customResourceDefinition = ResourceKind(
        group: "apiextensions.k8s.io", version: "v1", kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        isNamespaced: false, shortNames: ["crd", "crds"])
    package static let lease = ResourceKind(
        group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases", isNamespaced: true)

    /// The kinds that both platforms serve and Apus uses.
    package static let builtIn: [ResourceKind] = [
        .namespace, .node, .pod, .service, .serviceAccount, .configMap, .secret, .event, .deployment, .replicaSet, .job,
        .endpointSlice, .mutatingWebhookConfiguration, .customResourceDefinition, .lease, .role, .roleBinding,
        .clusterRole,
        .clusterRoleBinding,
    ]
}

/// An object of the API, whatever its kind: the document as it came, with names for its metadata.
package struct KubernetesObject: Hashable, Sendable {
    package var json: JSONValue

    package init(_ json: JSONValue) { self.json = json }

    package var apiVersion: String { json["apiVersion"]?.string ?? "" }
    package var kind: String { json["kind"]?.string ?? "" }
    package var name: String { metadata("name") }
    package var namespace: String? { json[path: "metadata", "namespace"]?.string }
    package var uid: String { metadata("uid") }
    package var resourceVersion: String { metadata("resourceVersion") }
    package var labels: [String: String] { strings("labels") }
    package var annotations: [String: String] { strings("annotations") }
    package var isTerminating: Bool { json[path: "metadata", "deletionTimestamp"] != nil }

    private func metadata(_ field: String) -> String { json[path: "metadata", field]?.string ?? "" }

    private func strings(_ field: String) -> [String: String] {
        (json[path: "metadata", field]?.object ?? [:]).compactMapValues(\.string)
    }

    /// The controller that owns it: `metadata.ownerReferences` with `controller: true`.
    package var controller: (kind: String, name: String, uid: String)? {
        for reference in json[path: "metadata", "ownerReferences"]?.array ?? []
        where reference["controller"]?.bool == true {
            return (reference["kind"]?.string ?? "", reference["name"]?.string ?? "", reference["uid"]?.string ?? "")
        }
        return nil
    }
}

/// One event of a watch.
package struct WatchEvent: Sendable {
    package enum Change: String, Sendable {
        case added = "ADDED"
        case modified = "MODIFIED"
        case deleted = "DELETED"
        case bookmark = "BOOKMARK"
        case error = "ERROR"
    }
    package var change: Change
    package var object: KubernetesObject

    package init(_ change: Change, _ object: KubernetesObject) {
        self.change = change
        self.object = object
    }
}

/// The API's `Status`: how every failure is told.
package struct StatusError: Error, Sendable, CustomStringConvertible {
    /// The HTTP status.
    package var code: Int
    /// `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `Expired`, `Forbidden`, `Unauthorized`, `BadRequest`, …
    package var reason: String
    package var message: String
    /// `details`, with `causes` naming each field.
    package var details: JSONValue?

    package init(code: Int, reason: String, message: String, details: JSONValue? = nil) {
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
    }

    package var description: String { "\(message) (\(reason), \(code))" }

    package var json: JSONValue {
        var status: JSONValue = [
            "kind": "Status", "apiVersion": "v1", "metadata": [:], "status": "Failure", "code": .int(Int64(code)),
            "reason": .string(reason), "message": .string(message),
        ]
        status["details"] = details
        return status
    }
}

/// The API's verbs, whoever answers them: a cluster over HTTPS, `apus up` over HTTPS, or `apus up` within its own
/// process. Every failure is a `StatusError`.
package protocol KubernetesAPI: Sendable {
    func get(_ kind: ResourceKind, namespace: String?, name: String) async throws -> KubernetesObject
    /// All objects that match, and the resource version of the list.
    func list(_ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?) async throws
        -> (items: [KubernetesObject], resourceVersion: String)
    /// Events after `resourceVersion`, bookmarks included, until cancelled or the server ends it; fails with code 410
    /// when the version is too old.
    func watch(
        _ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?,
        resourceVersion: String
    ) -> AsyncThrowingStream<WatchEvent, any Error>
    func create(_ kind: ResourceKind, _ object: KubernetesObject) async throws -> KubernetesObject
    /// Fails with code 409 when `metadata.resourceVersion` is set and no longer current.
    func update(_ kind: ResourceKind, _ object: KubernetesObject, subresource: String?) async throws -> KubernetesObject
    func patch(
        _ kind: ResourceKind, namespace: String?, name: String, subresource: String?, _ patch: KubernetesPatch
    ) async throws -> KubernetesObject
    /// `gracePeriodSeconds` nil leaves the object's own; returns the object as it is after the call.
    @discardableResult
    func delete(_ kind: ResourceKind, namespace: String?, name: String, gracePeriodSeconds: Int?, uid: String?)
        async throws
        -> KubernetesObject
}

/// A part of a list.
package struct ListPage: Sendable {
    package var items: [KubernetesObject]
    package var resourceVersion: String
    /// What the next page is asked for with; nil at the last one.
    package var next: String?

    package init(items: [KubernetesObject], resourceVersion: String, next: String?) {
        self.items = items
        self.resourceVersion = resourceVersion
        self.next = next
    }
}

/// An API whose lists can be read in parts, so that nobody has to hold a whole one.
package protocol KubernetesPagedAPI: KubernetesAPI {
    /// - Parameter next: of the page before; nil begins. Fails with code 410 when the list that it continues is gone.
    func page(
        _ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?, after next: String?
    ) async throws -> ListPage
}

package enum KubernetesPatch: Sendable {
    /// RFC 7386.
    case merge(JSONValue)
    /// RFC 6902.
    case json(JSONValue)

    package var contentType: String {
        switch self {
        case .merge: "application/merge-patch+json"
        case .json: "application/json-patch+json"
        }
    }
}
