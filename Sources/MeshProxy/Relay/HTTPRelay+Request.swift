import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshTelemetry

/// A request's way from its client to an endpoint.
extension HTTPRelay {
    /// Starts the next request; and the one behind it, when the next could be answered on the spot.
    @inline(__always)
    func beginRequests(_ bytes: UnsafeRawBufferPointer) -> Int {
        var taken = beginRequest(bytes)
        while phase == .idle, taken < bytes.count {
            let count = beginRequest(UnsafeRawBufferPointer(rebasing: bytes[taken...]))
            if count == 0 { break }
            taken &+= count
        }
        return taken
    }

    /// Reads a head, if it is all there, and starts its first try. Answers how many bytes it took.
    @inline(__always)
    private func beginRequest(_ bytes: UnsafeRawBufferPointer) -> Int {
        switch RequestHead.parse(bytes, limits: ProxyLimits.http) {
        case .incomplete:
            awaitHead()
            return 0
        case .invalid(let error):
            loop.counters.invalidRequests &+= 1
            startedNanoseconds = now
            requestBytes = 0
            subject = nil
            tries.reset()
            refuse(.invalidRequest(error))
            return bytes.count
        case .complete(let head):
            return begin(head, bytes)
        }
    }

    /// A head that has begun must end within its time, however slowly its bytes come.
    private func awaitHead() {
        if downstreamEnded {
            downstream.close()
            return
        }
        let deadline = now &+ Int64(loop.configuration.deadlines.headMilliseconds) &* 1_000_000
        if !isWithinHead {
            isWithinHead = true
            clientDeadline = deadline
            rearm()
        }
    }

    private func begin(_ head: RequestHead, _ bytes: UnsafeRawBufferPointer) -> Int {
        isWithinHead = false
        clientDeadline = .max
        startedNanoseconds = now
        method = head.method
        traits = head.traits
        keepsAlive = head.keepAlive
        wantsUpgrade = head.wantsUpgrade
        responseStarted = false
        closesAfterResponse = false
        responseIsComplete = false
        dechunks = false
        awaitsContinue = head.expectsContinue
        bodyDeadline = .max
        movedNanoseconds = now
        canReplay = true
        status = 0
        tries.reset()
        responseBytes = 0
        requestBody = BodyScanner(head.framing, limits: ProxyLimits.http)
        loop.counters.requests &+= 1
        if direction == .inbound { loop.counters.arrivals &+= 1 }
        subject = loop.accessLog != nil ? RequestSubject(head, bytes) : nil

        if target.isRemoved, let fresh = loop.freshTarget(for: destination, direction) { target = fresh }
        requestBytes = 0
        if let limit = target.decision.requestBodyLimitBytes, case .length(let length) = head.framing, length > limit {
            refuseBody(limit)
            return bytes.count
        }

        writeHead(head, bytes)
        var taken = head.length
        var body = UnsafeRawBufferPointer(start: nil, count: 0)
        var isAllThere = true
        if !requestBody.isDone, bytes.count > taken {
            // No more than can be kept until there is a connection; the rest is offered again.
            let end = min(bytes.count, taken &+ ProxyLimits.replayBytes)
            isAllThere = end == bytes.count
            if !isAllThere { downstream.deliverRetained() }
            let rest = UnsafeRawBufferPointer(rebasing: bytes[taken..<end])
            guard let count = scanRequestBody(rest) else { return bytes.count }
            body = UnsafeRawBufferPointer(rebasing: rest[..<count])
            taken += count
        }

        if !requestBody.isDone { awaitBody() }
        if let timeout = target.decision.requestTimeoutMilliseconds {
            requestDeadline = now &+ Int64(timeout) &* 1_000_000
            rearm()
        }
        target.budget.countRequest(now: now)
        phase = .waiting
        loop.requestsInFlight &+= 1
        startTry(newBody: body)
        if downstreamEnded, !requestBody.isDone, isAllThere, phase == .waiting || phase == .exchanging {
            // Its client had finished before the request's turn came.
            requestEnded()
            return bytes.count
        }
        return taken
    }

    /// Writes the head as it goes on into the replay buffer: the client's own lines, without those that concern its
    /// connection, and ours.
    @inline(__always)
    private func writeHead(_ head: RequestHead, _ bytes: UnsafeRawBufferPointer) {
        var edit = HeadEdit(dropping: [], keepsUpgrade: head.wantsUpgrade)
        var lines = HeaderLines()
        let parent = head.value(of: .traceparent).map { bytes[$0] }
        if direction == .outbound || parent == nil {
            let trace = TraceContext.next(after: parent, random: &loop.random)
            lines.appendTraceparent(trace)
            if parent != nil { edit.dropping.insert(.traceparent) }
            subject?.trace = trace
        } else if let parent, subject != nil {
            subject?.trace = TraceContext(parsing: parent)
        }
        if head.version == .http10 {
            // Each hop speaks its own version (RFC 9110 §2.5), and HTTP/1.1 has a Host: the address dialled where nobody names one.
            edit.version = .http11
            edit.dropping.insert(.expect)
            if head.lacksHost {
                lines.append("Host: ")
                lines.append(destination.description)
                lines.append("\r\n" as StaticString)
            }
        }
        lines.withBytes { added in
            replay.start(room: head.length + added.count + 96, from: &loop.buffers) { output in
                head.copy(from: bytes, to: output, edit: edit, appending: added)
            }
        }
    }

    /// How many of the bytes are the request's; nil when its framing is broken and the request refused.
    private func scanRequestBody(_ bytes: UnsafeRawBufferPointer) -> Int? {
        switch requestBody.scan(bytes) {
        case .more(let count), .done(let count):
            if count > 0 { awaitsContinue = false }
            requestBytes &+= UInt64(count)
            if let limit = target.decision.requestBodyLimitBytes, requestBytes > limit {
                refuseBody(limit)
                return nil
            }
            return count
        case .invalid(let error, _):
            loop.counters.invalidRequests &+= 1
            endWithin(.invalidRequest(error))
            return nil
        }
    }

    private func refuseBody(_ limit: UInt64) {
        loop.counters.bodiesTooLarge &+= 1
        endWithin(.requestBodyTooLarge(limitBytes: limit))
    }

    /// Ends the request in the middle of its body, with an answer if there was none yet.
    private func endWithin(_ error: ProxyError) {
        if responseStarted {
            abandonRequest(error)
        } else {
            endTry(abort: true)
            refuse(error)
        }
    }

    /// The client has a while for more of its body.
    func awaitBody() {
        bodyDeadline = now &+ Int64(loop.configuration.deadlines.bodyMilliseconds) &* 1_000_000
        rearm()
    }

    /// Whether it may be sent again though somebody may have seen it (RFC 9110 §9.2.2).
    var isRepeatable: Bool { method.isIdempotent }

    /// A connection that its endpoint may just have closed is no risk to take with a body that cannot be sent twice, nor when the
    /// last try found one.
    var needsLiveConnection: Bool { tries.hasMetDeadConnection || !requestBody.isDone }

    // MARK: - A try

    /// Chooses an endpoint and sends the request there, now or when there is a connection.
    func startTry(newBody: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)) {
        guard let chosen = target.pick(excluding: tries.tried) else {
            answer(target.emptiness)
            return
        }
        tries.count &+= 1
        tryStartedNanoseconds = now
        upstream = chosen
        chosen.pending &+= 1
        if let timeout = target.decision.retry.perTryTimeoutMilliseconds {
            tryDeadline = now &+ Int64(timeout) &* 1_000_000
            rearm()
        }
        phase = .waiting
        switch chosen.checkout(self) {
        case .ready(let connection):
            send(on: connection, newBody)
        case .waiting:
            keep(newBody)
            if tryDeadline == .max {
                tryDeadline = now &+ Int64(ProxyLimits.connectionQueueMilliseconds) &* 1_000_000
                rearm()
            }
        case .failed(let error):
            keep(newBody)
            connectionFailed(chosen, error)
        }
    }

    /// The pool has a connection for the request that waited.
    func connectionReady(_ connection: UpstreamConnection) {
        if target.decision.retry.perTryTimeoutMilliseconds == nil { tryDeadline = .max }
        send(on: connection, UnsafeRawBufferPointer(start: nil, count: 0))
    }

    /// `newBody` has just arrived and is not in the replay buffer yet.
    @inline(__always)
    private func send(on connection: UpstreamConnection, _ newBody: UnsafeRawBufferPointer) {
        phase = .exchanging
        exchange = connection
        connection.relay = self
        connection.send(replay.bytes, newBody)
        if !newBody.isEmpty { keep(newBody) }
        guard !requestBody.isDone, phase == .exchanging else { return }
        if connection.connection.isAboveHighWater { downstream.pauseReading() } else { downstream.resumeReading() }
    }

    /// Keeps body bytes for another try, as long as they are few.
    private func keep(_ body: UnsafeRawBufferPointer) {
        guard canReplay, !body.isEmpty else { return }
        if !replay.append(body, to: &loop.buffers) {
            canReplay = false
            if phase == .exchanging { replay.release(to: &loop.buffers) }
        }
    }

    /// More of the body.
    func continueRequest(_ bytes: UnsafeRawBufferPointer) -> Int {
        if phase == .waiting {
            // Nothing can be forwarded yet. What is kept meanwhile must be all there is, or the request would have a hole.
            guard replay.count + bytes.count <= ProxyLimits.replayBytes else {
                downstream.pauseReading()
                return 0
            }
        }
        guard let count = scanRequestBody(bytes) else { return bytes.count }
        if downstreamEnded, !requestBody.isDone {
            requestEnded()
            return bytes.count
        }
        guard count > 0 else { return 0 }
        movedNanoseconds = now
        bodyDeadline =
            requestBody.isDone
            ? .max : now &+ Int64(loop.configuration.deadlines.bodyMilliseconds) &* 1_000_000
        let body = UnsafeRawBufferPointer(rebasing: bytes[..<count])
        if let exchange, phase == .exchanging {
            exchange.connection.write(body)
            if phase == .exchanging, exchange.connection.isAboveHighWater { downstream.pauseReading() }
            if !responseStarted, count + replay.count <= ProxyLimits.replayBytes {
                keep(body)
            } else if canReplay {
                canReplay = false
                replay.release(to: &loop.buffers)
            }
        } else {
            keep(body)
        }
        if responseIsComplete, requestBody.isDone {
            if count < bytes.count { downstream.deliverRetained() }
            finishExchange()
        }
        return count
    }

    /// The upstream takes more of the body again.
    func upstreamDrained() {
        downstream.resumeReading()
    }

    /// The rest of a request that is answered.
    func discard(_ bytes: UnsafeRawBufferPointer) -> Int {
        let count: Int
        switch requestBody.scan(bytes) {
        case .more(let more): count = more
        case .done(let done): count = done
        case .invalid:
            closeGracefully()
            return bytes.count
        }
        discarded += count
        if requestBody.isDone {
            if closesAfterResponse {
                closeGracefully()
            } else {
                awaitRequest()
                if count < bytes.count { downstream.deliverRetained() }
            }
        } else if discarded > ProxyLimits.discardBytes {
            closeGracefully()
        }
        return count
    }
}
