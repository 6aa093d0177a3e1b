import MeshHTTP
import MeshTelemetry

/// The one table from a cause to its reason; the reason has the status, the flags and the code of label, log and reply.
struct ErrorResponse {
    let reason: Reason
    /// What this case adds to the reason's own words; empty when nothing.
    let detail: String

    init(_ error: ProxyError) {
        switch error {
        case .destinationTimeout: self.init(reason: .destinationTimeout)
        case .destinationQueueFull:
            self.init(reason: .queueFull, detail: "connections that wait for their destination to become known")
        case .unknownDestinationDenied: self.init(reason: .unknownDestinationDenied)
        case .noEndpoints: self.init(reason: .noHealthyUpstream, detail: "it has no endpoint for this port")
        case .allEndpointsEjected: self.init(reason: .noHealthyUpstream, detail: "every endpoint is ejected")
        case .connectFailed(let why): self.init(reason: .connectFailed, detail: why)
        case .connectTimeout: self.init(reason: .connectTimeout)
        case .connectionQueueFull:
            self.init(reason: .queueFull, detail: "requests that wait for a connection to the endpoint")
        case .connectionQueueTimeout: self.init(reason: .connectTimeout, detail: "no connection became free")
        case .tlsFailed(let why): self.init(reason: .tlsFailed, detail: why)
        case .identityMissing: self.init(reason: .identityMissing)
        case .identityMismatch(let why): self.init(reason: .identityMismatch, detail: why)
        case .upstreamReset: self.init(reason: .upstreamReset)
        case .upstreamTruncated: self.init(reason: .upstreamTruncated)
        case .perTryTimeout: self.init(reason: .perTryTimeout)
        case .requestTimeout: self.init(reason: .requestTimeout)
        case .invalidResponse(let error): self.init(reason: .invalidResponse, detail: error.code)
        case .invalidHTTP2Response: self.init(reason: .invalidResponse, detail: "it breaks the rules of HTTP/2")
        case .invalidRequest(let error):
            self.init(reason: Reason(requestError: error.code) ?? .invalidRequestMalformedRequestLine)
        case .methodNotSupported: self.init(reason: .methodNotSupported, detail: "CONNECT")
        case .headTimeout: self.init(reason: .headTimeout)
        case .bodyTimeout: self.init(reason: .bodyTimeout)
        case .requestBodyTooLarge(let limit):
            self.init(reason: .requestBodyTooLarge, detail: "\(limit) bytes at most")
        case .mtlsRequired: self.init(reason: .mtlsRequired)
        case .clientGone: self.init(reason: .clientGone)
        case .idleTimeout: self.init(reason: .idleTimeout)
        }
    }

    private init(reason: Reason, detail: String = "") {
        self.reason = reason
        self.detail = detail
    }

    /// Nil when the client is told nothing: it has gone, or has seen half an answer.
    var status: Int? { reason.status }

    /// For a person.
    var text: String { detail.isEmpty ? reason.explanation : "\(reason.explanation): \(detail)" }

    func bytes(status: Int, closes: Bool, answering request: RequestTraits) -> [UInt8] {
        LocalReply.bytes(
            status: status, reasonCode: reason.code, body: Array("apus: \(text)\n".utf8), closes: closes,
            answering: request)
    }
}
