package import MeshCore

/// Who talks to whom, as one side reports it: the key of an edge.
package struct EdgeKey: Sendable, Hashable {
    package enum Destination: Sendable, Hashable {
        case service(ObjectName)
        /// Dialled by its own address: the owner of the pod, or an address outside the platform.
        case workload(namespace: String, name: String)

        package var namespace: String {
            switch self {
            case .service(let name): name.namespace
            case .workload(let namespace, _): namespace
            }
        }

        package var name: String {
            switch self {
            case .service(let name): name.name
            case .workload(_, let name): name
            }
        }
    }

    package var isReportedBySource: Bool
    package var sourceNamespace: String
    package var sourceOwner: String
    /// Nil when the source showed none.
    package var sourceIdentity: SPIFFEID?
    package var destination: Destination
    package var applicationProtocol: ApplicationProtocol

    /// `namespace/owner`, for sentences.
    package var caller: String { sourceNamespace.isEmpty ? sourceOwner : "\(sourceNamespace)/\(sourceOwner)" }
}

/// What is known of an edge.
struct TrafficEdge: Sendable {
    let key: EdgeKey
    var window = TrafficWindow()
    /// Monotonic seconds: when the first report on it began to count. What is younger than the window has its rates over its age.
    var observedSinceSecond: Int64
    var destinationIdentity: SPIFFEID?
    /// How its last traffic went, which holds for connections that are open and idle, too.
    var isSecured = false
    /// Monotonic seconds.
    var lastSeenSecond: Int64
    var lastSeenAt: Timestamp
    /// By reporting pod, so that a pod that goes takes its connections along. Zeroes are not kept.
    var openConnections: [ObjectName: Int64] = [:]

    var open: Int { Int(clamping: openConnections.values.reduce(0) { $0 &+ max(0, $1) }) }
}
