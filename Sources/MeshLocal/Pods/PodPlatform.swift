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
    /// The name servers and search list of a pod with `dnsPolicy: Default`.
    var hostResolvers = HostResolvers()

    func podDirectory(_ uid: String) -> String { "\(dataDirectory)/pods/\(uid)" }
    func logDirectory(_ uid: String) -> PodLogDirectory { PodLogDirectory(path: "\(dataDirectory)/logs/\(uid)") }
    var stageDirectory: String { dataDirectory + "/stage" }
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
