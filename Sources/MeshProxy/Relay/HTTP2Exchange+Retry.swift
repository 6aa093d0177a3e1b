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
        } else if isUnprocessed, error == .upstreamReset, relay.direction == .inbound {
            // Not an answer with a reason: the caller's sidecar is to know that it may go elsewhere.
            self.error = error
            downstream.reset(.refusedStream)
            answered()
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
        guard !responseStarted, let reply = HTTP2Reply(error, isGRPC: head.isGRPC) else {
            downstream.reset(.internalError)
            answered()
            return
        }
        responseStarted = true
        status = reply.status
        grpcStatus = reply.grpcStatus
        responseBytes = UInt64(reply.send(on: downstream, isHead: head.method == .head))
        answered()
    }
}
