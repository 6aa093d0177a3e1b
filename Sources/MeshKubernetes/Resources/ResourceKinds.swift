extension ResourceKind {
    package static let replicaSet = ResourceKind(
        group: "apps", version: "v1", kind: "ReplicaSet", plural: "replicasets", isNamespaced: true, shortNames: ["rs"])
    package static let statefulSet = ResourceKind(
        group: "apps", version: "v1", kind: "StatefulSet", plural: "statefulsets", isNamespaced: true,
        shortNames: ["sts"])
    package static let daemonSet = ResourceKind(
        group: "apps", version: "v1", kind: "DaemonSet", plural: "daemonsets", isNamespaced: true, shortNames: ["ds"])
    package static let cronJob = ResourceKind(
        group: "batch", version: "v1", kind: "CronJob", plural: "cronjobs", isNamespaced: true, shortNames: ["cj"])
    package static let role = rbac("Role", "roles", isNamespaced: true)
    package static let roleBinding = rbac("RoleBinding", "rolebindings", isNamespaced: true)
    package static let clusterRole = rbac("ClusterRole", "clusterroles", isNamespaced: false)
    package static let clusterRoleBinding = rbac("ClusterRoleBinding", "clusterrolebindings", isNamespaced: false)
    /// Only created, never stored: the answer is in the status of what the call returns.
    package static let tokenReview = ResourceKind(
        group: "authentication.k8s.io", version: "v1", kind: "TokenReview", plural: "tokenreviews", isNamespaced: false)
    package static let subjectAccessReview = ResourceKind(
        group: "authorization.k8s.io", version: "v1", kind: "SubjectAccessReview", plural: "subjectaccessreviews",
        isNamespaced: false)

    private static func rbac(_ kind: String, _ plural: String, isNamespaced: Bool) -> ResourceKind {
        ResourceKind(
            group: "rbac.authorization.k8s.io", version: "v1", kind: kind, plural: plural, isNamespaced: isNamespaced)
    }
}
