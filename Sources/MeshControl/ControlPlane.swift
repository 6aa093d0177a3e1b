internal import Foundation
internal import Logging
package import MeshAddress
package import MeshCore
internal import MeshIO
package import MeshIdentity
internal import MeshTelemetry
internal import MeshXDS
internal import Synchronization

/// The control plane: what runs where, told to sidecars; who they are, certified; how they fare, judged.
///
/// Two loops: one for the streams of sidecars, one for telemetry and queries, each with its own copy of the catalog, so
/// that a question about the whole mesh delays no sidecar. What waits for the platform (token reviews, secrets) runs on
/// neither.
package final class ControlPlane: Sendable {
    package struct Settings: Sendable {
        package var version: String
        /// The mesh's settings until the source tells others.
        package var mesh: MeshSettings
        package var discoveryAddress = SocketAddress(.any6, 15010)
        package var queryAddress = SocketAddress(.any6, 15014)
        /// Its own identity's namespace and service account.
        package var namespace = "apus-system"
        package var serviceAccount = "apus-control"
        /// The names in its certificate.
        package var dnsNames: [String]
        package var authority: AuthorityKeeper.Settings
        package var signing = SigningService.Limits()
        /// How long open streams may go on after `run` was cancelled.
        package var graceMilliseconds = 2000

        package init(version: String, mesh: MeshSettings) {
            self.version = version
            self.mesh = mesh
            self.dnsNames = [
                "apus-control", "apus-control.apus-system", "apus-control.apus-system.svc",
                "apus-control.apus-system.svc.cluster.local",
            ]
            self.authority = AuthorityKeeper.Settings(trustDomain: mesh.trustDomain)
        }
    }

    /// What runs beside it in the same process: the webhook, the platform's client.
    package struct Surroundings: Sendable {
        /// A new certificate for servers of this process, or other roots; from any thread.
        package var certificateChanged: @Sendable (ServingIdentity, TrustBundle) -> Void = { _, _ in }
        /// What keeps them from being ready, a sentence each.
        package var obstacles: @Sendable () -> [String] = { [] }
        /// What is wrong with them besides, a sentence each.
        package var troubles: @Sendable () -> [String] = { [] }
        package var metrics: @Sendable (inout MetricsPage) -> Void = { _ in }

        package init() {}
    }

    private let settings: Settings
    private let source: any CatalogSource
    private let surroundings: Surroundings
    private let keeper: AuthorityKeeper
    private let serving: ServingCertificate
    private let signing: SigningService
    private let discoveryLoop: EventLoop
    private let overviewLoop: EventLoop
    private let discovery: LoopBound<DiscoveryController>
    private let overview: LoopBound<OverviewController>
    private let failures: AsyncStream<any Error>
    private let addresses: Mutex<(discovery: SocketAddress?, query: SocketAddress?)>
    private let logger = Logger(label: "apus.control")

    /// Opens the port for queries; that of discovery opens when the catalog is complete and the authority loaded.
    ///
    /// - Parameter now: the wall clock.
    package init(
        settings: Settings, source: any CatalogSource, reviewer: any TokenReviewer, storage: any AuthorityStorage,
        surroundings: Surroundings = Surroundings(), now: @escaping @Sendable () -> Timestamp = Timestamp.current
    ) throws {
        self.settings = settings
        self.source = source
        self.surroundings = surroundings
        let discoveryLoop = try EventLoop(name: "discovery")
        let overviewLoop = try EventLoop(name: "overview")
        let authorityChanged = Relay<AuthorityKeeper.Current>()
        let certificateChanged = Relay<Void>()
        let peers = Relay<CheckedContinuation<Bool, Never>>()
        let keeper = AuthorityKeeper(
            settings: settings.authority, storage: storage, now: now,
            everyPeerIsCurrent: { await withCheckedContinuation { peers.send($0) } },
            changed: { authorityChanged.send($0) })
        let serving = ServingCertificate(
            identity: SPIFFEID(
                trustDomain: settings.mesh.trustDomain, namespace: settings.namespace,
                serviceAccount: settings.serviceAccount),
            dnsNames: settings.dnsNames, authority: keeper, now: now, changed: { _, _ in certificateChanged.send(()) })
        let signing = SigningService(authority: keeper, reviewer: reviewer, limits: settings.signing, now: now)
        let overview = LoopBound(
            OverviewController(
                loop: overviewLoop,
                overview: MeshOverview(
                    version: settings.version, settings: settings.mesh,
                    health: HealthModel { LatencyHistogram.milliseconds(ofBucket: Int($0)) }, startedAt: now()),
                now: now,
                obstacles: surroundings.obstacles,
                troubles: {
                    surroundings.troubles()
                        + (keeper.trouble.map { ["the certificate authority cannot be kept: \($0)"] } ?? [])
                },
                metrics: { page in
                    signing.addMetrics(to: &page)
                    surroundings.metrics(&page)
                }),
            loop: overviewLoop)
        try overview.value.open(settings.queryAddress)
        let (failures, fail) = AsyncStream.makeStream(of: (any Error).self, bufferingPolicy: .bufferingOldest(1))
        let addresses = Mutex<(discovery: SocketAddress?, query: SocketAddress?)>((nil, overview.value.address))
        let opened = Relay<SocketAddress>()
        let discovery = LoopBound(
            DiscoveryController(
                loop: discoveryLoop, address: settings.discoveryAddress, settings: settings.mesh,
                signer: SigningBridge(signing: signing) { pod, notAfter in
                    overviewLoop.submit { overview.value.certified(pod: pod, notAfter: notAfter) }
                },
                listeners: DiscoveryController.Listeners(
                    updated: { update in overviewLoop.submit { overview.value.apply(update) } },
                    reported: { report in overviewLoop.submit { overview.value.apply(report) } },
                    reporterDisconnected: { pod in overviewLoop.submit { overview.value.reportsEnded(of: pod) } },
                    opened: { opened.send($0) }, failed: { fail.yield($0) })),
            loop: discoveryLoop)
        self.keeper = keeper
        self.serving = serving
        self.signing = signing
        self.discoveryLoop = discoveryLoop
        self.overviewLoop = overviewLoop
        self.discovery = discovery
        self.overview = overview
        self.failures = failures
        self.addresses = addresses
        authorityChanged.receive { [weak self] in self?.authorityChanged($0) }
        certificateChanged.receive { [weak self] in self?.useCertificate() }
        opened.receive { [weak self] in self?.discoveryOpened($0) }
        peers.receive { continuation in
            let isTaken = overviewLoop.submit { continuation.resume(returning: overview.value.everyPeerIsCurrent) }
            if !isTaken { continuation.resume(returning: false) }
        }
    }

    /// Where discovery listens; nil until it does.
    package var discoveryAddress: SocketAddress? { addresses.withLock { $0.discovery } }
    package var queryAddress: SocketAddress? { addresses.withLock { $0.query } }
    package var trustBundle: TrustBundle? { keeper.current?.trusted }

    /// Works until cancelled, then closes what is open; throws when the discovery port cannot be opened.
    package func run() async throws {
        let (ended, end) = AsyncStream.makeStream(of: Void.self)
        for loop in [discoveryLoop, overviewLoop] {
            let thread = Thread {
                loop.run()
                end.yield()
            }
            thread.name = loop.name
            thread.start()
        }
        let result: Result<Void, any Error>
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { await self.keeper.run() }
                group.addTask { await self.serving.run() }
                group.addTask { await self.followCatalog() }
                group.addTask { try await self.waitForFailure() }
                defer { group.cancelAll() }
                try await group.next()
            }
            result = .success(())
        } catch {
            result = .failure(error)
        }
        await close()
        // What lives on the loops may go with its owner only when no thread runs them any more. The wait must not end
        // early because this task is cancelled, so it is another task's.
        await Task.detached { for await _ in ended.prefix(2) {} }.value
        try result.get()
    }

    private func waitForFailure() async throws {
        for await failure in failures { throw failure }
    }

    /// Runs the source, and again when it fails.
    private func followCatalog() async {
        var failures = 0
        while !Task.isCancelled {
            let began = MonotonicTime.now()
            do {
                try await source.run { [self] events, arrived in deliver(events, arrived) }
                guard !Task.isCancelled else { return }
                reportCatalog("it ended")
            } catch {
                guard !Task.isCancelled else { return }
                logger.error("the catalog's source failed: \(error)")
                reportCatalog("\(error)")
            }
            if MonotonicTime.now().nanoseconds(since: began) > 60_000_000_000 { failures = 0 }
            failures = min(failures + 1, 6)
            try? await Task.sleep(for: .milliseconds(Int(Double(200 << failures) * Double.random(in: 0.5...1))))
            reportCatalog(nil)
        }
    }

    private func deliver(_ events: [CatalogEvent], _ arrived: UInt64) {
        let (discovery, overview) = (discovery, overview)
        submit(to: discoveryLoop) { discovery.value.apply(events, arrivedNanoseconds: arrived) }
        submit(to: overviewLoop) { overview.value.apply(events) }
    }

    /// An event may not be lost: while the loop's queue is full, whoever delivers waits. A loop that takes nothing for
    /// ten seconds has ended.
    private func submit(to loop: EventLoop, _ job: @escaping @Sendable () -> Void) {
        for _ in 0..<10_000 {
            if loop.submit(job) { return }
            Thread.sleep(forTimeInterval: 0.001)
        }
        logger.error("the loop '\(loop.name)' took no catalog event for ten seconds")
    }

    private func reportCatalog(_ failure: String?) {
        let overview = overview
        overviewLoop.submit { overview.value.catalogFailed(failure) }
    }

    // MARK: Certificates

    private func authorityChanged(_ current: AuthorityKeeper.Current) {
        let overview = overview
        let notAfter = current.authority.rootNotAfter
        overviewLoop.submit { overview.value.authorityChanged(rootNotAfter: notAfter) }
        serving.step()
        useCertificate()
    }

    private func useCertificate() {
        guard let identity = serving.current, let trusted = keeper.current?.trusted else { return }
        do {
            let tls = try TLSContext.server(
                identity: TLSContext.Identity(chain: identity.certificate.chain, privateKeyDER: identity.privateKeyDER),
                trustRoots: trusted.roots, clientCertificate: .optional, alpn: ["h2"])
            let discovery = discovery
            discoveryLoop.submit { discovery.value.use(tls: tls, trusted: trusted) }
        } catch {
            logger.error("the control plane's own certificate cannot be used: \(error)")
            return
        }
        let overview = overview
        let notAfter = identity.certificate.notAfter
        overviewLoop.submit { overview.value.servingChanged(notAfter: notAfter) }
        surroundings.certificateChanged(identity, trusted)
    }

    // MARK: Ports

    private func discoveryOpened(_ address: SocketAddress) {
        addresses.withLock { $0.discovery = address }
        let overview = overview
        overviewLoop.submit { overview.value.discoveryOpened() }
        logger.notice("discovery is open", metadata: ["address": "\(address)"])
    }

    private func close() async {
        let (discovery, overview) = (discovery, overview)
        let grace = settings.graceMilliseconds
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let isTaken = discoveryLoop.submit {
                discovery.value.close(graceMilliseconds: grace) { continuation.resume() }
            }
            if !isTaken { continuation.resume() }
        }
        try? await overviewLoop.perform { overview.value.close() }
        discoveryLoop.stop()
        overviewLoop.stop()
    }
}

/// Leads calls to whoever is made after those that call; before that they go nowhere.
private final class Relay<Value>: Sendable {
    private let receiver = Mutex<(@Sendable (Value) -> Void)?>(nil)

    func receive(_ body: @escaping @Sendable (Value) -> Void) { receiver.withLock { $0 = body } }

    func send(_ value: Value) {
        let body = receiver.withLock { $0 }
        body?(value)
    }
}

extension Timestamp {
    /// The machine's wall clock.
    @Sendable package static func current() -> Timestamp {
        Timestamp(unixMilliseconds: Int64(Date().timeIntervalSince1970 * 1000))
    }
}
