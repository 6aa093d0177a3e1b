import Foundation
package import MeshKubernetes

/// How one platform runs on a machine. Several may run beside each other with different data directories, bridges, subnets
/// and ports.
package struct PlatformOptions: Sendable {
    package static let standardDataDirectory = "/var/lib/apus"

    /// Objects, logs, the kubeconfig and the record of what was made.
    package var dataDirectory: String
    package var network: NetworkSettings
    package var nodeName: String
    package var clusterDomain: String
    /// Of the API server, on loopback and on the bridge's address.
    package var apiPort: UInt16
    /// Where `apus-proxy` and `apus-control` are; that of the running program when nil.
    package var binaryDirectory: String?
    /// Applied once the platform stands, in their order.
    package var manifests: [KubernetesObject]
    /// The longest that stopping waits for pods; each has its own grace period too.
    package var stopGraceSeconds: Int
    /// The first wait of a container that keeps ending, and the longest, in milliseconds.
    package var restartBaseMilliseconds: Int
    package var restartLimitMilliseconds: Int
    package var volumeRefresh: VolumeRefresh
    /// Whether SIGTERM, SIGINT and SIGHUP stop the platform, a second one at once.
    package var handlesSignals: Bool
    /// What the node and the API server call themselves.
    package var version: String

    package init(
        dataDirectory: String = PlatformOptions.standardDataDirectory, network: NetworkSettings = NetworkSettings(),
        nodeName: String = PlatformOptions.machineName, clusterDomain: String = "cluster.local", apiPort: UInt16 = 6443,
        binaryDirectory: String? = nil, manifests: [KubernetesObject] = [], stopGraceSeconds: Int = 30,
        restartBaseMilliseconds: Int = 10_000, restartLimitMilliseconds: Int = 300_000,
        volumeRefresh: VolumeRefresh = VolumeRefresh(), handlesSignals: Bool = true,
        version: String = "v1.31.0+apus"
    ) {
        self.dataDirectory = dataDirectory
        self.network = network
        self.nodeName = nodeName
        self.clusterDomain = clusterDomain
        self.apiPort = apiPort
        self.binaryDirectory = binaryDirectory
        self.manifests = manifests
        self.stopGraceSeconds = stopGraceSeconds
        self.restartBaseMilliseconds = restartBaseMilliseconds
        self.restartLimitMilliseconds = restartLimitMilliseconds
        self.volumeRefresh = volumeRefresh
        self.handlesSignals = handlesSignals
        self.version = version
    }

    /// The machine's name as a node's name may be: lower-case letters, digits and dashes.
    package static var machineName: String {
        let kept = ProcessInfo.processInfo.hostName.lowercased().map { character in
            character.isASCII && (character.isLetter || character.isNumber) ? character : "-"
        }
        let name = String(kept).split(separator: "-").joined(separator: "-").prefix(63)
        return name.isEmpty ? "apus" : String(name)
    }

    /// The file with which clients find the platform that uses this data directory.
    package static func kubeconfigPath(dataDirectory: String) -> String { dataDirectory + "/kubeconfig" }

    var programDirectory: String {
        if let binaryDirectory { return binaryDirectory }
        let program =
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "/usr/local/bin/apus"
        return String(program[..<(program.lastIndex(of: "/") ?? program.endIndex)])
    }
}

/// One thing that was done on the way up or down.
package struct PlatformProgress: Sendable {
    package enum Step: String, Sendable {
        case checks, cleanUp = "clean up", storage, network, apiServer = "API server", dns = "DNS", pods, manifests,
            ready, stopping
        case stopped
    }

    package var step: Step
    /// What it came to, in a few words.
    package var detail: String
    /// How long it took.
    package var milliseconds: Int
}
