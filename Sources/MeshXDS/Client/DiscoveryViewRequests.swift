package import MeshAPI
internal import MeshAddress
internal import MeshCore
internal import SwiftProtobuf

extension DiscoveryView {
    /// Endpoints beyond which a new stream is not told what is held, and sends everything again.
    private static let toldEndpointLimit = 50_000

    /// The first requests of a stream, in order: what is held comes before the subscriptions that imply it.
    package func openingRequests(version: String) -> [Envoy_Service_Discovery_V3_DeltaDiscoveryRequest] {
        typealias Request = Envoy_Service_Discovery_V3_DeltaDiscoveryRequest
        func request(_ type: ResourceType) -> Request {
            .with {
                $0.typeURL = type.typeURL
                $0.initialResourceVersions = versions(type)
            }
        }
        var first = request(.trustBundle)
        first.node = .with {
            $0.id = pod.description
            $0.userAgentName = "apus-proxy"
            $0.userAgentVersion = version
        }
        first.resourceNamesSubscribe = ["*"]
        var sidecar = request(.sidecar)
        sidecar.resourceNamesSubscribe = [pod.description]
        var requests = [first, sidecar]
        let endpoints = request(.endpoint)
        if !services.isEmpty, endpoints.initialResourceVersions.count <= DiscoveryView.toldEndpointLimit {
            requests += [request(.service), endpoints]
        }
        // Sent without a name too: it ends what is told as held.
        var destinations = request(.destination)
        destinations.resourceNamesSubscribe = subscriptions.map(\.description).sorted()
        return requests + [destinations]
    }

    /// With refusals a NACK, which names them.
    package static func acknowledgement(
        typeURL: String, nonce: String, refusals: [ResourceRefusal]
    ) -> Envoy_Service_Discovery_V3_DeltaDiscoveryRequest {
        var request = Envoy_Service_Discovery_V3_DeltaDiscoveryRequest()
        request.typeURL = typeURL
        request.responseNonce = nonce
        guard !refusals.isEmpty else { return request }
        let named = refusals.prefix(16)
        request.errorDetail = .with {
            $0.code = 3  // INVALID_ARGUMENT
            $0.message = named.map { "\($0.name): \($0.reason)" }.joined(separator: "; ")
            $0.details = named.compactMap { try? Google_Protobuf_Any(message: TelemetryWire.encode($0)) }
        }
        return request
    }
}
