import MeshCore
import MeshHTTP
import MeshTelemetry

/// What happens when a try fails: another one, or an answer of our own.
extension HTTP2Exchange {
    /// No connection could be had; nothing has been sent.
    func connectionFailed(_ upstream: Upstream, _ error: ProxyError) {
        guard phase == .waiting, self.upstream === upstream else { return }
        endUpstream()
        failed(error, isUnprocessed: true, isSilent: false)
    }

    /// Discovery has removed the endpoint while the request waited for a connection to it: it goes elsewhere, and that is
    /// nobody's failure.
    func endpointRemoved(_ upstream: Upstream) {
        guard phase == .waiting, self.upstream === upstream else { return }
        endUpstream()
        if tries.noteRemoval() {
            retry(after: upstream, isSilent: true)
        } else {
            failed(.connectFailed("the endpoint was removed"), isUnprocessed: true, isSilent: false)
        }
    }

    /// Lets go of the endpoint: a request less on it.
    func endUpstream() {
        upstream?.pending &-= 1
        tryDeadline = .max
    }

    /// Takes the request off its endpoint in the middle of things.
    func endTry(_ code: HTTP2ErrorCode) {
        guard let upstream, retryAt == .max else { return }
        if let stream {
            creditedBytes = max(creditedBytes, stream.takenBytes)
            self.stream = nil
            downstream.windowSource = nil
            stream.reset(code)
        } else {
            upstream.http2.cancel(self)
        }
        OutlierDetector.abandoned(&upstream.health)
        endUpstream()
    }

    /// - Parameters:
    ///   - isUnprocessed: the endpoint has provably done nothing with it, so that even a POST may go elsewhere.
    ///   - isSilent: that says nothing about the endpoint.
    func failed(_ error: ProxyError, isUnprocessed: Bool, isSilent: Bool) {
        guard let upstream else { return }
        if !isSilent, error == .upstreamReset { upstream.failedInTransport() }
        if mayRetry(isUnprocessed: isUnprocessed || isListed(error), isSilent: isSilent) {
            retry(after: upstream, isSilent: isSilent)
        } else {
            answer(error)
        }
    }

    /// Whether the service lets calls that end with this status be made again, whoever gives it.
    private func isListed(_ error: ProxyError) -> Bool {
        let statuses = target.decision.retry.grpcStatuses
        return !statuses.isEmpty && head.isGRPC && statuses.contains(GRPCStatus.Code(error).rawValue)
    }

    private func mayRetry(isUnprocessed: Bool, isSilent: Bool) -> Bool {
        guard canReplay, !responseStarted, isUnprocessed || head.method.isIdempotent else { return false }
        return tries.mayRetry(isSilent: isSilent, target: target, loop: loop)
    }

    private func retry(after failed: Upstream, isSilent: Bool, notBefore: Int64 = 0) {
        phase = .waiting
        stream = nil
        status = 0
        grpcStatus = nil
        let next = tries.next(after: failed, isSilent: isSilent, target: target, loop: loop)
        switch next {
        case .now where notBefore <= now:
            startTry()
        case .now:
            retryAt = notBefore
            rearm()
        case .at(let time):
            retryAt = max(time, notBefore)
            rearm()
        }
    }

    /// A failed response may be another endpoint's chance. True when it is not passed on.
    func considerRetry(_ response: HTTP2ResponseHead, _ headers: HTTP2Headers) -> Bool {
        guard relay.direction == .outbound, canReplay, let upstream, let stream else { return false }
        var fate: SidecarReply?
        if upstream.isMeshed, let index = response.apusReason {
            fate = SidecarReply(reason: headers.value(at: index))
        }
        let policy = target.decision.retry
        let isListed =
            policy.statuses.contains(status) && head.method.isIdempotent
            || head.isGRPC && grpcStatus.map(policy.grpcStatuses.contains) ?? false
        guard fate != nil || isListed else { return false }
        let pushback = response.retryPushbackMilliseconds ?? 0
        guard pushback >= 0, pushback <= ProxyLimits.retryPushbackMilliseconds else { return false }
        let isUnprocessed = fate == .unprocessed || isListed
        guard mayRetry(isUnprocessed: isUnprocessed, isSilent: false) else { return false }
        creditedBytes = max(creditedBytes, stream.takenBytes)
        self.stream = nil
        if !stream.endsWithHead || !stream.isEndSent { stream.reset(.cancel) }
        endUpstream()
        retry(after: upstream, isSilent: false, notBefore: now &+ Int64(pushback) &* 1_000_000)
        return true
    }

    func timedOut(_ error: ProxyError) {
        let wasSent = phase == .exchanging
        if wasSent { upstream?.failed() }
        endTry(.cancel)
        if responseStarted {
            breakOff(error, .cancel)
        } else if error == .requestTimeout || upstream == nil {
            answer(error)
        } else {
            failed(error, isUnprocessed: !wasSent, isSilent: false)
        }
    }

    // MARK: - Replies of our own

    func answer(_ error: ProxyError) {
        retryAt = .max
        self.error = error
        let response = ErrorResponse(error)
        guard let status = response.status, !responseStarted else {
            downstream.reset(.internalError)
            answered()
            return
        }
        responseStarted = true
        let text = "apus: \(response.text)"
        let headers = HTTP2Headers()
        if head.isGRPC {
            let code = GRPCStatus.Code(error)
            self.status = 200
            grpcStatus = code.rawValue
            headers.append(":status", "200")
            headers.append("content-type", "application/grpc")
            GRPCStatus(code, text).appendTrailers(to: headers)
            headers.append("apus-reason", response.reason.code)
            downstream.respond(headers, endOfStream: true)
        } else {
            self.status = status
            var body = text + "\n"
            let isHead = head.method == .head
            headers.append(":status", String(status))
            headers.append("content-type", "text/plain; charset=utf-8")
            headers.append("content-length", String(body.utf8.count))
            headers.append("apus-reason", response.reason.code)
            downstream.respond(headers, endOfStream: isHead)
            if !isHead {
                responseBytes = UInt64(body.utf8.count)
                body.withUTF8 { downstream.write(UnsafeRawBufferPointer($0)) }
                downstream.finish()
            }
        }
        answered()
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
