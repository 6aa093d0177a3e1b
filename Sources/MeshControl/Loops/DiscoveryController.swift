internal import MeshAddress
internal import MeshCore
internal import MeshHTTP
internal import MeshIO
internal import MeshXDS

/// What the discovery loop holds: the catalog that streams are answered from, the server of the streams, and its port.
///
/// The port opens when the catalog is complete and the first certificate is there: until then a sidecar goes on with
/// what it knows, and asks again, rather than being told something that is not so.
final class DiscoveryController {
    /// What other loops hear of it, in batches.
    struct Update: Sendable {
        var changed: [DiscoverySubscriberStatus] = []
        var ended: [DiscoverySubscriberStatus] = []
        var statistics: DiscoveryServer.Statistics?
        var convergence = DurationHistogram()
        var acknowledgements: UInt64 = 0
        var transport: GRPCServer.Statistics?
        var signing: CertificateService.Statistics?
        var telemetry: TelemetryService.Statistics?
    }

    /// What happens on the loop, for whom it concerns; all called on the loop.
    struct Listeners {
        /// Ten times a second at most.
        var updated: (Update) -> Void
        var reported: (TelemetryReport) -> Void
        var reporterDisconnected: (ObjectName) -> Void
        /// The port is open, at this address.
        var opened: (SocketAddress) -> Void
        /// Once, when the port cannot be opened.
        var failed: (any Error) -> Void
    }

    let loop: EventLoop
    let grpc: GRPCServer
    private(set) var catalog: Catalog
    private var bundles: [TrustBundle] = []
    private var server: DiscoveryServer?
    private var listener: Listener?
    private let listenAddress: SocketAddress
    private let listeners: Listeners
    private let signer: any CertificateSigner
    private var signing: CertificateService?
    private var telemetry: TelemetryService?
    private var update = Update()
    private var changedByStream: [UInt64: DiscoverySubscriberStatus] = [:]
    private var timer: LoopTimer?
    private var isClosed = false
    /// Sidecars whose pods the catalog does not know yet, and who they showed themselves to be.
    private var unconfirmed: [ObjectName: SPIFFEID] = [:]

    static let unconfirmedLimit = 10_000

    static let updateMilliseconds = 100

    init(
        loop: EventLoop, address: SocketAddress, settings: MeshSettings, signer: any CertificateSigner,
        listeners: Listeners
    ) {
        self.loop = loop
        self.listenAddress = address
        self.catalog = Catalog(settings: settings)
        self.signer = signer
        self.listeners = listeners
        self.grpc = GRPCServer(loop: loop, tls: nil)
        let server = DiscoveryServer(loop: loop, source: self, delegate: self)
        server.register(on: grpc)
        self.server = server
        let signing = CertificateService(loop: loop, signer: signer)
        signing.register(on: grpc)
        self.signing = signing
        let telemetry = TelemetryService(loop: loop, receiver: self)
        telemetry.register(on: grpc)
        self.telemetry = telemetry
        let timer = LoopTimer(loop: loop, target: self)
        timer.arm(afterMilliseconds: Self.updateMilliseconds)
        self.timer = timer
    }

    /// With the real port; nil until it is open.
    var address: SocketAddress? { listener?.address }

    // MARK: Changes

    func apply(_ events: [CatalogEvent], arrivedNanoseconds: UInt64) {
        for event in events {
            for change in catalog.apply(event) { announce(change, arrivedNanoseconds) }
        }
    }

    private func announce(_ change: Catalog.Change, _ arrived: UInt64) {
        guard let server else { return }
        switch change {
        case .service(let name): server.serviceChanged(name, arrivedNanoseconds: arrived)
        case .endpoint(let service, let address):
            if let endpoint = catalog.endpoint(of: service, at: address) {
                server.endpointChanged(endpoint, arrivedNanoseconds: arrived)
            } else {
                server.endpointRemoved(service: service, address: address, arrivedNanoseconds: arrived)
            }
        case .address(let ip): server.destinationsChanged(at: ip, arrivedNanoseconds: arrived)
        case .configuration(let pod):
            if let workload = catalog.workloads[pod] {
                if let identity = unconfirmed.removeValue(forKey: pod), let reason = mismatch(workload, identity) {
                    server.close(pod: pod, reason: reason)
                }
            } else {
                server.close(pod: pod, reason: "the pod is gone")
            }
            server.configurationChanged(of: pod, arrivedNanoseconds: arrived)
        case .everyConfiguration:
            for workload in catalog.workloads.values where workload.isMeshed {
                server.configurationChanged(of: workload.pod, arrivedNanoseconds: arrived)
            }
        case .synchronized:
            server.synchronized()
            openWhenReady()
        }
    }

    /// A new certificate of the control plane, or other roots.
    func use(tls: TLSContext, trusted: TrustBundle) {
        grpc.tls = tls
        if bundles != [trusted] {
            bundles = [trusted]
            server?.trustBundlesChanged(arrivedNanoseconds: UInt64(clamping: MonotonicTime.now().nanoseconds))
        }
        openWhenReady()
    }

    private func openWhenReady() {
        guard listener == nil, !isClosed, catalog.isSynchronized, grpc.tls != nil else { return }
        do {
            let opened = try Listener(loop: loop, address: listenAddress, delegate: grpc)
            listener = opened
            listeners.opened(opened.address)
        } catch {
            listeners.failed(error)
        }
    }

    /// Accepts nothing more, says GOAWAY, and closes what is left when the grace is over.
    func close(graceMilliseconds: Int, _ finished: @escaping () -> Void) {
        isClosed = true
        listener?.close()
        listener = nil
        grpc.shutdown(graceMilliseconds: graceMilliseconds) { [self] in
            timer?.cancel()
            finished()
        }
    }

}

extension DiscoveryController: DiscoverySource {
    var isSynchronized: Bool { catalog.isSynchronized }
    func destination(for address: SocketAddress) -> Destination { catalog.destination(for: address) }
    func service(_ name: ObjectName) -> Service? { catalog.serviceAsLearned(name) }
    func endpoints(of service: ObjectName) -> [Endpoint] { catalog.endpoints(of: service) }
    func configuration(of pod: ObjectName) -> SidecarConfiguration? { catalog.configuration(of: pod) }
    func trustBundles() -> [TrustBundle] { bundles }
}

extension DiscoveryController: DiscoveryServerDelegate, TelemetryReceiver {
    /// Nil when a peer with this identity is the sidecar of this pod, else why not.
    ///
    /// A sidecar may be faster than the platform's word of its pod. It is let in when its identity is of the pod's
    /// namespace, learns nothing of the pod until that word comes, and is sent away if it then turns out to be
    /// another's.
    func refusal(of pod: ObjectName, identity: SPIFFEID) -> String? {
        if let workload = catalog.workloads[pod] { return mismatch(workload, identity) }
        guard identity.serviceAccount?.namespace == pod.namespace else {
            return "\(identity) is not an identity of the namespace of the pod \(pod)"
        }
        guard unconfirmed.count < Self.unconfirmedLimit || unconfirmed[pod] != nil else {
            return "the pod \(pod) is not known here (yet); try again in a moment"
        }
        unconfirmed[pod] = identity
        return nil
    }

    private func mismatch(_ workload: Workload, _ identity: SPIFFEID) -> String? {
        guard let expected = workload.identity else { return "the pod \(workload.pod) has no identity in this mesh" }
        return identity == expected
            ? nil : "\(identity) is not the identity of the pod \(workload.pod), which is \(expected)"
    }

    func sidecarChanged(_ status: DiscoverySubscriberStatus) { changedByStream[status.stream] = status }

    func sidecarDisconnected(_ status: DiscoverySubscriberStatus) {
        changedByStream[status.stream] = nil
        unconfirmed[status.pod] = nil
        update.ended.append(status)
    }

    func converged(nanoseconds: UInt64, subscribers: Int) {
        update.convergence.record(microseconds: nanoseconds / 1000)
        update.acknowledgements &+= UInt64(max(0, subscribers))
    }
}

extension DiscoveryController {
    func received(_ report: TelemetryReport, identity: SPIFFEID) {
        learn(report, identity)
        listeners.reported(report)
    }

    /// A sidecar is heard about its own pod alone, and only once the catalog has confirmed whose it is.
    private func learn(_ report: TelemetryReport, _ identity: SPIFFEID) {
        guard let workload = catalog.workloads[report.pod], mismatch(workload, identity) == nil else { return }
        let arrived = UInt64(clamping: MonotonicTime.now().nanoseconds)
        for change in catalog.learn(report.learnedPorts, of: report.pod) { announce(change, arrived) }
    }

    func reporterDisconnected(_ pod: ObjectName) { listeners.reporterDisconnected(pod) }
}

extension DiscoveryController: TimerTarget {
    func timerFired(_ timer: LoopTimer) {
        update.changed = Array(changedByStream.values)
        update.statistics = server?.statistics
        update.transport = grpc.statistics
        update.signing = signing?.statistics
        update.telemetry = telemetry?.statistics
        listeners.updated(update)
        update.changed = []
        update.ended = []
        changedByStream = [:]
        timer.arm(afterMilliseconds: Self.updateMilliseconds)
    }
}
