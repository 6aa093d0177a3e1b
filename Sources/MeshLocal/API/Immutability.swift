import MeshKubernetes

/// The fields that an update may not change.
enum Immutability {
    static func errors(_ new: KubernetesObject, replacing old: KubernetesObject, served: ServedKind) -> [FieldError] {
        switch served.kind.storageName {
        case "deployments.apps", "replicasets.apps":
            return same(["spec", "selector"], new, old)
        case "jobs.batch":
            return same(["spec", "selector"], new, old) + same(["spec", "completions"], new, old)
                + same(["spec", "template"], new, old)
                + same(["spec", "completionMode"], new, old)
        case "endpointslices.discovery.k8s.io":
            return same(["addressType"], new, old)
        case "services":
            guard old.json[path: "spec", "type"] != "ExternalName", new.json[path: "spec", "type"] != "ExternalName"
            else { return [] }
            return same(["spec", "clusterIP"], new, old)
        case "secrets":
            return same(["type"], new, old) + sealed(new, old)
        case "configmaps":
            return sealed(new, old)
        case "pods":
            return pod(new, old)
        case "customresourcedefinitions.apiextensions.k8s.io":
            return same(["spec", "group"], new, old) + same(["spec", "scope"], new, old)
                + same(["spec", "names", "plural"], new, old)
                + same(["spec", "names", "kind"], new, old)
        case let name where name.hasPrefix("rolebindings.") || name.hasPrefix("clusterrolebindings."):
            return same(["roleRef"], new, old)
        default:
            return []
        }
    }

    private static func value(_ object: KubernetesObject, _ path: [String]) -> JSONValue? {
        path.reduce(object.json) { $0?[$1] }
    }

    private static func same(_ path: [String], _ new: KubernetesObject, _ old: KubernetesObject) -> [FieldError] {
        guard value(new, path) != value(old, path) else { return [] }
        return [.invalid(path.joined(separator: "."), value(new, path), "field is immutable")]
    }

    private static func sealed(_ new: KubernetesObject, _ old: KubernetesObject) -> [FieldError] {
        guard old.json["immutable"]?.bool == true else { return [] }
        return ["data", "binaryData", "immutable"].filter { new.json[$0] != old.json[$0] }.map {
            .forbidden($0, "field is immutable when `immutable` is set")
        }
    }

    /// A running pod keeps its spec, but for the image and the deadline.
    private static func pod(_ new: KubernetesObject, _ old: KubernetesObject) -> [FieldError] {
        func fixed(_ object: KubernetesObject) -> JSONValue {
            var spec = object.json["spec"] ?? [:]
            for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] { spec[field] = nil }
            for list in ["containers", "initContainers"] { spec[list]?.mapElements { $0["image"] = nil } }
            return spec
        }
        guard fixed(new) != fixed(old) else { return [] }
        return [
            .forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, "
                    + "`spec.activeDeadlineSeconds` or `spec.tolerations`")
        ]
    }
}
