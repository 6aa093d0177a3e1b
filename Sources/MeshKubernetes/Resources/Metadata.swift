/// Typed views of the API's documents: structs with the API's own field names. Unknown fields are ignored, absent ones
/// read as nil or empty; a view is for reading and for making new parts, so a document that is written back is changed
/// as `JSONValue`, which loses nothing.
package enum Kubernetes {}

extension Kubernetes {
    package struct ObjectMeta: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var generateName: String
        @OrEmpty package var namespace: String
        @OrEmpty package var uid: String
        @OrEmpty package var resourceVersion: String
        package var generation: Int?
        package var creationTimestamp: KubernetesTime?
        package var deletionTimestamp: KubernetesTime?
        package var deletionGracePeriodSeconds: Int?
        @OrEmpty package var labels: [String: String]
        @OrEmpty package var annotations: [String: String]
        @OrEmpty package var ownerReferences: [OwnerReference]
        @OrEmpty package var finalizers: [String]

        package init() {}

        package var controller: OwnerReference? { ownerReferences.first { $0.controller == true } }
    }

    package struct OwnerReference: HasEmpty, Sendable {
        @OrEmpty package var apiVersion: String
        @OrEmpty package var kind: String
        @OrEmpty package var name: String
        @OrEmpty package var uid: String
        package var controller: Bool?
        package var blockOwnerDeletion: Bool?

        package init() {}
    }

    /// A condition of any kind's status.
    package struct Condition: HasEmpty, Sendable {
        @OrEmpty package var type: String
        /// `True`, `False` or `Unknown`.
        @OrEmpty package var status: String
        @OrEmpty package var reason: String
        @OrEmpty package var message: String
        package var lastTransitionTime: KubernetesTime?
        package var lastProbeTime: KubernetesTime?
        package var lastUpdateTime: KubernetesTime?
        package var observedGeneration: Int?

        package init() {}

        package var isTrue: Bool { status == "True" }
    }

    package struct ObjectReference: HasEmpty, Sendable {
        @OrEmpty package var apiVersion: String
        @OrEmpty package var kind: String
        @OrEmpty package var namespace: String
        @OrEmpty package var name: String
        @OrEmpty package var uid: String
        @OrEmpty package var fieldPath: String

        package init() {}
    }
}

extension KubernetesObject {
    package var meta: Kubernetes.ObjectMeta {
        get throws { try json["metadata"]?.decoded() ?? Kubernetes.ObjectMeta() }
    }

    /// A typed view of the whole document, such as `Kubernetes.Pod`; fails with the path of a field of the wrong type.
    package func view<View: Decodable>(_ type: View.Type = View.self) throws -> View { try json.decoded(as: type) }
}
