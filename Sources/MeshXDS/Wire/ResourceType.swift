/// The types of resources on the discovery stream, in the order in which a server sends them: what leads to something
/// comes after what it leads to.
package enum ResourceType: UInt8, Sendable, Hashable, CaseIterable {
    case trustBundle
    case sidecar
    case service
    case endpoint
    case destination

    /// The message's name in `proto/apus/v1/discovery.proto`.
    package var name: String {
        switch self {
        case .trustBundle: "TrustBundle"
        case .sidecar: "Self"
        case .service: "Service"
        case .endpoint: "Endpoint"
        case .destination: "Destination"
        }
    }

    package var typeURL: String { "type.googleapis.com/apus.v1.\(name)" }

    package init?(typeURL: String) {
        guard let type = Self.allCases.first(where: { $0.typeURL == typeURL }) else { return nil }
        self = type
    }
}

/// Bounds on one discovery stream, the same at both ends.
package enum DiscoveryLimits {
    package static let method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
    /// Destinations that one sidecar may subscribe to.
    package static let subscriptions = 10_000
    /// Resource bytes after which a response is sent and the rest goes into another.
    static let responseBytes = 1024 * 1024
    /// Of one resource; a longer one is not sent, which is counted.
    static let resourceBytes = 1024 * 1024
    /// Of one request: what an opening client knows goes into it, unless it is more.
    static let requestBytes = 3 * 1024 * 1024
}
