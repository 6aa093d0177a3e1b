import MeshCore
import MeshHTTP
import MeshIO
import MeshTelemetry

/// One HTTP/2 request and its response, between the stream of its client and a stream to an endpoint.
///
/// The request's way is here, the response's in `HTTP2Exchange+Response.swift`, what happens when a try fails in
/// `HTTP2Exchange+Retry.swift`. A stream's window is given back when its bytes have left on the other side, so that a slow reader
/// slows its writer, and no more than a window is held.
final class HTTP2Exchange: HTTP2StreamDelegate, TimerTarget {
    enum Phase {
        /// It waits for a connection, or for the time of its next try.
        case waiting
        /// It is on an endpoint's stream.
        case exchanging
        /// It is answered, in full or as far as it will be; the answer is on its way to the client.
        case answered
        case recorded
    }

    let relay: HTTP2Relay
    let downstream: HTTP2Stream
    let request: HTTP2Headers
    let target: RouteTarget
    let head: HTTP2RequestHead
    var phase = Phase.waiting

    // The request.
    var requestEnded = false
    var requestTrailers: HTTP2Headers?
    var replay = ReplayBuffer()
    /// Whether `replay` holds all that came of the body so far.
    var canReplay = true
    var requestBytes: UInt64 = 0
    /// Bytes whose window the client has back: those that left on an earlier try count too.
    var creditedBytes = 0

    // The response.
    var responseStarted = false
    var responseTrailers: HTTP2Headers?
    var responseBytes: UInt64 = 0
    var status = 0
    var grpcStatus: UInt8?
    var error: ProxyError?

    // The try.
    var upstream: Upstream?
    var stream: HTTP2Stream?
    var tries = RequestTries()
    let startedNanoseconds: Int64
    var tryStartedNanoseconds: Int64 = 0
    private var subject: RequestSubject?

    // Deadlines in monotonic nanoseconds; `.max` when there is none. Most requests have none, and no timer.
    var requestDeadline = Int64.max
    var tryDeadline = Int64.max
    var retryAt = Int64.max
    private var timer: LoopTimer?

    var loop: ProxyLoop { relay.loop }
    var now: Int64 { loop.now }

    init(_ relay: HTTP2Relay, _ downstream: HTTP2Stream, _ request: HTTP2Headers) {
        self.relay = relay
        self.downstream = downstream
        self.request = request
        target = relay.freshTarget()
        head = HTTP2RequestHead(request)
        startedNanoseconds = relay.loop.now
    }

    // MARK: - Request

    func begin() {
        count()
        guard head.method != .connect else { return answer(.methodNotSupported) }
        if let limit = bodyLimitBytes, let length = head.contentLength, length > limit { return refuseBody(limit) }
        appendTrace()
        var timeout = target.decision.requestTimeoutMilliseconds
        if relay.direction == .outbound, head.isGRPC, let asked = head.timeoutMilliseconds {
            timeout = min(timeout ?? asked, asked)
        }
        if let timeout {
            requestDeadline = now &+ Int64(timeout) &* 1_000_000
            rearm()
        }
        target.budget.countRequest(now: now)
        startTry()
    }

    /// Answers a request that is not to be served.
    func refuse(_ error: ProxyError) {
        count()
        answer(error)
    }

    private func count() {
        downstream.delegate = self
        requestEnded = downstream.endsWithHead
        loop.counters.requests &+= 1
        if relay.direction == .inbound { loop.counters.arrivals &+= 1 }
        loop.requestsInFlight &+= 1
        if loop.accessLog != nil { subject = RequestSubject(request) }
    }

    private var bodyLimitBytes: UInt64? { target.decision.requestBodyLimitBytes }

    private func refuseBody(_ limit: UInt64) {
        loop.counters.bodiesTooLarge &+= 1
        endTry(.cancel)
        answer(.requestBodyTooLarge(limitBytes: limit))
    }

    private func appendTrace() {
        let parent = head.traceparent.map { request.value(at: $0) }
        if relay.direction == .outbound || parent == nil {
            let trace = TraceContext.next(after: parent, random: &loop.random)
            if let index = head.traceparent { request.remove(at: index) }
            withUnsafeTemporaryAllocation(byteCount: TraceContext.byteCount, alignment: 1) { bytes in
                trace.write(to: bytes)
                request.append("traceparent", UnsafeRawBufferPointer(bytes))
            }
            subject?.trace = trace
        } else if let parent, subject != nil {
            subject?.trace = TraceContext(parsing: parent)
        }
    }

    func startTry() {
        guard let chosen = target.pick(excluding: tries.tried) else {
            answer(target.emptiness)
            return
        }
        phase = .waiting
        tries.count &+= 1
        tryStartedNanoseconds = now
        upstream = chosen
        chosen.pending &+= 1
        if let timeout = target.decision.retry.perTryTimeoutMilliseconds {
            tryDeadline = now &+ Int64(timeout) &* 1_000_000
            rearm()
        }
        switch chosen.http2.checkout(self) {
        case .ready(let connection):
            send(on: connection)
        case .waiting:
            if tryDeadline == .max {
                tryDeadline = now &+ Int64(ProxyLimits.connectionQueueMilliseconds) &* 1_000_000
                rearm()
            }
        case .failed(let error):
            connectionFailed(chosen, error)
        }
    }

    /// The pool has a connection for the request that waited.
    func connectionReady(_ connection: HTTP2UpstreamConnection) {
        if target.decision.retry.perTryTimeoutMilliseconds == nil { tryDeadline = .max }
        send(on: connection)
    }

    private func send(on connection: HTTP2UpstreamConnection) {
        guard let upstream else { return }
        let endsWithHead = requestEnded && replay.isEmpty && requestTrailers == nil
        guard let stream = connection.session.open(request, endOfStream: endsWithHead, delegate: self) else {
            connectionFailed(upstream, .connectionQueueFull)
            return
        }
        phase = .exchanging
        self.stream = stream
        guard !endsWithHead else { return }
        stream.windowSource = downstream
        stream.creditedBytes = creditedBytes
        stream.write(replay.bytes)
        if requestEnded { stream.finish(trailers: requestTrailers) }
    }

    private func requestBody(_ bytes: UnsafeRawBufferPointer) {
        requestBytes &+= UInt64(bytes.count)
        if let limit = bodyLimitBytes, requestBytes > limit, phase == .waiting || phase == .exchanging {
            refuseBody(limit)
        }
        switch phase {
        case .waiting:
            // What comes before there is a connection is within the stream's window, and must be all there is.
            _ = replay.append(bytes, to: &loop.buffers, limit: .max)
        case .exchanging:
            stream?.write(bytes)
            guard canReplay, !responseStarted else { return }
            if !replay.append(bytes, to: &loop.buffers, limit: ProxyLimits.replayBytes) {
                canReplay = false
                replay.release(to: &loop.buffers)
            }
        case .answered, .recorded:
            downstream.consume(bytes.count)
        }
    }

    private func requestBodyEnded() {
        requestEnded = true
        if phase == .exchanging { stream?.finish(trailers: requestTrailers) }
    }

    // MARK: - Streams

    func received(headers: HTTP2Headers, on stream: HTTP2Stream) {
        guard phase == .exchanging, stream === self.stream else { return }
        responseHead(headers, stream)
    }

    func received(_ bytes: UnsafeRawBufferPointer, on stream: HTTP2Stream) {
        if stream === downstream {
            requestBody(bytes)
        } else if phase == .exchanging, stream === self.stream {
            responseBytes &+= UInt64(bytes.count)
            downstream.write(bytes)
        } else {
            stream.consume(bytes.count)
        }
    }

    func received(trailers: HTTP2Headers, on stream: HTTP2Stream) {
        if stream === downstream { requestTrailers = trailers } else { responseTrailers = trailers }
    }

    func receivedEnd(on stream: HTTP2Stream) {
        if stream === downstream {
            if !requestEnded { requestBodyEnded() }
        } else if phase == .exchanging, stream === self.stream {
            responseEnded()
        }
    }

    func writable(_ stream: HTTP2Stream) {}

    /// A peer that takes nothing more, for so long, holds memory and a place among the streams of its connection.
    func stalled(_ stream: HTTP2Stream) {
        loop.counters.http2Stalled &+= 1
        switch phase {
        case .waiting, .exchanging:
            endTry(.cancel)
            if responseStarted {
                breakOff(.idleTimeout, .cancel)
            } else {
                error = .idleTimeout
                downstream.reset(.cancel)
                answered()
            }
        case .answered, .recorded:
            if error == nil, stream === downstream { error = .idleTimeout }
            stream.reset(.cancel)
        }
    }

    func closed(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause) {
        if stream === downstream {
            clientClosed(cause)
        } else if stream === self.stream {
            creditedBytes = max(creditedBytes, stream.takenBytes)
            self.stream = nil
            upstream?.http2.serveWaiting()
            if phase == .exchanging { upstreamClosed(cause, stream) }
        } else {
            upstream?.http2.serveWaiting()
        }
    }

    private func clientClosed(_ cause: HTTP2StreamCloseCause) {
        switch phase {
        case .waiting, .exchanging:
            if isPastDeadline {
                if phase == .exchanging { upstream?.failed() }
                error = .requestTimeout
                grpcStatus = GRPCStatus.Code.deadlineExceeded.rawValue
            } else {
                error = .clientGone
                if head.isGRPC, grpcStatus == nil { grpcStatus = GRPCStatus.Code.cancelled.rawValue }
            }
            endTry(.cancel)
        case .answered:
            // A request that was answered before it was all there is ended by a reset in order.
            let isWhole = cause == .finished || cause == .reset(.noError)
            if !isWhole, UInt64(downstream.takenBytes) < responseBytes, error == nil { error = .clientGone }
        case .recorded:
            return
        }
        record()
    }

    /// A gRPC client gives up by itself at the deadline it has told, and a little before we would, since its clock started
    /// earlier and it rounds what it tells up. That the endpoint did not answer in time is all the same.
    private var isPastDeadline: Bool {
        guard requestDeadline != .max, let asked = head.timeoutMilliseconds else { return false }
        let margin = min(Int64(asked) / 10 &+ 5, Int64(asked) / 2) &* 1_000_000
        return now >= requestDeadline &- margin
    }

    // MARK: - Time

    /// Arms the timer for the earliest of the deadlines. One that moved later needs no call: the timer fires, finds nothing due,
    /// and is armed again.
    func rearm() {
        let next = min(requestDeadline, tryDeadline, retryAt)
        guard next != .max else { return }
        let timer = timer ?? LoopTimer(loop: loop.eventLoop, target: self)
        self.timer = timer
        timer.arm(afterMilliseconds: Int(clamping: max(0, next &- now) / 1_000_000 + 1))
    }

    func timerFired(_ timer: LoopTimer) {
        guard phase == .waiting || phase == .exchanging else { return }
        if retryAt <= now {
            retryAt = .max
            startTry()
        } else if requestDeadline <= now {
            timedOut(.requestTimeout)
        } else if tryDeadline <= now {
            tryDeadline = .max
            timedOut(phase == .waiting ? .connectionQueueTimeout : .perTryTimeout)
        }
        if phase == .waiting || phase == .exchanging { rearm() }
    }

    // MARK: - The end

    /// The answer is all there is going to be; it is counted when it has left.
    func answered() {
        phase = .answered
        timer?.cancel()
        replay.release(to: &loop.buffers)
        if downstream.isClosed { record() }
    }

    /// Counts the request, once.
    private func record() {
        phase = .recorded
        timer?.cancel()
        replay.release(to: &loop.buffers)
        loop.requestsInFlight &-= 1
        RequestRecord(
            direction: relay.direction, target: target, upstream: upstream, caller: relay.caller,
            applicationProtocol: head.isGRPC ? .grpc : .http2, status: status, grpcStatus: grpcStatus, error: error,
            requestBytes: requestBytes, responseBytes: responseBytes, tries: tries.count,
            durationNanoseconds: now &- startedNanoseconds, subject: subject
        ).record(on: loop)
    }
}
