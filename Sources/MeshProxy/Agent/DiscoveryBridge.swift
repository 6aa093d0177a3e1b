import Logging
import MeshAddress
import MeshCore
import MeshIO
import MeshXDS

/// Carries what discovery tells to the data loops: the changes of one round of the control loop as one batch, so that a service never
/// takes effect without its endpoints.
final class DiscoveryBridge: DiscoveryClientDelegate, EndOfRoundTarget {
    private let loop: EventLoop
    private let plane: DataPlane
    private let keeper: CertificateKeeper
    private let logger: Logger
    private var changes: [SnapshotChange] = []
    private var bundles: [String: TrustBundle] = [:]
    private var inUse: Set<SocketAddress> = []
    private(set) var own: SidecarConfiguration?
    private(set) var state = DiscoveryState(reason: "not connected yet")
    /// Refused since telemetry last told.
    private var unreported: [ResourceRefusal] = []

    init(loop: EventLoop, plane: DataPlane, keeper: CertificateKeeper, logger: Logger) {
        self.loop = loop
        self.plane = plane
        self.keeper = keeper
        self.logger = logger
    }

    private func note(_ change: SnapshotChange) {
        changes.append(change)
        loop.atEndOfRound(self)
    }

    func endOfRound() {
        let batch = changes
        changes.removeAll(keepingCapacity: batch.count <= 1024)
        plane.apply(batch)
    }

    func touch(_ addresses: [SocketAddress]) { inUse.formUnion(addresses) }

    func takeRefusals() -> [ResourceRefusal] {
        let taken = unreported
        unreported = []
        return taken
    }

    // MARK: - Discovery

    func serviceChanged(_ service: Service) { note(.service(service)) }
    func serviceRemoved(_ name: ObjectName) { note(.serviceRemoved(name)) }
    func endpointChanged(_ endpoint: Endpoint) { note(.endpoint(endpoint)) }
    func endpointRemoved(service: ObjectName, address: IPAddress) {
        note(.endpointRemoved(service: service, address: address))
    }
    func destinationChanged(_ address: SocketAddress, _ destination: Destination) {
        note(.destination(address, destination))
    }
    func destinationForgotten(_ address: SocketAddress) { note(.destinationForgotten(address)) }

    func selfChanged(_ configuration: SidecarConfiguration) {
        own = configuration
        note(.own(configuration))
    }

    func trustBundleChanged(_ bundle: TrustBundle) {
        bundles[bundle.trustDomain] = bundle
        trustChanged()
    }

    func trustBundleRemoved(trustDomain: String) {
        bundles[trustDomain] = nil
        trustChanged()
    }

    private func trustChanged() {
        note(.trustDomains(Set(bundles.keys)))
        keeper.trust(bundles.sorted { $0.key < $1.key }.flatMap(\.value.roots))
    }

    func stateFileIgnored(path: String, reason: String) {
        logger.warning("the last known state at \(path) is not used: \(reason)")
    }

    func resourceRefused(_ refusal: ResourceRefusal) {
        logger.warning("refused \(refusal.type) \(refusal.name): \(refusal.reason)")
        if unreported.count < TelemetryReport.refusalLimit { unreported.append(refusal) }
        state.refusals.removeAll { $0.type == refusal.type && $0.name == refusal.name }
        state.refusals.append(
            RefusedResource(type: refusal.type, name: refusal.name, reason: refusal.reason, at: CertificateKeeper.now))
        if state.refusals.count > TelemetryReport.refusalLimit { state.refusals.removeFirst() }
    }

    func connectionChanged(isConnected: Bool, reason: String) {
        if isConnected != state.isConnected {
            logger.info(isConnected ? "discovery is connected" : "discovery is away: \(reason)")
        }
        state.isConnected = isConnected
        state.reason = isConnected ? "" : reason
    }

    func isInUse(_ address: SocketAddress) -> Bool { inUse.remove(address) != nil }
}

/// Hands the data loops' questions to the control loop.
final class AgentResolver: DestinationResolver {
    private let loop: EventLoop
    private let ask: @Sendable (SocketAddress) -> Void
    private let touch: @Sendable ([SocketAddress]) -> Void

    init(
        loop: EventLoop, ask: @escaping @Sendable (SocketAddress) -> Void,
        touch: @escaping @Sendable ([SocketAddress]) -> Void
    ) {
        self.loop = loop
        self.ask = ask
        self.touch = touch
    }

    func resolve(_ address: SocketAddress) { loop.submit { [ask] in ask(address) } }
    func keepAlive(_ addresses: [SocketAddress]) { loop.submit { [touch] in touch(addresses) } }
}
