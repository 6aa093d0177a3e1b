import MeshHTTP
import MeshTelemetry

/// A response's way from its endpoint to the client.
extension HTTP2Exchange {
    func responseHead(_ headers: HTTP2Headers, _ stream: HTTP2Stream) {
        let response = HTTP2ResponseHead(headers)
        if (100..<200).contains(response.status) {
            downstream.inform(headers)
            return
        }
        status = response.status
        tryDeadline = .max
        if stream.endsWithHead { grpcStatus = response.grpcStatus }
        judge()
        if considerRetry(response, headers) { return }
        responseStarted = true
        canReplay = false
        replay.release(to: &loop.buffers)
        // Only a sidecar's own replies carry the field; an application's would be taken for one.
        if relay.direction == .inbound, let index = response.apusReason { headers.remove(at: index) }
        downstream.windowSource = stream
        downstream.respond(headers, endOfStream: stream.endsWithHead)
    }

    /// What the head says about the endpoint. A call whose status comes in its trailers is judged by those.
    private func judge() {
        guard let upstream else { return }
        let elapsed = now &- tryStartedNanoseconds
        if isFailure {
            upstream.latency.observeFailure(nanoseconds: elapsed, now: now)
            if relay.direction == .outbound { upstream.failed() }
        } else {
            upstream.latency.observe(nanoseconds: elapsed, now: now)
            if !head.isGRPC || grpcStatus != nil { upstream.succeeded() }
        }
    }

    private var isFailure: Bool {
        status >= 500 || head.isGRPC && grpcStatus.map(HTTP2ResponseHead.isFailure(grpcStatus:)) ?? false
    }

    /// The endpoint has said all it had to say.
    func responseEnded() {
        if head.isGRPC, grpcStatus == nil {
            grpcStatus = responseTrailers.flatMap { HTTP2ResponseHead($0).grpcStatus }
            if isFailure {
                if relay.direction == .outbound, status < 500 { upstream?.failed() }
            } else {
                upstream?.succeeded()
            }
        }
        downstream.finish(trailers: responseTrailers)
        // What the endpoint does not want to hear any more.
        if !requestEnded { stream?.reset(.noError) }
        endUpstream()
        answered()
    }

    /// The endpoint's stream is gone before its answer was complete.
    func upstreamClosed(_ cause: HTTP2StreamCloseCause, _ stream: HTTP2Stream) {
        guard !responseStarted else {
            upstream?.failed()
            endUpstream()
            truncate(cause)
            return
        }
        let isUnprocessed = cause == .reset(.refusedStream) || !stream.isHeadSent
        if let upstream { OutlierDetector.abandoned(&upstream.health) }
        endUpstream()
        failed(.upstreamReset, isUnprocessed: isUnprocessed, isSilent: isUnprocessed)
    }

    /// The client must not take what it has for a whole answer. A gRPC client is told why.
    private func truncate(_ cause: HTTP2StreamCloseCause) {
        error = .upstreamTruncated
        if case .reset(let code) = cause, code != .noError {
            downstream.reset(code)
        } else if head.isGRPC {
            let reason = ErrorResponse(.upstreamTruncated).reason
            let trailers = HTTP2Headers()
            GRPCStatus(.unavailable, "apus: \(reason.explanation)").appendTrailers(to: trailers)
            trailers.append("apus-reason", reason.code)
            grpcStatus = GRPCStatus.Code.unavailable.rawValue
            downstream.finish(trailers: trailers)
        } else {
            downstream.reset(.internalError)
        }
        answered()
    }
}
