internal import MeshAPI
internal import MeshCore
internal import MeshHTTP
internal import MeshIO
internal import SwiftProtobuf

/// One sidecar's gRPC stream: requests in, responses out as the stream takes them. The deciding is `DiscoveryTable`'s.
final class DiscoveryStream: GRPCServerHandler {
    let id: UInt64
    let call: GRPCServerCall
    let identity: SPIFFEID
    private let server: DiscoveryServer
    /// Nil until the first request was authorized.
    private(set) var subscriber: Subscriber?
    private var version = ""
    private let connectedAt: MonotonicTime
    private var held: [Envoy_Service_Discovery_V3_DeltaDiscoveryRequest] = []
    private var heldBytes = 0
    private var isTellingStatus = false
    private var lastStatus: DiscoverySubscriberStatus?

    private static let heldBytesLimit = 8 * 1024 * 1024

    init(id: UInt64, call: GRPCServerCall, identity: SPIFFEID, server: DiscoveryServer) {
        self.id = id
        self.call = call
        self.identity = identity
        self.server = server
        connectedAt = server.loop.now
    }

    var status: DiscoverySubscriberStatus? {
        guard let subscriber else { return nil }
        return DiscoverySubscriberStatus(
            stream: id, pod: subscriber.pod, identity: identity, version: version, peer: call.peer,
            connectedAtNanoseconds: connectedAt.nanoseconds, subscriptions: subscriber.destinations.count,
            isCurrent: subscriber.isCurrent, refusals: subscriber.refusals)
    }

    // MARK: Requests

    func received(_ message: UnsafeRawBufferPointer, on call: GRPCServerCall) {
        let request: Envoy_Service_Discovery_V3_DeltaDiscoveryRequest
        do {
            request = try ResourceDecoding.message(
                Envoy_Service_Discovery_V3_DeltaDiscoveryRequest.self, [UInt8](message))
        } catch {
            return refuse(.invalidArgument, error.description)
        }
        guard server.isSynchronized else {
            heldBytes += message.count
            guard held.count < server.limits.heldRequests, heldBytes <= DiscoveryStream.heldBytesLimit else {
                return refuse(.unavailable, "the control plane is still reading what the platform runs; try again")
            }
            held.append(request)
            return
        }
        handle(request)
    }

    func releaseHeldRequests() {
        let requests = held
        held = []
        heldBytes = 0
        for request in requests where !call.isFinished { handle(request) }
    }

    private func refuse(_ code: GRPCStatus.Code, _ reason: String) {
        server.countInvalidRequest()
        call.finish(GRPCStatus(code, reason))
    }

    private func handle(_ request: Envoy_Service_Discovery_V3_DeltaDiscoveryRequest) {
        if subscriber == nil, !authorize(request) { return }
        guard let subscriber else { return }
        guard let type = ResourceType(typeURL: request.typeURL) else {
            return refuse(.invalidArgument, "type_url '\(request.typeURL)' is not a type of this server")
        }
        if !request.responseNonce.isEmpty { acknowledge(request, type, subscriber) }
        if !request.initialResourceVersions.isEmpty {
            server.table.claim(type, request.initialResourceVersions, subscriber)
        }
        switch type {
        case .trustBundle:
            server.table.subscribeToTrustBundles(subscriber)
        case .sidecar:
            for name in request.resourceNamesSubscribe {
                guard name == subscriber.pod.description else {
                    return refuse(.permissionDenied, "'\(name)' is not this sidecar's pod \(subscriber.pod)")
                }
                server.table.subscribeToSelf(subscriber)
            }
        case .destination:
            for name in request.resourceNamesUnsubscribe { server.table.unsubscribe(from: name, subscriber) }
            for name in request.resourceNamesSubscribe {
                guard server.table.subscribe(to: name, subscriber) else {
                    return refuse(
                        .resourceExhausted, "a sidecar may subscribe to \(DiscoveryLimits.subscriptions) destinations")
                }
            }
            server.table.endClaims(subscriber)
        case .service, .endpoint:
            guard request.resourceNamesSubscribe.isEmpty else {
                return refuse(.invalidArgument, "\(type.name) is implied by a destination and cannot be subscribed to")
            }
        }
        server.flushSoon()
        tellStatus()
    }

    private func authorize(_ request: Envoy_Service_Discovery_V3_DeltaDiscoveryRequest) -> Bool {
        guard let pod = ObjectName(request.node.id) else {
            server.countRefusedStream()
            refuse(.invalidArgument, "node.id '\(request.node.id)' is not namespace/pod; the first request must have it")
            return false
        }
        if let reason = server.delegate?.refusal(of: pod, identity: identity) {
            server.countRefusedStream()
            call.finish(GRPCStatus(.permissionDenied, reason))
            return false
        }
        version = String(request.node.userAgentVersion.prefix(64))
        subscriber = Subscriber(id: id, pod: pod)
        return true
    }

    private func acknowledge(
        _ request: Envoy_Service_Discovery_V3_DeltaDiscoveryRequest, _ type: ResourceType, _ subscriber: Subscriber
    ) {
        var refusals: [ResourceRefusal]?
        if request.hasErrorDetail {
            let details = request.errorDetail.details.prefix(Subscriber.refusalLimit).compactMap { any in
                try? Apus_V1_RefusedResource(unpackingAny: any)
            }
            refusals = details.map {
                ResourceRefusal(
                    type: type.name, name: String($0.name.prefix(512)), version: String($0.version.prefix(64)),
                    reason: String($0.reason.prefix(512)))
            }
            if details.isEmpty {
                refusals = [
                    ResourceRefusal(
                        type: type.name, name: "", version: "", reason: String(request.errorDetail.message.prefix(512)))
                ]
            }
        }
        server.table.acknowledged(request.responseNonce, refusals: refusals, subscriber)
        server.tellConverged()
    }

    func receivedEnd(on call: GRPCServerCall) {
        call.finish(.ok)
    }

    // MARK: Responses

    /// Sends what there is as long as the stream takes it.
    func pump() {
        guard let subscriber else { return }
        while call.isWritable {
            let isSent: Void? = server.table.withResponse(for: subscriber, nowNanoseconds: server.loop.now.nanoseconds) {
                call.send($0)
            }
            if isSent == nil { break }
        }
    }

    func writable(_ call: GRPCServerCall) {
        pump()
        server.tellConverged()
    }

    func closed(_ call: GRPCServerCall) {
        server.closed(self)
    }

    /// Tells the delegate when what it was told is no longer so.
    private func tellStatus() {
        guard !isTellingStatus, let status, status != lastStatus else { return }
        lastStatus = status
        isTellingStatus = true
        server.delegate?.sidecarChanged(status)
        isTellingStatus = false
    }
}
