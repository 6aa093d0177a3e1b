import MeshCore
package import MeshKubernetes

/// What every injected sidecar gets, whatever its pod says.
package struct InjectionSettings: Sendable, Hashable {
    package var image: String
    /// Nil leaves the platform's default.
    package var imagePullPolicy: String?
    package var version: String
    package var trustDomain: String
    /// `host:port` of the control plane's streams.
    package var controlAddress: String
    /// The roots, in PEM, that verify the first connection to the control plane.
    package var trustBundle: String
    package var cpuRequest: Quantity
    package var memoryRequest: Quantity
    package var cpuLimit: Quantity?
    package var memoryLimit: Quantity?
    /// Namespaces whose pods are never touched: the platform's own and the mesh's own.
    package var excludedNamespaces: Set<String>

    package static let systemNamespaces: Set<String> = [
        "kube-system", "kube-public", "kube-node-lease", MeshInstallation.namespace,
    ]

    package init(
        image: String? = nil, imagePullPolicy: String? = nil, version: String = ApusVersion.current,
        trustDomain: String = "cluster.local",
        controlAddress: String = "apus-control.apus-system.svc.cluster.local:15010", trustBundle: String = "",
        cpuRequest: Quantity = "10m", memoryRequest: Quantity = "32Mi", cpuLimit: Quantity? = nil,
        memoryLimit: Quantity? = nil,
        excludedNamespaces: Set<String> = systemNamespaces
    ) {
        self.image = image ?? "apus/proxy:\(version)"
        self.imagePullPolicy = imagePullPolicy
        self.version = version
        self.trustDomain = trustDomain
        self.controlAddress = controlAddress
        self.trustBundle = trustBundle
        self.cpuRequest = cpuRequest
        self.memoryRequest = memoryRequest
        self.cpuLimit = cpuLimit
        self.memoryLimit = memoryLimit
        self.excludedNamespaces = excludedNamespaces
    }
}
