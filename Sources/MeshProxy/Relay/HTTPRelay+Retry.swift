import MeshCore
import MeshHTTP
import MeshIO
import MeshTelemetry

/// What happens when a try fails: another one, or an answer of our own.
extension HTTPRelay {
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
    @inline(__always)
    func endUpstream() {
        upstream?.pending &-= 1
        tryDeadline = .max
    }

    /// Takes the request off its endpoint in the middle of things.
    func endTry(abort: Bool) {
        guard let upstream else { return }
        if phase == .waiting, exchange == nil { upstream.cancel(self) }
        if let connection = exchange {
            exchange = nil
            if abort { connection.abortExchange() }
        }
        OutlierDetector.abandoned(&upstream.health)
        endUpstream()
    }

    /// - Parameters:
    ///   - isUnprocessed: the endpoint has provably done nothing with it, so that even a POST may go elsewhere.
    ///   - isSilent: an idle connection had been closed, which says nothing about the endpoint.
    func failed(_ error: ProxyError, isUnprocessed: Bool, isSilent: Bool) {
        guard let upstream else { return }
        if !isSilent, case .upstreamReset = error { upstream.failedInTransport() }
        if mayRetry(isUnprocessed: isUnprocessed, isSilent: isSilent) {
            retry(after: upstream, isSilent: isSilent)
        } else {
            answer(error)
        }
    }

    private func mayRetry(isUnprocessed: Bool, isSilent: Bool) -> Bool {
        guard canReplay, !responseStarted, isUnprocessed || isRepeatable else { return false }
        return tries.mayRetry(isSilent: isSilent, target: target, loop: loop)
    }

    private func retry(after failed: Upstream, isSilent: Bool) {
        phase = .waiting
        upstream = nil
        switch tries.next(after: failed, isSilent: isSilent, target: target, loop: loop) {
        case .now:
            startTry()
        case .at(let time):
            retryAt = time
            rearm()
        }
    }

    /// A failed response may be another endpoint's chance. Nil when the response is to be passed on; else the bytes taken.
    func considerRetry(
        _ connection: UpstreamConnection, _ head: ResponseHead, _ bytes: UnsafeRawBufferPointer
    ) -> Int? {
        guard direction == .outbound, canReplay else { return nil }
        let fate: SidecarReply? =
            upstream?.isMeshed == true ? head.value(of: .apusReason).flatMap { SidecarReply(reason: bytes[$0]) } : nil
        let isListed = target.decision.retry.statuses.contains(head.status)
        guard fate != nil || isListed && isRepeatable else { return nil }
        let isUnprocessed = fate == .unprocessed
        guard mayRetry(isUnprocessed: isUnprocessed, isSilent: false), let upstream else { return nil }
        upstream.failed()
        // A short answer that is all there leaves its connection usable.
        var body = BodyScanner(head.framing, limits: ProxyLimits.http)
        let rest = UnsafeRawBufferPointer(rebasing: bytes[head.length...])
        let isWhole: Bool
        if case .done(let count) = body.scan(rest) { isWhole = count == rest.count } else { isWhole = false }
        exchange = nil
        endUpstream()
        if isWhole, head.keepAlive, requestBody.isDone {
            connection.finishExchange(reusable: true)
        } else {
            connection.abortExchange()
        }
        status = 0
        retry(after: upstream, isSilent: false)
        return bytes.count
    }

    func timedOut(_ error: ProxyError) {
        guard phase == .waiting || phase == .exchanging else { return }
        if responseIsComplete {
            endEarlyAnswer()
            return
        }
        retryAt = .max
        if responseStarted {
            upstream?.failed()
            endTry(abort: true)
            record(reason: error)
            breakOff()
            return
        }
        let wasSent = phase == .exchanging
        if wasSent { upstream?.failed() }
        endTry(abort: true)
        if error == .requestTimeout || error == .idleTimeout || upstream == nil {
            answer(error)
        } else {
            failed(error, isUnprocessed: !wasSent, isSilent: false)
        }
    }

    // MARK: - Replies of our own

    /// Answers the request under way and goes on.
    func answer(_ error: ProxyError) {
        let response = ErrorResponse(error)
        guard let status = response.status, !responseStarted else {
            record(reason: error)
            breakOff()
            return
        }
        self.status = status
        closesAfterResponse =
            !keepsAlive || !requestBody.isDone || method == .connect || (direction == .inbound && loop.isDraining)
        let bytes = response.bytes(status: status, closes: closesAfterResponse, answering: traits)
        responseBytes = 0
        responseStarted = true
        bytes.withUnsafeBytes { downstream.write($0) }
        record(reason: error)
        endRequest()
    }

    /// Answers what is not a request, or none that is served here, and closes.
    func refuse(_ error: ProxyError) {
        let response = ErrorResponse(error)
        if phase == .idle { loop.requestsInFlight &+= 1 }
        phase = .waiting
        status = response.status ?? 0
        if let status = response.status {
            let bytes = response.bytes(status: status, closes: true, answering: traits)
            responseBytes = 0
            bytes.withUnsafeBytes { downstream.write($0) }
        }
        record(reason: error)
        replay.release(to: &loop.buffers)
        closeGracefully()
    }

    /// The client has gone: nobody waits for the answer.
    func abandonRequest(_ error: ProxyError) {
        endTry(abort: true)
        record(reason: error)
        breakOff()
    }

    /// Counts the request, once.
    func record(reason: ProxyError?) {
        loop.requestsInFlight &-= 1
        RequestRecord(
            direction: direction, target: target, upstream: upstream, caller: caller, status: status, error: reason,
            requestBytes: requestBytes, responseBytes: responseBytes, tries: tries.count,
            durationNanoseconds: now &- startedNanoseconds, subject: subject
        ).record(on: loop)
    }
}

/// What a reply that a sidecar made itself says about the request it got.
enum SidecarReply {
    /// The application has not seen it.
    case unprocessed
    /// The application had it and died before it answered.
    case unanswered

    /// Nil for a reason that another endpoint would answer with just the same.
    init?(reason: UnsafeRawBufferPointer) {
        switch Reason(code: String(decoding: reason, as: UTF8.self)) {
        case .connectFailed, .connectTimeout, .queueFull, .draining: self = .unprocessed
        case .upstreamReset: self = .unanswered
        default: return nil
        }
    }
}
