import MeshCore
import MeshHTTP
import MeshIO

/// A response's way from its endpoint to the client.
extension HTTPRelay {
    /// Bytes from the endpoint. Answers how many were taken.
    func upstreamReceived(_ connection: UpstreamConnection, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard phase == .exchanging else { return bytes.count }
        movedNanoseconds = now
        if responseIsComplete {
            // More than the response: whatever it is, it answers no request.
            endEarlyAnswer()
            return bytes.count
        }
        return responseStarted ? passBody(connection, bytes) : readHead(connection, bytes)
    }

    private func readHead(_ connection: UpstreamConnection, _ bytes: UnsafeRawBufferPointer) -> Int {
        var position = 0
        while true {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[position...])
            switch ResponseHead.parse(rest, answering: traits, limits: ProxyLimits.http) {
            case .incomplete:
                return position
            case .invalid(let error):
                loop.counters.invalidResponses &+= 1
                upstream?.failed()
                endTry(abort: true)
                answer(.invalidResponse(error))
                return bytes.count
            case .complete(let head):
                if head.isInterim {
                    position += head.length
                    passInterim(head, rest)
                    if downstream.isAboveHighWater { connection.connection.pauseReading() }
                    if position == bytes.count { return position }
                    continue
                }
                if head.framing == .upgrade {
                    upgrade(connection, head, rest)
                    return bytes.count
                }
                return position + passResponse(connection, head, rest)
            }
        }
    }

    /// A 1xx goes to those who know that there may be one (RFC 9110 §15.2).
    private func passInterim(_ head: ResponseHead, _ bytes: UnsafeRawBufferPointer) {
        if head.status == 100 {
            awaitsContinue = false
            if !requestBody.isDone { awaitBody() }
        }
        guard !traits.contains(.http10) else { return }
        let count = head.copy(from: bytes, to: loop.scratch, edit: HeadEdit(version: .http11))
        downstream.write(UnsafeRawBufferPointer(rebasing: loop.scratch[..<min(count, loop.scratch.count)]))
    }

    private static let joinedBytes = 4096

    private func passResponse(
        _ connection: UpstreamConnection, _ head: ResponseHead, _ bytes: UnsafeRawBufferPointer
    ) -> Int {
        status = head.status
        tryDeadline = .max
        if status >= 500 {
            upstream?.latency.observeFailure(nanoseconds: now &- tryStartedNanoseconds, now: now)
            if let taken = considerRetry(connection, head, bytes) { return taken }
            if direction == .outbound { upstream?.failed() }
        } else {
            upstream?.latency.observe(nanoseconds: now &- tryStartedNanoseconds, now: now)
            upstream?.succeeded()
            if !target.decision.retry.statuses.isEmpty, let taken = considerRetry(connection, head, bytes) {
                return taken
            }
        }

        responseStarted = true
        canReplay = false
        if requestBody.isDone { replay.release(to: &loop.buffers) }
        responseKeepsUpstream = head.keepAlive
        if let seconds = head.keepAliveSeconds {
            upstream?.pool.announceIdle(seconds: seconds)
            if seconds == 0 { responseKeepsUpstream = false }
        }
        responseBody = BodyScanner(head.framing, limits: ProxyLimits.http)
        closesAfterResponse =
            !keepsAlive || head.framing == .untilClose || (direction == .inbound && loop.isDraining)
            || downstreamEnded && downstream.retainedBytes == 0
        if !requestBody.isDone || method == .connect { considerRest(head) }

        var edit = HeadEdit(dropping: [], version: head.version == .http10 ? .http11 : nil)
        if traits.contains(.http10), head.has(.transferEncoding) {
            edit.dropping.formUnion(.chunkedCoding)
            dechunks = head.framing == .chunked
            if dechunks { closesAfterResponse = true }
        }
        // Only a sidecar's own replies carry the field; an application's would be taken for one.
        if direction == .inbound, head.has(.apusReason) { edit.dropping.insert(.apusReason) }
        let added: StaticString =
            closesAfterResponse ? "Connection: close\r\n" : traits.contains(.http10) ? "Connection: keep-alive\r\n" : ""
        let output = loop.scratch
        var written = head.copy(
            from: bytes, to: output, edit: edit,
            appending: UnsafeRawBufferPointer(start: added.utf8Start, count: added.utf8CodeUnitCount))
        guard written <= output.count else {
            endTry(abort: true)
            answer(.invalidResponse(.headTooLarge))
            return bytes.count
        }
        let rest = UnsafeRawBufferPointer(rebasing: bytes[head.length...])
        if dechunks {
            responseBytes = 0
            downstream.write(UnsafeRawBufferPointer(rebasing: output[..<written]))
            let taken = passPayload(connection, rest)
            return taken == rest.count ? bytes.count : head.length &+ taken
        }
        let step = responseBody.scan(rest)
        let count = step.count
        responseBytes = UInt64(count)
        if count <= HTTPRelay.joinedBytes, written &+ count <= output.count {
            // Copying a small body costs less than handing the kernel two pieces.
            UnsafeMutableRawBufferPointer(rebasing: output[written..<written &+ count]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: rest[..<count]))
            written &+= count
            downstream.write(UnsafeRawBufferPointer(rebasing: output[..<written]))
        } else {
            downstream.write(
                UnsafeRawBufferPointer(rebasing: output[..<written]), UnsafeRawBufferPointer(rebasing: rest[..<count]))
        }
        return settle(connection, step, count, of: rest.count) ? bytes.count : head.length &+ count
    }

    /// What an early answer, or a refused tunnel, means for what the client still sends.
    private func considerRest(_ head: ResponseHead) {
        if method == .connect {
            // What a client has sent in hope of a tunnel is no request. Only who is asked for credentials may go on, if it waited.
            if head.status != 407 || downstream.retainedBytes > 0 { closesAfterResponse = true }
        } else if awaitsContinue || !head.keepAlive {
            // Whether the client still sends its body is open, and a server that closes takes no more of it. Either way the
            // client must not think of another request on this connection (RFC 9112 §9.3).
            closesAfterResponse = true
            responseKeepsUpstream = false
        }
    }

    /// A chunked body for a client of HTTP/1.0, which knows no chunks: it ends with the connection.
    private func passPayload(_ connection: UpstreamConnection, _ bytes: UnsafeRawBufferPointer) -> Int {
        let step = responseBody.scanPayload(bytes) { data in
            responseBytes &+= UInt64(data.count)
            downstream.write(data)
        }
        return settle(connection, step, step.count, of: bytes.count) ? bytes.count : step.count
    }

    private func passBody(_ connection: UpstreamConnection, _ bytes: UnsafeRawBufferPointer) -> Int {
        if dechunks { return passPayload(connection, bytes) }
        let step = responseBody.scan(bytes)
        let count = step.count
        if count > 0 {
            responseBytes &+= UInt64(count)
            downstream.write(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
        }
        return settle(connection, step, count, of: bytes.count) ? bytes.count : count
    }

    /// After bytes of a response have been passed on: it ends, breaks, or goes on. True when what is left of the bytes
    /// belongs to nobody.
    @inline(__always)
    private func settle(_ connection: UpstreamConnection, _ step: BodyScanner.Step, _ count: Int, of available: Int)
        -> Bool
    {
        // The write may have closed the client's connection, and that ended the exchange.
        guard phase == .exchanging, exchange === connection else { return true }
        switch step {
        case .done:
            // More than the response: whatever it is, it answers no request.
            if count < available { responseKeepsUpstream = false }
            if requestBody.isDone || !responseKeepsUpstream {
                finishExchange()
            } else {
                // The server has answered early and goes on reading: it gets the rest.
                responseIsComplete = true
            }
            return count < available
        case .more:
            if downstream.isAboveHighWater { connection.connection.pauseReading() }
            return false
        case .invalid:
            loop.counters.invalidResponses &+= 1
            truncate()
            return true
        }
    }

    /// The response is complete.
    @inline(__always)
    func finishExchange() {
        let connection = exchange
        exchange = nil
        endUpstream()
        record(reason: nil)
        connection?.finishExchange(reusable: responseKeepsUpstream && requestBody.isDone)
        endRequest()
    }

    /// Nobody takes the rest of a request that is answered.
    func endEarlyAnswer() {
        responseKeepsUpstream = false
        if downstreamEnded { closesAfterResponse = true }
        finishExchange()
    }

    /// What comes after an answer: the next request, the rest of this one, or the end.
    @inline(__always)
    func endRequest() {
        guard phase != .closing else { return }
        replay.release(to: &loop.buffers)
        upstream = nil
        tries.reset()
        bodyDeadline = .max
        if !requestBody.isDone, downstreamEnded {
            closeGracefully()
        } else if !requestBody.isDone {
            // The client learns that there is no more to come while what it still sends is read for a while, since closing over it
            // would reset what it may not have read yet (RFC 9112 §9.6).
            if closesAfterResponse { downstream.finishWriting() }
            discarded = 0
            phase = .discarding
            clientDeadline = now &+ Int64(loop.configuration.deadlines.headMilliseconds) &* 1_000_000
            requestDeadline = .max
            tryDeadline = .max
            rearm()
            downstream.resumeReading()
            downstream.deliverRetained()
        } else if closesAfterResponse {
            closeGracefully()
        } else {
            awaitRequest()
            downstream.resumeReading()
            if downstream.retainedBytes > 0 {
                downstream.deliverRetained()
            } else if downstreamEnded {
                closeGracefully()
            }
        }
    }

    /// The response cannot be completed, and its client must notice.
    private func truncate() {
        upstream?.failed()
        endTry(abort: true)
        record(reason: .upstreamTruncated)
        breakOff()
    }

    // MARK: - The endpoint's end

    func upstreamReadEnded(_ connection: UpstreamConnection) {
        guard phase == .exchanging, exchange === connection else { return }
        if responseStarted {
            if responseBody.mayEndWithConnection {
                responseKeepsUpstream = false
                finishExchange()
            } else {
                truncate()
            }
            return
        }
        // A sidecar finishes a connection only between requests: what it has not begun to answer it has not read.
        let isUnread =
            connection.connection.retainedBytes == 0
            && (upstream?.isMeshed == true ? connection.isReused : connection.hasLostRequest)
        endTry(abort: true)
        failedUnanswered(connection, isUnread: isUnread)
    }

    /// The connection has ended before a byte of the answer.
    ///
    /// - Parameter isUnread: provably nobody has read the request.
    private func failedUnanswered(_ connection: UpstreamConnection, isUnread: Bool) {
        let isSilent = isUnread && connection.isReused
        if isSilent {
            loop.counters.requestsUnread &+= 1
            upstream?.pool.learnIdle(age: connection.idleBefore, now: now)
        }
        failed(.upstreamReset, isUnprocessed: isUnread, isSilent: isSilent)
    }

    func upstreamClosed(_ connection: UpstreamConnection, _ cause: CloseCause) {
        guard phase == .exchanging, exchange === connection else { return }
        exchange = nil
        if responseStarted {
            if responseIsComplete || responseBody.mayEndWithConnection && cause == .peer {
                responseKeepsUpstream = false
                finishExchange()
            } else {
                truncate()
            }
            return
        }
        endTry(abort: false)
        failedUnanswered(connection, isUnread: upstream?.isMeshed == false && connection.hasLostRequest)
    }

    // MARK: - Upgrade

    /// The connection becomes what both ends have agreed on, a tunnel after CONNECT for instance: bytes, as far as we are concerned.
    private func upgrade(_ connection: UpstreamConnection, _ head: ResponseHead, _ bytes: UnsafeRawBufferPointer) {
        status = head.status
        if status == 101 { loop.counters.upgrades &+= 1 } else { loop.counters.tunnels &+= 1 }
        upstream?.succeeded()
        let written = head.copy(from: bytes, to: loop.scratch, edit: HeadEdit(keepsUpgrade: true, version: .http11))
        guard written <= loop.scratch.count, let upstream else {
            endTry(abort: true)
            answer(.invalidResponse(.headTooLarge))
            return
        }
        let rest = UnsafeRawBufferPointer(rebasing: bytes[head.length...])
        responseBytes = 0
        exchange = nil
        downstream.write(UnsafeRawBufferPointer(rebasing: loop.scratch[..<written]), rest)
        record(reason: nil)
        endUpstream()
        phase = .closing
        replay.release(to: &loop.buffers)
        detach()
        let other = connection.surrender()
        ByteRelay.take(
            loop: loop, downstream: downstream, upstreamConnection: other, upstream: upstream, target: target,
            direction: direction, caller: caller)
    }
}

extension BodyScanner.Step {
    @inline(__always)
    var count: Int {
        switch self {
        case .more(let count), .done(let count), .invalid(_, let count): count
        }
    }
}
