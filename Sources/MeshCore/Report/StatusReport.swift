/// What the mesh thinks of a service.
package enum Verdict: String, Sendable, Hashable, Codable, CaseIterable {
    case healthy
    /// It serves, but worse than it should: the reason says what.
    case degraded
    /// Callers cannot rely on it.
    case failing
    /// It could serve, and nobody asked within the window.
    case idle
    /// There is nothing to judge by: no endpoint has a sidecar and no caller reported.
    case unknown
}

/// The answer of `/api/v1/status`: every service and every sidecar in a few figures each.
package struct StatusReport: Sendable, Hashable, Codable {
    package var generatedAt: Timestamp
    package var controlPlane: ControlPlaneStatus
    /// Ordered by namespace and name.
    package var services: [ServiceStatus]
    /// Ordered by pod.
    package var sidecars: [SidecarStatus]

    package init(
        generatedAt: Timestamp, controlPlane: ControlPlaneStatus, services: [ServiceStatus], sidecars: [SidecarStatus]
    ) {
        self.generatedAt = generatedAt
        self.controlPlane = controlPlane
        self.services = services
        self.sidecars = sidecars
    }
}

package struct ControlPlaneStatus: Sendable, Hashable, Codable {
    package var version: String
    package var trustDomain: String
    package var startedAt: Timestamp
    /// Whether everything that the platform runs is known, so that answers are complete.
    package var isSynchronized: Bool
    /// When the root that signs ends; nil before the authority is loaded.
    package var rootNotAfter: Timestamp?
    package var serviceCount: Int
    package var endpointCount: Int
    package var workloadCount: Int
    package var sidecarCount: Int

    package init(
        version: String, trustDomain: String, startedAt: Timestamp, isSynchronized: Bool, rootNotAfter: Timestamp?,
        serviceCount: Int, endpointCount: Int, workloadCount: Int, sidecarCount: Int
    ) {
        self.version = version
        self.trustDomain = trustDomain
        self.startedAt = startedAt
        self.isSynchronized = isSynchronized
        self.rootNotAfter = rootNotAfter
        self.serviceCount = serviceCount
        self.endpointCount = endpointCount
        self.workloadCount = workloadCount
        self.sidecarCount = sidecarCount
    }
}

/// One service over the last 60 seconds.
package struct ServiceStatus: Sendable, Hashable, Codable {
    package var namespace: String
    package var name: String
    package var verdict: Verdict
    /// Why, in words, the most serious first; never empty.
    package var reasons: [String]
    package var readyEndpoints: Int
    package var endpoints: Int
    /// Endpoints that have a sidecar.
    package var meshedEndpoints: Int
    /// Endpoints that at least one caller has ejected.
    package var ejectedEndpoints: Int
    package var figures: TrafficFigures

    package init(
        namespace: String, name: String, verdict: Verdict, reasons: [String], readyEndpoints: Int, endpoints: Int,
        meshedEndpoints: Int, ejectedEndpoints: Int, figures: TrafficFigures
    ) {
        self.namespace = namespace
        self.name = name
        self.verdict = verdict
        self.reasons = reasons
        self.readyEndpoints = readyEndpoints
        self.endpoints = endpoints
        self.meshedEndpoints = meshedEndpoints
        self.ejectedEndpoints = ejectedEndpoints
        self.figures = figures
    }
}

/// Golden metrics over the window; what there was no traffic to measure by is nil.
package struct TrafficFigures: Sendable, Hashable, Codable {
    package var requestsPerSecond: Double
    /// From 0 to 1: requests whose answer was not a failure of the server's side (5xx, a reset, a refusal).
    package var successRate: Double?
    package var p50Milliseconds: Double?
    package var p95Milliseconds: Double?
    package var p99Milliseconds: Double?
    /// Tries beyond the first, a second.
    package var retriesPerSecond: Double
    package var openConnections: Int
    package var sentBytesPerSecond: Double
    package var receivedBytesPerSecond: Double

    package init(
        requestsPerSecond: Double = 0, successRate: Double? = nil, p50Milliseconds: Double? = nil,
        p95Milliseconds: Double? = nil, p99Milliseconds: Double? = nil, retriesPerSecond: Double = 0,
        openConnections: Int = 0, sentBytesPerSecond: Double = 0, receivedBytesPerSecond: Double = 0
    ) {
        self.requestsPerSecond = requestsPerSecond
        self.successRate = successRate
        self.p50Milliseconds = p50Milliseconds
        self.p95Milliseconds = p95Milliseconds
        self.p99Milliseconds = p99Milliseconds
        self.retriesPerSecond = retriesPerSecond
        self.openConnections = openConnections
        self.sentBytesPerSecond = sentBytesPerSecond
        self.receivedBytesPerSecond = receivedBytesPerSecond
    }
}
