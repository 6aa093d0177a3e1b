package import MeshAPI
internal import MeshCore
package import MeshHTTP
internal import SwiftProtobuf

extension DiscoveryTable {
    /// What a sidecar's request means. Returns the status with which its stream must end when the request cannot be
    /// served.
    package mutating func handle(
        _ request: Envoy_Service_Discovery_V3_DeltaDiscoveryRequest, _ subscriber: Subscriber
    ) -> GRPCStatus? {
        guard let type = ResourceType(typeURL: request.typeURL) else {
            return GRPCStatus(.invalidArgument, "type_url '\(request.typeURL)' is not a type of this server")
        }
        if !request.responseNonce.isEmpty {
            acknowledged(request.responseNonce, refusals: DiscoveryTable.refusals(in: request, type), subscriber)
        }
        if !request.initialResourceVersions.isEmpty { claim(type, request.initialResourceVersions, subscriber) }
        switch type {
        case .trustBundle:
            subscribeToTrustBundles(subscriber)
        case .sidecar:
            for name in request.resourceNamesSubscribe {
                guard name == subscriber.pod.description else {
                    return GRPCStatus(.permissionDenied, "'\(name)' is not this sidecar's pod \(subscriber.pod)")
                }
                subscribeToSelf(subscriber)
            }
        case .destination:
            for name in request.resourceNamesUnsubscribe { unsubscribe(from: name, subscriber) }
            for name in request.resourceNamesSubscribe where !subscribe(to: name, subscriber) {
                return GRPCStatus(
                    .resourceExhausted, "a sidecar may subscribe to \(DiscoveryLimits.subscriptions) destinations")
            }
            endClaims(subscriber)
        case .service, .endpoint:
            guard request.resourceNamesSubscribe.isEmpty else {
                return GRPCStatus(
                    .invalidArgument, "\(type.name) is implied by a destination and cannot be subscribed to")
            }
        }
        return nil
    }

    /// Nil for an acknowledgement. Our own sidecars name each resource; another client's message stands for the whole
    /// response.
    private static func refusals(
        in request: Envoy_Service_Discovery_V3_DeltaDiscoveryRequest, _ type: ResourceType
    ) -> [ResourceRefusal]? {
        guard request.hasErrorDetail else { return nil }
        let details = request.errorDetail.details.prefix(Subscriber.refusalLimit).compactMap { any in
            try? Apus_V1_RefusedResource(unpackingAny: any)
        }
        guard !details.isEmpty else {
            let reason = String(request.errorDetail.message.prefix(512))
            return [ResourceRefusal(type: type.name, name: "", version: "", reason: reason)]
        }
        return details.map {
            ResourceRefusal(
                type: type.name, name: String($0.name.prefix(512)), version: String($0.version.prefix(64)),
                reason: String($0.reason.prefix(512)))
        }
    }
}
