internal import MeshAPI
internal import MeshCore
internal import MeshHTTP
internal import MeshIO

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
        let failure = server.table.handle(request, subscriber)
        if !request.responseNonce.isEmpty { server.tellConverged() }
        if let failure { return refuse(failure.code, failure.message) }
        server.flushSoon()
        tellStatus()
    }

    private func authorize(_ request: Envoy_Service_Discovery_V3_DeltaDiscoveryRequest) -> Bool {
        guard let pod = ObjectName(request.node.id) else {
            server.countRefusedStream()
            refuse(
                .invalidArgument, "node.id '\(request.node.id)' is not namespace/pod; the first request must have it")
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

    func receivedEnd(on call: GRPCServerCall) {
        call.finish(.ok)
    }

    // MARK: Responses

    /// Sends what there is as long as the stream takes it.
    func pump() {
        guard let subscriber else { return }
        while call.isWritable {
            let isSent: Void? = server.table.withResponse(for: subscriber, nowNanoseconds: server.loop.now.nanoseconds)
            {
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
