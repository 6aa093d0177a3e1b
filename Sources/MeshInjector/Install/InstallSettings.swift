package import MeshCore

/// What an installation of the mesh on a platform is made with.
package struct InstallSettings: Sendable, Hashable {
    package var version: String
    package var controlImage: String
    package var proxyImage: String
    /// Nil leaves the platform's default.
    package var imagePullPolicy: String?
    package var replicas: Int
    package var mesh: MeshSettings
    package var logLevel: String
    package var cpuRequest: String
    package var memoryRequest: String

    package init(
        version: String = ApusVersion.current, controlImage: String? = nil, proxyImage: String? = nil,
        imagePullPolicy: String? = nil, replicas: Int = 1, mesh: MeshSettings = MeshSettings(),
        logLevel: String = "info",
        cpuRequest: String = "100m", memoryRequest: String = "64Mi"
    ) {
        self.version = version
        self.controlImage = controlImage ?? "apus/control:\(version)"
        self.proxyImage = proxyImage ?? "apus/proxy:\(version)"
        self.imagePullPolicy = imagePullPolicy
        self.replicas = replicas
        self.mesh = mesh
        self.logLevel = logLevel
        self.cpuRequest = cpuRequest
        self.memoryRequest = memoryRequest
    }
}
