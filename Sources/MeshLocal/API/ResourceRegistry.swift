import MeshKubernetes
import Synchronization

/// A kind that this server answers for.
struct ServedKind: Sendable {
    var kind: ResourceKind
    /// Whether `status` is written through its own subresource.
    var hasStatus: Bool
    /// Whether `metadata.generation` counts the changes of everything but metadata and status.
    var hasGeneration: Bool
    /// Only created, and answered at once: a review.
    var isVirtual = false
    var verbs: [String] {
        isVirtual ? ["create"] : ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    }
    var categories: [String] = []
    var singular: String
    /// The rest is for kinds that a CustomResourceDefinition declares.
    var schema: StructuralSchema?
    var columns: [PrinterColumn] = []
    var isCustom = false

    init(
        _ kind: ResourceKind, hasStatus: Bool = false, hasGeneration: Bool = false, isVirtual: Bool = false,
        categories: [String] = []
    ) {
        self.kind = kind
        self.hasStatus = hasStatus
        self.hasGeneration = hasGeneration
        self.isVirtual = isVirtual
        self.categories = categories
        self.singular = kind.kind.lowercased()
    }
}

/// A column that a CustomResourceDefinition adds to the table.
struct PrinterColumn: Hashable, Sendable {
    var name: String
    var type: String
    /// Names joined by dots, of the simple form `.spec.replicas` or `.status.conditions[?(@.type=="Ready")].status`.
    var path: String
    var priority: Int
}

/// The kinds that are served: those built in, and those that CustomResourceDefinitions declare.
final class ResourceRegistry: Sendable {
    private struct Identifier: Hashable {
        var group: String
        var version: String
        var plural: String
    }

    private struct State {
        var served: [Identifier: ServedKind] = [:]
        var custom: [String: [Identifier]] = [:]
    }

    private let state: Mutex<State>

    init() {
        var state = State()
        for served in Self.builtIn { state.served[Self.identifier(served.kind)] = served }
        self.state = Mutex(state)
    }

    private static func identifier(_ kind: ResourceKind) -> Identifier {
        Identifier(group: kind.group, version: kind.version, plural: kind.plural)
    }

    func served(group: String, version: String, plural: String) -> ServedKind? {
        state.withLock { $0.served[Identifier(group: group, version: version, plural: plural)] }
    }

    func served(_ kind: ResourceKind) -> ServedKind? {
        state.withLock { $0.served[Self.identifier(kind)] }
    }

    /// The kind with this group and name, in any version.
    func served(group: String, kindName: String) -> ServedKind? {
        all.first { $0.kind.group == group && $0.kind.kind == kindName }
    }

    /// A kind that lives under this name in the storage, in any version.
    func served(storageName: String) -> ServedKind? {
        all.first { $0.kind.storageName == storageName }
    }

    /// Ordered by group, version and plural.
    var all: [ServedKind] {
        state.withLock { state in
            state.served.values.sorted {
                ($0.kind.group, $0.kind.version, $0.kind.plural) < ($1.kind.group, $1.kind.version, $1.kind.plural)
            }
        }
    }

    /// Serves what a CustomResourceDefinition declares, instead of what it declared before.
    func declare(_ definition: CustomDefinition) {
        state.withLock { state in
            for identifier in state.custom[definition.name] ?? [] { state.served[identifier] = nil }
            var identifiers: [Identifier] = []
            for served in definition.served {
                let identifier = Self.identifier(served.kind)
                guard state.served[identifier] == nil else { continue }
                state.served[identifier] = served
                identifiers.append(identifier)
            }
            state.custom[definition.name] = identifiers
        }
    }

    func withdraw(definition name: String) {
        state.withLock { state in
            for identifier in state.custom.removeValue(forKey: name) ?? [] { state.served[identifier] = nil }
        }
    }

    private static let builtIn: [ServedKind] = [
        ServedKind(.namespace, hasStatus: true),
        ServedKind(.node, hasStatus: true),
        ServedKind(.pod, hasStatus: true, hasGeneration: true, categories: ["all"]),
        ServedKind(.service, hasStatus: true, categories: ["all"]),
        ServedKind(.serviceAccount),
        ServedKind(.configMap),
        ServedKind(.secret),
        ServedKind(.event),
        ServedKind(.deployment, hasStatus: true, hasGeneration: true, categories: ["all"]),
        ServedKind(.replicaSet, hasStatus: true, hasGeneration: true, categories: ["all"]),
        ServedKind(.job, hasStatus: true, hasGeneration: true, categories: ["all"]),
        ServedKind(.endpointSlice, hasGeneration: true),
        ServedKind(.lease),
        ServedKind(.mutatingWebhookConfiguration, hasGeneration: true, categories: ["api-extensions"]),
        ServedKind(.customResourceDefinition, hasStatus: true, hasGeneration: true, categories: ["api-extensions"]),
        ServedKind(.clusterRole), ServedKind(.clusterRoleBinding), ServedKind(.role), ServedKind(.roleBinding),
        ServedKind(.tokenReview, isVirtual: true),
        ServedKind(.subjectAccessReview, isVirtual: true),
        ServedKind(.selfSubjectAccessReview, isVirtual: true),
    ]
}

extension ResourceKind {
    static let selfSubjectAccessReview = ResourceKind(
        group: "authorization.k8s.io", version: "v1", kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        isNamespaced: false)
}
