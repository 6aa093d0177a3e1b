import Dispatch
package import Logging
package import MeshAddress
import MeshCore
import MeshHTTP
package import MeshIO
import MeshIdentity
import MeshTelemetry
package import MeshXDS
import Synchronization

/// The sidecar: a data plane, and on a loop of its own, apart from traffic, everything that keeps it informed: certificates, discovery,
/// telemetry, admin, probes.
package final class Agent: @unchecked Sendable {
    // Unchecked: everything below `loop` is made on it and used on it only, which `LoopBound` and the jobs' places make sure of.
    private let loop: EventLoop
    private let settings: AgentSettings
    private let level: LogLevelBox
    private let logger: Logger
    private let plane: DataPlane
    private let resolver: ControlAddressResolver
    private let drained = DispatchSemaphore(value: 0)

    private var keeper: CertificateKeeper!
    private var channel: ControlChannel!
    private var bridge: DiscoveryBridge!
    private var discovery: DiscoveryClient!
    private var reporter: TelemetryReporter!
    private var telemetry: TelemetryClient!
    private var admin: AdminServer!
    private var isDraining = false
    private var withdrawals: [() -> Void] = []
    private lazy var resolveTimer = LoopTimer(loop: loop, target: self, tag: Agent.resolveTag)
    private lazy var readinessTimer = LoopTimer(loop: loop, target: self, tag: Agent.readinessTag)

    private static let resolveTag = 0
    private static let readinessTag = 1

    private static let resolveAgainMilliseconds = 30_000
    private static let readinessCheckMilliseconds = 1000

    /// Starts everything; throws when a port is taken or the mesh's roots cannot be read.
    package init(settings: AgentSettings, logger original: Logger, ports: AdminPorts = AdminPorts()) throws {
        self.settings = settings
        level = LogLevelBox(settings.logLevel)
        logger = original.following(level)
        loop = try EventLoop.spawn(name: "control")
        resolver = ControlAddressResolver(host: settings.controlHost, port: settings.controlPort)

        let wiring = AgentWiring()
        var configuration = DataPlane.Configuration(logger: logger)
        configuration.loops = settings.loops
        configuration.trustDomain = settings.trustDomain
        configuration.opaquePorts = settings.opaquePorts
        configuration.resolver = AgentResolver(
            loop: loop, ask: { wiring.agent?.discovery.subscribe($0) }, touch: { wiring.agent?.bridge.touch($0) })
        if let format = AccessLogFormat(rawValue: settings.accessLog.rawValue), settings.accessLog != .off {
            configuration.accessLog = (format, StandardOutputLog())
        }
        plane = try DataPlane(configuration)
        wiring.agent = self
        try onLoop { try self.assemble(ports) }
    }

    /// Runs `body` on the control loop and waits for it.
    private func onLoop(_ body: @escaping @Sendable () throws -> Void) throws {
        let done = DispatchSemaphore(value: 0)
        let failure = Mutex<(any Error)?>(nil)
        loop.submit {
            do { try body() } catch { failure.withLock { $0 = error } }
            done.signal()
        }
        done.wait()
        if let error = failure.withLock({ $0 }) { throw error }
    }

    private func assemble(_ ports: AdminPorts) throws {
        let controlIdentity = SPIFFEID(
            trustDomain: settings.trustDomain, namespace: "apus-system", serviceAccount: "apus-control")
        keeper = try CertificateKeeper(loop: loop, settings: settings, controlIdentity: controlIdentity, logger: logger)
        bridge = DiscoveryBridge(loop: loop, plane: plane, keeper: keeper, logger: logger)
        channel = ControlChannel(loop: loop, expectedIdentity: controlIdentity, seed: UInt64.random(in: 0...UInt64.max))
        channel.delegate = self
        discovery = DiscoveryClient(
            channel: channel, pod: settings.pod, version: ApusVersion.current,
            statePath: settings.statePath.map { "\($0)/discovery" }, delegate: bridge)
        telemetry = TelemetryClient(channel: channel, pod: settings.pod)
        reporter = TelemetryReporter(loop: loop, plane: plane, client: telemetry) { [unowned self] in
            TelemetryReport(
                pod: settings.pod, sidecarVersion: ApusVersion.current,
                certificateNotAfterUnixSeconds: keeper.held?.notAfter.unixSeconds ?? 0,
                discoveryVersion: discovery.appliedVersion,
                refusals: bridge.takeRefusals())
        }
        keeper.changed = { [unowned self] held, roots in identityChanged(held, roots) }
        admin = try AdminServer(
            loop: loop, source: self,
            probes: ProbeRunner(loop: loop, table: settings.probes, address: settings.podAddresses.first ?? .loopback4),
            ports: ports)
        keeper.start()
        discovery.start()
        channel.start()
        reporter.start()
        resolve()
        readinessTimer.arm(afterMilliseconds: Agent.readinessCheckMilliseconds)
    }

    /// Once, when the start is over.
    private func releaseStartupPages() {
        guard unreadiness == nil else { return readinessTimer.arm(afterMilliseconds: Agent.readinessCheckMilliseconds) }
        StartupPages.release()
    }

    private func identityChanged(_ held: CertificateKeeper.Held, _ roots: [[UInt8]]) {
        do {
            try plane.use(held.identity, trustRoots: roots)
            channel.tls = try TLSContext.client(identity: held.identity, trustRoots: roots, alpn: ["h2"])
        } catch {
            logger.error("the certificate cannot be used: \(error)")
        }
    }

    // MARK: - The control plane's address

    private func resolve() {
        resolveTimer.arm(afterMilliseconds: Agent.resolveAgainMilliseconds)
        resolver.resolve(on: loop) { result in
            switch result {
            case .success(let addresses):
                self.channel.addresses = addresses
                self.keeper.addresses = addresses
                self.plane.apply([.controlAddresses(addresses.map(\.ip))])
            case .failure(let failure):
                self.logger.warning("\(failure)")
                // Nothing is known yet: the next try comes soon. Otherwise what was known stays.
                if self.channel.addresses.isEmpty { self.resolveTimer.arm(afterMilliseconds: 500) }
            }
        }
    }

    // MARK: - Ending

    /// Serves on until the requests in flight have ended or the drain time is over, then ends everything. The application has gone by then:
    /// the platform ends a native sidecar after it.
    package func stop() {
        loop.submit { self.startDrain() }
        _ = drained.wait(timeout: .now() + .seconds(settings.drainSeconds + 5))
        plane.stop()
        loop.stop()
    }
}

extension Agent: ControlChannelDelegate {
    package func addressesFailed(_ channel: ControlChannel, reason: String) { resolve() }
    package func connected(_ channel: ControlChannel, to address: SocketAddress) {
        logger.debug("the control plane answers at \(address)")
    }
}

extension Agent: TimerTarget {
    package func timerFired(_ timer: LoopTimer) {
        if timer.tag == Agent.readinessTag { releaseStartupPages() } else { resolve() }
    }
}

extension Agent: AdminSource {
    var unreadiness: String? {
        if keeper.held == nil {
            return "there is no certificate yet: \(keeper.lastFailure.isEmpty ? "asked for" : keeper.lastFailure)"
        }
        if bridge.own == nil { return "discovery has not told about this pod yet: \(bridge.state.reason)" }
        return nil
    }

    var logLevel: LogLevel {
        get { level.value }
        set { level.value = newValue }
    }

    func withdraw(completion: @escaping () -> Void) {
        withdrawals.append(completion)
        guard withdrawals.count == 1 else { return }
        Withdrawal.run(
            loop: loop, plane: plane,
            isConfirmed: { [unowned self] in !channel.isConnected || bridge.own?.workload.isTerminating ?? false }
        ) { [unowned self] in
            let waiting = withdrawals
            withdrawals = []
            for completion in waiting { completion() }
        }
    }

    func startDrain() {
        guard !isDraining else { return }
        isDraining = true
        logger.info("draining")
        plane.drain(deadlineMilliseconds: settings.drainSeconds * 1000) { [drained, logger] left in
            if left > 0 { logger.warning("\(left) requests were still under way at the end of the drain time") }
            drained.signal()
        }
    }

    func metrics(completion: @escaping ([UInt8]) -> Void) {
        let reply = LoopBound(completion, loop: loop)
        plane.metrics { [plane] snapshot in
            plane.report { reports in
                self.loop.submit { reply.value(self.page(snapshot, reports)) }
            }
        }
    }

    private func page(_ snapshot: MetricsSnapshot, _ reports: [LoopReport]) -> [UInt8] {
        var text = PrometheusText()
        text.append(snapshot, reports)
        func gauge(_ name: String, _ help: String, _ value: Double) {
            text.begin("apus_proxy_\(name)", .gauge, help)
            text.sample(PrometheusText.Labels(), value)
        }
        gauge(
            "certificate_expiry_timestamp_seconds", "When this sidecar's certificate ends; 0 while it has none.",
            Double(keeper.held?.notAfter.unixSeconds ?? 0))
        gauge("discovery_connected", "Whether the discovery stream stands.", bridge.state.isConnected ? 1 : 0)
        text.begin("apus_proxy_certificate_failures_total", .counter, "Certificates that could not be had.")
        text.sample(PrometheusText.Labels(), keeper.failures)
        text.begin("apus_proxy_certificates_total", .counter, "Certificates received.")
        text.sample(PrometheusText.Labels(), keeper.renewals)
        text.begin("apus_proxy_discovery_refusals_total", .counter, "Resources of discovery that were refused.")
        text.sample(PrometheusText.Labels(), discovery.statistics.refusals)
        text.begin("apus_proxy_telemetry_reports_total", .counter, "Reports sent to the control plane.")
        text.sample(PrometheusText.Labels(), telemetry.sentReports)
        text.begin(
            "apus_proxy_telemetry_edges_dropped_total", .counter,
            "Edges not reported because the control plane was slow for long.")
        text.sample(PrometheusText.Labels(), reporter.droppedEdges)
        text.finish()
        return text.bytes
    }

    func report(completion: @escaping (ProxyReport) -> Void) {
        let reply = LoopBound(completion, loop: loop)
        plane.dump { [plane] dumps in
            plane.report { reports in
                self.loop.submit { reply.value(self.report(dumps, reports)) }
            }
        }
    }

    private func report(_ dumps: [SnapshotDump], _ reports: [LoopReport]) -> ProxyReport {
        let counters = reports.reduce(LoopCounters()) { $0 + $1.counters }
        var state = bridge.state
        state.version = discovery.appliedVersion
        return ProxyReport(
            generatedAt: CertificateKeeper.now, version: ApusVersion.current, namespace: settings.pod.namespace,
            pod: settings.pod.name,
            identity: settings.identity.description, certificateNotAfter: keeper.held?.notAfter, discovery: state,
            own: bridge.own.map { OwnState($0, learnedPorts: ProxyReport.learnedPorts(dumps)) },
            destinations: ProxyReport.destinations(dumps),
            services: ProxyReport.services(dumps),
            counters: Dictionary(counters.named.map { ($0.name, $0.value) }, uniquingKeysWith: { first, _ in first }))
    }
}

/// Lets what is made before the agent call it later.
private final class AgentWiring: @unchecked Sendable {
    // Unchecked: set once, before the data plane can have a question, and read on the control loop afterwards.
    weak var agent: Agent?
}
