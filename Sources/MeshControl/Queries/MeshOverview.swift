internal import MeshAddress
package import MeshCore
package import MeshXDS

/// Everything that queries are answered from. A value on the loop of its own that answers them, apart from discovery,
/// so that a question about ten thousand services delays no sidecar.
package struct MeshOverview: Sendable {
    package var catalog: Catalog
    package var health: HealthModel
    package var sidecars: SidecarRegistry
    package var version: String
    package var startedAt: Timestamp
    package var rootNotAfter: Timestamp?
    /// Reports of pods that the catalog does not know.
    package private(set) var unattributedReports: UInt64 = 0
    /// When the control plane's own certificate ends.
    package var servingNotAfter: Timestamp?

    package init(version: String, settings: MeshSettings, health: HealthModel, startedAt: Timestamp) {
        self.catalog = Catalog(settings: settings)
        self.health = health
        self.sidecars = SidecarRegistry()
        self.version = version
        self.startedAt = startedAt
    }

    // MARK: Taking in

    package mutating func apply(_ events: [CatalogEvent]) {
        for event in events {
            if case .workloadRemoved(let pod) = event {
                sidecars.podRemoved(pod)
                health.forgetReporter(pod)
            }
            _ = catalog.apply(event)
        }
    }

    // MARK: Reports

    package func status(now: HealthClock) -> StatusReport {
        StatusReport(
            generatedAt: now.wall, controlPlane: controlPlane, services: serviceStatuses(now: now),
            sidecars: sidecarStatuses)
    }

    /// Those whose pods are there, and those that are connected although their pods are not known (yet).
    package var sidecarStatuses: [SidecarStatus] {
        sidecars.statuses { catalog.workloads[$0]?.node ?? "" }.filter { sidecar in
            sidecar.synchronization != .disconnected
                || catalog.workloads[ObjectName(namespace: sidecar.namespace, name: sidecar.pod)] != nil
        }
    }

    /// A report of a pod that is not there (any more, or yet) counts for nothing: what it left would belong to nobody.
    package mutating func take(_ report: TelemetryReport, now: HealthClock) {
        guard let reporter = catalog.workloads[report.pod] else {
            unattributedReports &+= 1
            return
        }
        health.ingest(report, reporter: reporter, now: now)
        sidecars.reported(report, now: now)
    }

    package mutating func certified(pod: ObjectName, notAfter: Timestamp) {
        if catalog.workloads[pod] != nil { sidecars.certified(pod: pod, notAfter: notAfter) }
    }

    private var controlPlane: ControlPlaneStatus {
        ControlPlaneStatus(
            version: version, trustDomain: catalog.settings.trustDomain, startedAt: startedAt,
            isSynchronized: catalog.isSynchronized, rootNotAfter: rootNotAfter, serviceCount: catalog.services.count,
            endpointCount: catalog.endpointCount, workloadCount: catalog.workloads.count,
            sidecarCount: sidecars.connectedCount)
    }

    package func serviceStatuses(now: HealthClock) -> [ServiceStatus] {
        let ejections = health.ejectionsByService()
        return catalog.services.keys.sorted().map { name in
            let endpoints = catalog.endpoints(of: name)
            let observation = observation(of: name, endpoints: endpoints, ejections: ejections[name] ?? [], now: now)
            let judged = VerdictRule.judge(observation, now: now.wall)
            let ejected = Set(observation.ejections.map(\.address)).intersection(endpoints.map(\.address))
            return ServiceStatus(
                namespace: name.namespace, name: name.name, verdict: judged.verdict, reasons: judged.reasons,
                readyEndpoints: observation.readyEndpoints.count, endpoints: endpoints.count,
                meshedEndpoints: observation.meshedEndpoints, ejectedEndpoints: ejected.count,
                figures: observation.traffic.figures)
        }
    }

    private func observation(
        of service: ObjectName, endpoints: [Endpoint], ejections: [EndpointEjection], now: HealthClock
    ) -> ServiceObservation {
        var result = ServiceObservation()
        result.isSynchronized = catalog.isSynchronized
        result.readyEndpoints = Set(endpoints.filter(\.isReady).map(\.address))
        result.endpoints = endpoints.count
        result.meshedEndpoints = endpoints.filter { $0.workload?.isMeshed == true }.count
        result.traffic = health.observation(of: service, now: now)
        result.ejections = ejections
        result.endingCertificates = endpoints.compactMap { endpoint in
            guard let pod = endpoint.workload?.pod, let notAfter = sidecars.certificateNotAfter(of: pod),
                notAfter.seconds(since: now.wall) < VerdictRule.certificateWarningSeconds
            else { return nil }
            return ServiceObservation.Certificate(pod: pod, notAfter: notAfter)
        }
        return result
    }
}
