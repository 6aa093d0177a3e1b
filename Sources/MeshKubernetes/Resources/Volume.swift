extension Kubernetes {
    package struct Volume: HasEmpty, Sendable {
        @OrEmpty package var name: String
        package var emptyDir: EmptyDirVolumeSource?
        package var configMap: ConfigMapVolumeSource?
        package var secret: SecretVolumeSource?
        package var projected: ProjectedVolumeSource?
        package var downwardAPI: DownwardAPIVolumeSource?
        package var hostPath: HostPathVolumeSource?

        package init() {}
    }

    package struct VolumeMount: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var mountPath: String
        package var readOnly: Bool?
        package var subPath: String?
        package var subPathExpr: String?
        package var mountPropagation: String?

        package init() {}
    }

    package struct EmptyDirVolumeSource: HasEmpty, Sendable {
        /// `Memory`, or empty for the disk.
        package var medium: String?
        package var sizeLimit: Quantity?

        package init() {}
    }

    package struct ConfigMapVolumeSource: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var items: [KeyToPath]
        /// 0644 when absent.
        package var defaultMode: Int?
        package var optional: Bool?

        package init() {}
    }

    package struct SecretVolumeSource: HasEmpty, Sendable {
        @OrEmpty package var secretName: String
        @OrEmpty package var items: [KeyToPath]
        package var defaultMode: Int?
        package var optional: Bool?

        package init() {}
    }

    package struct KeyToPath: HasEmpty, Sendable {
        @OrEmpty package var key: String
        @OrEmpty package var path: String
        package var mode: Int?

        package init() {}
    }

    package struct HostPathVolumeSource: HasEmpty, Sendable {
        @OrEmpty package var path: String
        package var type: String?

        package init() {}
    }

    package struct DownwardAPIVolumeSource: HasEmpty, Sendable {
        @OrEmpty package var items: [DownwardAPIVolumeFile]
        package var defaultMode: Int?

        package init() {}
    }

    package struct DownwardAPIVolumeFile: HasEmpty, Sendable {
        @OrEmpty package var path: String
        package var fieldRef: ObjectFieldSelector?
        package var resourceFieldRef: ResourceFieldSelector?
        package var mode: Int?

        package init() {}
    }

    package struct ProjectedVolumeSource: HasEmpty, Sendable {
        @OrEmpty package var sources: [VolumeProjection]
        package var defaultMode: Int?

        package init() {}
    }

    package struct VolumeProjection: HasEmpty, Sendable {
        package var serviceAccountToken: ServiceAccountTokenProjection?
        package var configMap: ProjectedItems?
        package var secret: ProjectedItems?
        package var downwardAPI: DownwardAPIVolumeSource?

        package init() {}
    }

    package struct ServiceAccountTokenProjection: HasEmpty, Sendable {
        /// The API server's own audience when absent.
        package var audience: String?
        /// 3,600 when absent.
        package var expirationSeconds: Int?
        @OrEmpty package var path: String

        package init() {}
    }

    /// Keys of a ConfigMap or Secret within a projected volume.
    package struct ProjectedItems: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var items: [KeyToPath]
        package var optional: Bool?

        package init() {}
    }
}
