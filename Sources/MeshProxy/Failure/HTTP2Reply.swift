import MeshHTTP
import MeshTelemetry

/// A whole answer of the sidecar's own to an HTTP/2 request: to a gRPC call a status, to any other an HTTP response.
struct HTTP2Reply {
    /// HTTP's.
    let status: Int
    let grpcStatus: UInt8?
    private let headers = HTTP2Headers()
    private var body = ""

    /// Nil for a cause of which the client is told nothing.
    init?(_ error: ProxyError, isGRPC: Bool) {
        let response = ErrorResponse(error)
        guard let status = response.status else { return nil }
        let text = "apus: \(response.text)"
        if isGRPC {
            let code = GRPCStatus.Code(error)
            self.status = 200
            grpcStatus = code.rawValue
            headers.append(":status", "200")
            headers.append("content-type", "application/grpc")
            GRPCStatus(code, text).appendTrailers(to: headers)
        } else {
            self.status = status
            grpcStatus = nil
            body = text + "\n"
            headers.append(":status", String(status))
            headers.append("content-type", "text/plain; charset=utf-8")
            headers.append("content-length", String(body.utf8.count))
        }
        headers.append("apus-reason", response.reason.code)
    }

    /// Answers how many bytes of body it has.
    @discardableResult
    func send(on stream: HTTP2Stream, isHead: Bool) -> Int {
        guard !isHead, !body.isEmpty else {
            stream.respond(headers, endOfStream: true)
            return 0
        }
        stream.respond(headers)
        var text = body
        text.withUTF8 { stream.write(UnsafeRawBufferPointer($0)) }
        stream.finish()
        return text.utf8.count
    }
}

extension GRPCStatus.Code {
    /// What a gRPC client is told in place of an HTTP status («HTTP to gRPC Status Code Mapping»), more exactly where the cause is
    /// known.
    init(_ error: ProxyError) {
        switch error {
        case .requestTimeout, .perTryTimeout: self = .deadlineExceeded
        case .methodNotSupported: self = .unimplemented
        case .requestBodyTooLarge, .invalidRequest(.headTooLarge): self = .resourceExhausted
        case .upstreamTruncated, .idleTimeout: self = .unavailable
        default:
            switch ErrorResponse(error).status {
            case 400: self = .internal
            case 403: self = .permissionDenied
            case 502, 503, 504: self = .unavailable
            default: self = .unknown
            }
        }
    }
}
