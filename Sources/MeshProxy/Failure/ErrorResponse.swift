import MeshHTTP

/// The one table from a cause to what the client is told and what is counted.
struct ErrorResponse {
    /// Nil when the client is told nothing: it has gone, or has seen half an answer.
    let status: Int?
    /// The field `apus-reason`, the label and the log field; docs/reasons.md explains each.
    let reasonCode: String
    /// Istio's word for it in `response_flags`.
    let flag: String
    /// For a person who reads the reply.
    let explanation: String

    init(_ error: ProxyError) {
        switch error {
        case .destinationTimeout:
            self.init(503, "destination_timeout", "NR", "what this address is was not known in time")
        case .destinationQueueFull:
            self.init(503, "queue_full", "UO", "too many connections wait for their destination to become known")
        case .unknownDestinationDenied:
            self.init(403, "unknown_destination_denied", "UAEX", "the mesh knows nothing at this address, and policy denies it")
        case .notRedirected:
            self.init(nil, "not_redirected", "NR", "the sidecar's own port was dialled")
        case .loopDetected:
            self.init(nil, "loop_detected", "NR", "the connection leads back to this sidecar")
        case .noEndpoints:
            self.init(503, "no_healthy_upstream", "UH", "the service has no endpoint for this port")
        case .allEndpointsEjected:
            self.init(503, "no_healthy_upstream", "UH", "every endpoint of the service is ejected")
        case .connectFailed(let why):
            self.init(503, "connect_failed", "UF", why)
        case .connectTimeout:
            self.init(503, "connect_timeout", "UF", "the endpoint did not accept the connection in time")
        case .connectionQueueFull:
            self.init(503, "queue_full", "UO", "too many requests wait for a connection to the endpoint")
        case .connectionQueueTimeout:
            self.init(503, "connect_timeout", "UO", "no connection to the endpoint became free in time")
        case .tlsFailed(let why):
            self.init(503, "tls_failed", "UF", why)
        case .identityMissing:
            self.init(503, "identity_missing", "UF", "this sidecar has no certificate yet")
        case .identityMismatch(let why):
            self.init(503, "identity_mismatch", "UF", why)
        case .upstreamReset:
            self.init(502, "upstream_reset", "UC", "the endpoint closed the connection before it answered")
        case .upstreamTruncated:
            self.init(nil, "upstream_truncated", "UC", "the endpoint broke off within its answer")
        case .perTryTimeout:
            self.init(504, "per_try_timeout", "UT", "the endpoint did not answer within the time of one try")
        case .requestTimeout:
            self.init(504, "request_timeout", "UT", "the request took longer than the service allows")
        case .invalidResponse(let error):
            self.init(502, "invalid_response", "UPE", "the endpoint's answer was refused: \(error.code)")
        case .invalidRequest(let error):
            self.init(error.status, "invalid_request_\(error.code)", "DPE", "the request was refused: \(error.code)")
        case .methodNotSupported:
            self.init(501, "method_not_supported", "DPE", "CONNECT is not served here")
        case .headTimeout:
            self.init(408, "head_timeout", "DT", "the request's head took too long")
        case .mtlsRequired:
            self.init(403, "mtls_required", "UAEX", "policy is strict: only callers with an identity of the mesh are served")
        case .callerRefused(let why):
            self.init(nil, "identity_mismatch", "UAEX", why)
        case .clientGone:
            self.init(nil, "client_gone", "DC", "the client closed its connection")
        case .idleTimeout:
            self.init(nil, "idle_timeout", "SI", "nothing moved for too long")
        case .draining:
            self.init(503, "draining", "", "this sidecar is stopping")
        }
    }

    private init(_ status: Int?, _ reasonCode: String, _ flag: String, _ explanation: String) {
        self.status = status
        self.reasonCode = reasonCode
        self.flag = flag
        self.explanation = explanation
    }

    func bytes(status: Int, closes: Bool, answering request: RequestTraits) -> [UInt8] {
        LocalReply.bytes(
            status: status, reasonCode: reasonCode, body: Array("apus: \(explanation)\n".utf8), closes: closes,
            answering: request)
    }
}
