internal import MeshAddress
internal import MeshCore
internal import MeshHTTP
internal import MeshIO
internal import MeshXDS

/// What the overview loop holds: the mesh as queries see it, and their port.
final class OverviewController {
    let loop: EventLoop
    private(set) var overview: MeshOverview
    private var discovery = DiscoveryController.Update()
    private var timer: LoopTimer?
    private var server: QueryServer?
    private let now: () -> Timestamp
    private let readObstacles: () -> [String]
    private let readTroubles: () -> [String]
    private let readMetrics: (inout MetricsPage) -> Void
    private var isDiscoveryOpen = false
    private var catalogTrouble: String?

    /// - Parameters:
    ///   - obstacles: what else keeps this process from being ready (the authority, the webhook).
    ///   - troubles: what else is wrong with it.
    ///   - metrics: the figures of what runs on no loop.
    init(
        loop: EventLoop, overview: MeshOverview, now: @escaping () -> Timestamp, obstacles: @escaping () -> [String],
        troubles: @escaping () -> [String], metrics: @escaping (inout MetricsPage) -> Void
    ) {
        self.loop = loop
        self.overview = overview
        self.now = now
        self.readObstacles = obstacles
        self.readTroubles = troubles
        self.readMetrics = metrics
        let timer = LoopTimer(loop: loop, target: self)
        timer.arm(afterMilliseconds: 1000)
        self.timer = timer
    }

    func open(_ address: SocketAddress) throws {
        server = try QueryServer(loop: loop, address: address, source: self)
    }

    var address: SocketAddress? { server?.address }

    func close() {
        server?.close()
        timer?.cancel()
    }

    private var clock: HealthClock {
        HealthClock(monotonicSeconds: loop.now.nanoseconds / 1_000_000_000, wall: now())
    }

    // MARK: Taking in

    func apply(_ events: [CatalogEvent]) { overview.apply(events) }

    func apply(_ update: DiscoveryController.Update) {
        let clock = clock
        for status in update.changed { overview.sidecars.discoveryChanged(status, now: clock) }
        for status in update.ended { overview.sidecars.discoveryEnded(status, now: clock) }
        discovery = update
    }

    func apply(_ report: TelemetryReport) { overview.take(report, now: clock) }

    func reportsEnded(of pod: ObjectName) { overview.health.forgetReporter(pod) }

    func discoveryOpened() { isDiscoveryOpen = true }

    func certified(pod: ObjectName, notAfter: Timestamp) { overview.certified(pod: pod, notAfter: notAfter) }

    func authorityChanged(rootNotAfter: Timestamp) { overview.rootNotAfter = rootNotAfter }

    func servingChanged(notAfter: Timestamp) { overview.servingNotAfter = notAfter }

    var everyPeerIsCurrent: Bool { overview.sidecars.isEveryConnectedCurrent }

    func catalogFailed(_ reason: String?) { catalogTrouble = reason }
}

extension OverviewController: QueryServer.Source {
    var obstacles: [String] {
        var obstacles = readObstacles()
        if !overview.catalog.isSynchronized { obstacles.append("the catalog is not complete yet") }
        if overview.rootNotAfter == nil { obstacles.append("the certificate authority is not loaded yet") }
        if !isDiscoveryOpen { obstacles.append("the discovery port is not open yet") }
        return obstacles
    }

    var troubles: [String] { readTroubles() + (catalogTrouble.map { ["the catalog's source failed: \($0)"] } ?? []) }

    func overview(_ read: (MeshOverview, HealthClock) -> HTTP1Response) -> HTTP1Response { read(overview, clock) }

    func metrics() -> [UInt8] {
        var page = MetricsPage()
        page.add(
            "apus_control_convergence_seconds",
            "From the arrival of the platform's event to the acknowledgement of the last subscribed sidecar.",
            discovery.convergence)
        page.add(
            .counter, "apus_control_convergence_acknowledgements_total",
            "Sidecars that acknowledged the changes counted in apus_control_convergence_seconds.",
            Double(discovery.acknowledgements))
        if let statistics = discovery.statistics { addStreams(statistics, to: &page) }
        addIntake(to: &page)
        addMesh(to: &page)
        readMetrics(&page)
        return page.bytes
    }

    private func addStreams(_ statistics: DiscoveryServer.Statistics, to page: inout MetricsPage) {
        page.add(.gauge, "apus_control_discovery_streams", "Open discovery streams.", Double(statistics.openStreams))
        let counters: [(String, String, UInt64)] = [
            ("streams_opened_total", "Discovery streams opened.", statistics.streamsOpened),
            ("streams_refused_total", "Discovery streams refused.", statistics.streamsRefused),
            (
                "streams_silent_total", "Discovery streams closed because they acknowledged nothing.",
                statistics.silentStreams
            ),
            ("changes_total", "Changes of what some sidecar subscribes to.", statistics.changes),
            ("responses_total", "Responses sent.", statistics.responses),
            ("resources_sent_total", "Resources sent.", statistics.resourcesSent),
            ("removals_sent_total", "Removals sent.", statistics.removalsSent),
            ("acknowledgements_total", "Responses acknowledged (ACK).", statistics.acknowledgements),
            ("refusals_total", "Responses refused by sidecars (NACK).", statistics.refusals),
            ("invalid_requests_total", "Requests that could not be understood.", statistics.invalidRequests),
            ("resources_oversized_total", "Resources too large to send.", statistics.oversizedResources),
        ]
        for (name, help, value) in counters {
            page.add(.counter, "apus_control_discovery_\(name)", help, Double(value))
        }
    }

    private func addIntake(to page: inout MetricsPage) {
        if let transport = discovery.transport {
            page.add(
                .gauge, "apus_control_connections", "Open connections on the discovery port.",
                Double(transport.openConnections))
            page.add(
                .counter, "apus_control_connections_failed_total", "Connections on the discovery port that failed.",
                Double(transport.connectionsFailed))
        }
        if let signing = discovery.signing {
            page.add(
                .counter, "apus_control_certificate_requests_timed_out_total",
                "Certificate requests that were told to come again because they took too long.",
                Double(signing.timedOut))
        }
        if let telemetry = discovery.telemetry {
            page.add(
                .counter, "apus_control_telemetry_streams_refused_total",
                "Telemetry streams refused: not of the pod they name, or too many.", Double(telemetry.streamsRefused))
            page.add(
                .counter, "apus_control_telemetry_reports_invalid_total",
                "Telemetry reports that could not be understood.",
                Double(telemetry.invalidReports))
        }
    }

    private func addMesh(to page: inout MetricsPage) {
        let catalog = overview.catalog
        page.add(
            .gauge, "apus_control_catalog_synchronized", "Whether the catalog is complete.",
            catalog.isSynchronized ? 1 : 0)
        page.add(
            .gauge, "apus_control_catalog_objects", "What the catalog holds.", label: "kind",
            [
                ("endpoint", Double(catalog.endpointCount)), ("service", Double(catalog.services.count)),
                ("workload", Double(catalog.workloads.count)),
            ])
        page.add(
            .gauge, "apus_control_sidecars", "Sidecars with a discovery stream.",
            Double(overview.sidecars.connectedCount))
        page.add(.gauge, "apus_control_edges", "Edges within the telemetry window.", Double(overview.health.edgeCount))
        page.add(
            .counter, "apus_control_edges_overflowed_total", "Deltas dropped because the window holds no more edges.",
            Double(overview.health.overflowedDeltas))
        page.add(
            .counter, "apus_control_telemetry_reports_total", "Telemetry reports taken in.",
            Double(overview.health.reports))
        page.add(
            .counter, "apus_control_telemetry_reports_unattributed_total",
            "Telemetry reports of pods that the catalog does not know (any more, or yet).",
            Double(overview.unattributedReports))
        if let end = overview.rootNotAfter {
            page.add(
                .gauge, "apus_control_root_expiry_timestamp_seconds", "When the root that signs ends.",
                Double(end.unixSeconds))
        }
        if let end = overview.servingNotAfter {
            page.add(
                .gauge, "apus_control_serving_expiry_timestamp_seconds",
                "When the control plane's own certificate ends.",
                Double(end.unixSeconds))
        }
    }
}

extension OverviewController: TimerTarget {
    func timerFired(_ timer: LoopTimer) {
        let clock = clock
        overview.health.tick(now: clock)
        overview.sidecars.tick(now: clock)
        timer.arm(afterMilliseconds: 1000)
    }
}
