import Logging
import MeshAddress
import MeshKubernetes

/// What all pods of the machine share.
struct PodPlatform: Sendable {
    let api: any KubernetesAPI
    let tokens: any TokenIssuer
    let spawner: ContainerSpawner
    let network: BridgeNetwork
    let journal: PlatformJournal
    let log: Logger
    let nodeName: String
    let clusterDomain: String
    let dataDirectory: String
    /// Where `apus-proxy` and `apus-control` are.
    let binaryDirectory: String
    /// PEM, with which pods verify the API server.
    let clusterCertificates: String
    let apiAddress: SocketAddress
    let capacity: NodeCapacity
    var restartDelays = RestartDelays()
    var volumeRefresh = VolumeRefresh()
    /// The name servers and search list of a pod with `dnsPolicy: Default`.
    var hostResolvers = HostResolvers()

    func podDirectory(_ uid: String) -> String { "\(dataDirectory)/pods/\(uid)" }
    func logDirectory(_ uid: String) -> PodLogDirectory { PodLogDirectory(path: "\(dataDirectory)/logs/\(uid)") }
    var stageDirectory: String { dataDirectory + "/stage" }
}

/// How what a running pod reads from the API through its volumes is kept fresh.
package struct VolumeRefresh: Sendable, Hashable {
    /// Between two looks at the ConfigMaps, Secrets, fields and tokens of a pod.
    package var periodMilliseconds: Int
    /// A token is replaced when four fifths of its life are over, or at this age, as a kubelet does.
    package var tokenAgeLimitSeconds: Int

    package init(periodMilliseconds: Int = 20_000, tokenAgeLimitSeconds: Int = 86_400) {
        self.periodMilliseconds = periodMilliseconds
        self.tokenAgeLimitSeconds = tokenAgeLimitSeconds
    }

    /// Whether a token is young enough to stay. One from the future was issued before the clock was set back. All times in seconds.
    package func keepsToken(issued: Int64, expires: Int64, now: Int64) -> Bool {
        let life = min((expires - issued) / 5 * 4, Int64(tokenAgeLimitSeconds))
        return now >= issued - 60 && now - issued < life
    }
}

/// How long a container that ended waits before it is started again: at once the first time, then 10 s, doubling to 5
/// minutes; a container that ran for twice the limit starts over. Pure.
package struct RestartDelays: Sendable, Hashable {
    package var baseMilliseconds: Int
    package var limitMilliseconds: Int

    package init(baseMilliseconds: Int = 10_000, limitMilliseconds: Int = 300_000) {
        self.baseMilliseconds = baseMilliseconds
        self.limitMilliseconds = limitMilliseconds
    }

    /// `consecutive` counts the restarts since the container last ran for long.
    package func delayMilliseconds(consecutive: Int) -> Int {
        guard consecutive > 0 else { return 0 }
        return min(limitMilliseconds, baseMilliseconds << min(consecutive - 1, 16))
    }

    package func isLongRun(milliseconds: Int) -> Bool { milliseconds >= 2 * limitMilliseconds }
}
