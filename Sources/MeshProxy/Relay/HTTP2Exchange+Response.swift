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
        if let stream, !stream.isEndSent { stream.reset(.noError) }
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
        let isRefused = cause == .reset(.refusedStream)
        let isUnprocessed = isRefused || !stream.isHeadSent
        if let upstream { OutlierDetector.abandoned(&upstream.health) }
        endUpstream()
        if let upstream, isRefused { tries.avoid(upstream) }
        if isInvalid(cause, stream) {
            loop.counters.invalidResponses &+= 1
            upstream?.failed()
            answer(stream.isHeadTooLarge ? .invalidResponse(.headTooLarge) : .invalidHTTP2Response)
        } else {
            failed(.upstreamReset, isUnprocessed: isUnprocessed, isSilent: isUnprocessed)
        }
    }

    /// It was this side that ended it, because of what the endpoint sent.
    private func isInvalid(_ cause: HTTP2StreamCloseCause, _ stream: HTTP2Stream) -> Bool {
        guard case .reset(let code) = cause, !stream.isResetByPeer else { return false }
        return code != .refusedStream
    }

    /// The client must not take what it has for a whole answer. A gRPC client is told why.
    private func truncate(_ cause: HTTP2StreamCloseCause) {
        if case .reset(let code) = cause, code != .noError {
            error = .upstreamTruncated
            downstream.reset(code)
            answered()
        } else {
            breakOff(.upstreamTruncated, .internalError)
        }
    }

    /// Ends an answer in its middle: a gRPC client gets a status that says why, any other sees the stream reset.
    func breakOff(_ error: ProxyError, _ code: HTTP2ErrorCode) {
        self.error = error
        if head.isGRPC {
            let response = ErrorResponse(error)
            let status = GRPCStatus.Code(error)
            let trailers = HTTP2Headers()
            GRPCStatus(status, "apus: \(response.text)").appendTrailers(to: trailers)
            trailers.append("apus-reason", response.reason.code)
            grpcStatus = status.rawValue
            // What has come of the answer is the client's; what is too late anyhow must not wait for its window.
            if error != .upstreamTruncated { downstream.discardUnsent() }
            downstream.finish(trailers: trailers)
        } else {
            downstream.reset(code)
        }
        answered()
    }
}
