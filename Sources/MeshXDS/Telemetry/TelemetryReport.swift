package import MeshAddress
package import MeshCore

/// What a sidecar tells the control plane, once a second at most: what changed on its edges, and its own state.
package struct TelemetryReport: Sendable, Hashable {
    /// The reporting pod. The service fills it in from the stream's first message and the sender's certificate.
    package var pod: ObjectName
    package var sidecarVersion: String
    /// When the sidecar's own certificate ends, seconds since 1970; 0 while it has none.
    package var certificateNotAfterUnixSeconds: Int64
    /// The version of the last discovery response that was applied; empty before the first.
    package var discoveryVersion: String
    /// How long the deltas were collected.
    package var intervalMilliseconds: Int
    /// Edges whose counts changed.
    package var edges: [EdgeDelta]
    /// Every ejection in force, not only new ones.
    package var ejections: [EjectionReport]
    /// Resources refused since the last report.
    package var refusals: [ResourceRefusal]
    /// What the sidecar has found out of its own pod's ports, all of it.
    package var learnedPorts: [UInt16: LearnedProtocol]

    package init(
        pod: ObjectName, sidecarVersion: String = "", certificateNotAfterUnixSeconds: Int64 = 0,
        discoveryVersion: String = "",
        intervalMilliseconds: Int = 1000, edges: [EdgeDelta] = [], ejections: [EjectionReport] = [],
        refusals: [ResourceRefusal] = [], learnedPorts: [UInt16: LearnedProtocol] = [:]
    ) {
        self.pod = pod
        self.sidecarVersion = sidecarVersion
        self.certificateNotAfterUnixSeconds = certificateNotAfterUnixSeconds
        self.discoveryVersion = discoveryVersion
        self.intervalMilliseconds = intervalMilliseconds
        self.edges = edges
        self.ejections = ejections
        self.refusals = refusals
        self.learnedPorts = learnedPorts
    }

    /// Edges of one report; what exceeds it waits for the next (sender) or is dropped and counted (receiver).
    package static let edgeLimit = 4096
    package static let ejectionLimit = 1024
    package static let refusalLimit = 64
    package static let learnedPortLimit = 64
}

/// What was counted on one edge since the report before.
package struct EdgeDelta: Sendable, Hashable {
    package enum Reporter: Sendable, Hashable, CaseIterable {
        /// The caller's sidecar.
        case source
        /// The callee's sidecar.
        case destination
    }

    package var reporter: Reporter
    package var source: EdgePeer
    package var destination: EdgePeer
    /// Nil when the destination was dialled by an address that no service has.
    package var destinationService: ObjectName?
    package var destinationPort: UInt16
    package var applicationProtocol: ApplicationProtocol
    /// Whether both ends proved their identity (mutual TLS).
    package var isSecured: Bool
    package var requests: [RequestCount]
    package var latency: LatencyBuckets
    package var retries: UInt64
    package var connectionsOpened: UInt64
    package var connectionsClosed: UInt64
    package var connectionsFailed: UInt64
    package var bytesSent: UInt64
    package var bytesReceived: UInt64

    package init(
        reporter: Reporter, source: EdgePeer = EdgePeer(), destination: EdgePeer = EdgePeer(),
        destinationService: ObjectName? = nil, destinationPort: UInt16 = 0,
        applicationProtocol: ApplicationProtocol = .opaque,
        isSecured: Bool = false, requests: [RequestCount] = [], latency: LatencyBuckets = LatencyBuckets(),
        retries: UInt64 = 0, connectionsOpened: UInt64 = 0, connectionsClosed: UInt64 = 0,
        connectionsFailed: UInt64 = 0,
        bytesSent: UInt64 = 0, bytesReceived: UInt64 = 0
    ) {
        self.reporter = reporter
        self.source = source
        self.destination = destination
        self.destinationService = destinationService
        self.destinationPort = destinationPort
        self.applicationProtocol = applicationProtocol
        self.isSecured = isSecured
        self.requests = requests
        self.latency = latency
        self.retries = retries
        self.connectionsOpened = connectionsOpened
        self.connectionsClosed = connectionsClosed
        self.connectionsFailed = connectionsFailed
        self.bytesSent = bytesSent
        self.bytesReceived = bytesReceived
    }
}

/// One end of an edge, as far as the reporter knows it. The reporter's own end may be left empty: the control plane
/// knows its pod, and reads its namespace and identity from its certificate.
package struct EdgePeer: Sendable, Hashable {
    package var pod: ObjectName?
    package var namespace: String
    package var owner: String
    package var app: String
    package var version: String
    /// From the peer's certificate; nil when it showed none.
    package var identity: SPIFFEID?
    package var address: IPAddress?

    package init(
        pod: ObjectName? = nil, namespace: String = "", owner: String = "", app: String = "", version: String = "",
        identity: SPIFFEID? = nil, address: IPAddress? = nil
    ) {
        self.pod = pod
        self.namespace = namespace
        self.owner = owner
        self.app = app
        self.version = version
        self.identity = identity
        self.address = address
    }
}

/// How many requests ended in one way.
package struct RequestCount: Sendable, Hashable {
    /// HTTP's status; 0 when the caller got none.
    package var status: UInt16
    /// Nil unless the request was gRPC.
    package var grpcStatus: UInt8?
    /// The code of MeshTelemetry's `Reason` when the sidecar answered itself; empty when the application did.
    package var reason: String
    package var count: UInt64

    package init(status: UInt16, grpcStatus: UInt8? = nil, reason: String = "", count: UInt64) {
        self.status = status
        self.grpcStatus = grpcStatus
        self.reason = reason
        self.count = count
    }
}

/// The buckets of a mergeable histogram that are not empty. The indices are those of MeshTelemetry's log-linear
/// histogram.
package struct LatencyBuckets: Sendable, Hashable {
    package struct Bucket: Sendable, Hashable {
        package var index: UInt32
        package var count: UInt64

        package init(index: UInt32, count: UInt64) {
            self.index = index
            self.count = count
        }
    }

    /// Ascending by index.
    package var buckets: [Bucket]
    /// Of all values, in the histogram's unit.
    package var sum: UInt64

    package init(buckets: [Bucket] = [], sum: UInt64 = 0) {
        self.buckets = buckets
        self.sum = sum
    }

    /// Buckets of one edge in one report; a receiver drops what exceeds it.
    package static let bucketLimit = 512
}

/// An endpoint that the reporter takes out of balancing.
package struct EjectionReport: Sendable, Hashable {
    package var service: ObjectName
    package var address: IPAddress
    package var pod: ObjectName?
    package var sinceUnixMilliseconds: Int64
    package var why: String

    package init(
        service: ObjectName, address: IPAddress, pod: ObjectName? = nil, sinceUnixMilliseconds: Int64, why: String
    ) {
        self.service = service
        self.address = address
        self.pod = pod
        self.sinceUnixMilliseconds = sinceUnixMilliseconds
        self.why = why
    }
}

/// A resource that a sidecar could not use; its old version, if any, stays in force.
package struct ResourceRefusal: Sendable, Hashable {
    /// `Destination`, `Service`, `Endpoint`, `Self` or `TrustBundle`.
    package var type: String
    package var name: String
    package var version: String
    package var reason: String

    package init(type: String, name: String, version: String, reason: String) {
        self.type = type
        self.name = name
        self.version = version
        self.reason = reason
    }
}
