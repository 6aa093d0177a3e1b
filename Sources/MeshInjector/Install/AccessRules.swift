import MeshKubernetes

extension InstallManifests {
    /// What the control plane may do: read what the catalog is made of, ask whose a token is, keep its own webhook
    /// configuration, and write in its own namespace alone.
    static var accessRules: [KubernetesObject] {
        let cluster: [JSONValue] = [
            rule([""], ["services", "pods", "namespaces", "serviceaccounts"], ["get", "list", "watch"]),
            rule(["discovery.k8s.io"], ["endpointslices"], ["get", "list", "watch"]),
            rule([""], ["events"], ["create", "patch"]),
            rule(["authentication.k8s.io"], ["tokenreviews"], ["create"]),
            // A name cannot be asked for before the object exists, so creating is a rule of its own.
            rule(["admissionregistration.k8s.io"], ["mutatingwebhookconfigurations"], ["create"]),
            rule(
                ["admissionregistration.k8s.io"], ["mutatingwebhookconfigurations"], ["get", "update", "patch"],
                names: [webhookConfigurationName]),
        ]
        let own: [JSONValue] = [
            rule([""], ["configmaps", "secrets"], ["get", "list", "watch", "create", "update", "patch"])
        ]
        return [
            role("ClusterRole", cluster), binding("ClusterRoleBinding", "ClusterRole"), role("Role", own),
            binding("RoleBinding", "Role"),
        ]
    }

    private static func rule(_ groups: [String], _ resources: [String], _ verbs: [String], names: [String] = [])
        -> JSONValue
    {
        let list = { (texts: [String]) in JSONValue.array(texts.map { .string($0) }) }
        var rule: JSONValue = ["apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)]
        if !names.isEmpty { rule["resourceNames"] = list(names) }
        return rule
    }

    private static func role(_ kind: String, _ rules: [JSONValue]) -> KubernetesObject {
        KubernetesObject([
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": .string(kind),
            "metadata": metadata(MeshInstallation.controlName, isNamespaced: kind == "Role"), "rules": .array(rules),
        ])
    }

    private static func binding(_ kind: String, _ role: String) -> KubernetesObject {
        KubernetesObject([
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": .string(kind),
            "metadata": metadata(MeshInstallation.controlName, isNamespaced: kind == "RoleBinding"),
            "roleRef": [
                "apiGroup": "rbac.authorization.k8s.io", "kind": .string(role),
                "name": .string(MeshInstallation.controlName),
            ],
            "subjects": [
                [
                    "kind": "ServiceAccount", "name": .string(MeshInstallation.controlName),
                    "namespace": .string(MeshInstallation.namespace),
                ]
            ],
        ])
    }
}
