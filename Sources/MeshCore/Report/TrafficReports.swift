/// The answer of `/api/v1/stat?from=&to=&namespace=`: golden metrics by source and destination over the last 60
/// seconds.
package struct StatReport: Sendable, Hashable, Codable {
    package var generatedAt: Timestamp
    package var windowSeconds: Int
    /// The busiest first.
    package var rows: [StatRow]
    /// Edges that are not among the rows because the window holds no more than its limit.
    package var overflowedEdges: Int

    package init(generatedAt: Timestamp, windowSeconds: Int, rows: [StatRow], overflowedEdges: Int) {
        self.generatedAt = generatedAt
        self.windowSeconds = windowSeconds
        self.rows = rows
        self.overflowedEdges = overflowedEdges
    }
}

package struct StatRow: Sendable, Hashable, Codable {
    package var source: TrafficParty
    package var destination: TrafficParty
    /// `http1`, `http2`, `grpc`, `tls` or `opaque`.
    package var applicationProtocol: String
    package var figures: TrafficFigures
    /// Answers in the window by class: `2xx`, `5xx`, or a reason such as `connect_failed` for those the sidecar made.
    package var responses: [String: UInt64]

    package init(
        source: TrafficParty, destination: TrafficParty, applicationProtocol: String, figures: TrafficFigures,
        responses: [String: UInt64]
    ) {
        self.source = source
        self.destination = destination
        self.applicationProtocol = applicationProtocol
        self.figures = figures
        self.responses = responses
    }
}

/// One end of an edge: a workload's owner as the source, a service (or an owner dialled directly) as the destination.
package struct TrafficParty: Sendable, Hashable, Codable {
    /// Empty for what is outside the mesh's platform.
    package var namespace: String
    /// An address for what has no name.
    package var name: String
    /// The SPIFFE ID; empty when the connection carried none.
    package var identity: String

    package init(namespace: String, name: String, identity: String = "") {
        self.namespace = namespace
        self.name = name
        self.identity = identity
    }
}

/// The answer of `/api/v1/edges`: who talks to whom.
package struct EdgesReport: Sendable, Hashable, Codable {
    package var generatedAt: Timestamp
    package var windowSeconds: Int
    /// Ordered by source and destination.
    package var edges: [EdgeRow]
    package var overflowedEdges: Int

    package init(generatedAt: Timestamp, windowSeconds: Int, edges: [EdgeRow], overflowedEdges: Int) {
        self.generatedAt = generatedAt
        self.windowSeconds = windowSeconds
        self.edges = edges
        self.overflowedEdges = overflowedEdges
    }
}

package struct EdgeRow: Sendable, Hashable, Codable {
    package enum Security: String, Sendable, Hashable, Codable, CaseIterable {
        case mutualTLS = "mutual_tls"
        case plaintext
        /// Some connections were encrypted, some not.
        case mixed
    }

    package var source: TrafficParty
    package var destination: TrafficParty
    package var security: Security
    package var requestsPerSecond: Double
    package var openConnections: Int
    package var lastSeenAt: Timestamp

    package init(
        source: TrafficParty, destination: TrafficParty, security: Security, requestsPerSecond: Double,
        openConnections: Int,
        lastSeenAt: Timestamp
    ) {
        self.source = source
        self.destination = destination
        self.security = security
        self.requestsPerSecond = requestsPerSecond
        self.openConnections = openConnections
        self.lastSeenAt = lastSeenAt
    }
}
