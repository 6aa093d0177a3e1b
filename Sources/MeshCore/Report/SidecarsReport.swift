/// The answer of `/api/v1/sidecars`.
package struct SidecarsReport: Sendable, Hashable, Codable {
    package var generatedAt: Timestamp
    /// Ordered by pod.
    package var sidecars: [SidecarStatus]

    package init(generatedAt: Timestamp, sidecars: [SidecarStatus]) {
        self.generatedAt = generatedAt
        self.sidecars = sidecars
    }
}

/// One sidecar, as its streams show it to the control plane.
package struct SidecarStatus: Sendable, Hashable, Codable {
    package enum Synchronization: String, Sendable, Hashable, Codable, CaseIterable {
        /// It acknowledged everything that was sent to it.
        case current
        /// Something that was sent is not acknowledged yet.
        case pending
        /// It refused something: `refusals` says what and why. Its last good state is in force.
        case refused
        /// It has no discovery stream now.
        case disconnected
    }

    package var namespace: String
    package var pod: String
    package var node: String
    package var identity: String
    /// Of `apus-proxy`; empty until it reported.
    package var version: String
    package var synchronization: Synchronization
    package var refusals: [RefusedResource]
    package var certificateNotAfter: Timestamp?
    package var connectedSince: Timestamp?
    package var lastReportAt: Timestamp?
    package var subscriptions: Int

    package init(
        namespace: String, pod: String, node: String = "", identity: String = "", version: String = "",
        synchronization: Synchronization, refusals: [RefusedResource] = [], certificateNotAfter: Timestamp? = nil,
        connectedSince: Timestamp? = nil, lastReportAt: Timestamp? = nil, subscriptions: Int = 0
    ) {
        self.namespace = namespace
        self.pod = pod
        self.node = node
        self.identity = identity
        self.version = version
        self.synchronization = synchronization
        self.refusals = refusals
        self.certificateNotAfter = certificateNotAfter
        self.connectedSince = connectedSince
        self.lastReportAt = lastReportAt
        self.subscriptions = subscriptions
    }
}

/// A resource that a sidecar could not use.
package struct RefusedResource: Sendable, Hashable, Codable {
    /// `Destination`, `Service`, `Endpoint`, `Self` or `TrustBundle`.
    package var type: String
    /// Empty when the refusal was of a whole response.
    package var name: String
    package var reason: String
    package var at: Timestamp

    package init(type: String, name: String, reason: String, at: Timestamp) {
        self.type = type
        self.name = name
        self.reason = reason
        self.at = at
    }
}
