import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO

/// Relays the HTTP/1 requests of one client connection, one after the other, each over a connection of a pool.
///
/// The request's way is in `HTTPRelay+Request.swift`, the response's in `HTTPRelay+Response.swift`, what happens when a try fails in
/// `HTTPRelay+Retry.swift`. The object is the request's whole state and is used again for the next request; per request nothing is
/// allocated.
final class HTTPRelay: ConnectionDelegate, TimerTarget, LoopMember {
    enum Direction {
        case outbound
        case inbound
    }

    enum Phase {
        /// Between requests, or within a head that has not arrived whole.
        case idle
        /// A request waits for a connection, or for the time of its next try.
        case waiting
        /// A request is on a connection.
        case exchanging
        /// It is answered, but its body still arrives.
        case discarding
        /// Nothing is read any more for its own sake; the connection ends.
        case closing
    }

    let loop: ProxyLoop
    let downstream: Connection
    let direction: Direction
    /// Where the client's connection was going.
    let destination: SocketAddress
    var target: RouteTarget
    /// Who calls, on an inbound connection.
    let caller: Caller
    var memberIndex = -1

    var phase = Phase.idle
    var downstreamEnded = false
    var isWithinHead = false

    // The request under way.
    var method = HTTPMethod.other
    var traits: RequestTraits = []
    var keepsAlive = false
    var wantsUpgrade = false
    var requestBody = BodyScanner(.none)
    var responseBody = BodyScanner(.none)
    var replay = ReplayBuffer()
    /// Whether `replay` holds all that was taken of the request so far.
    var canReplay = false
    /// Whether the final response's head has been passed on.
    var responseStarted = false
    var responseKeepsUpstream = false
    var closesAfterResponse = false
    /// The client sends its body when it is told to (RFC 9110 §10.1.1), and has not been told yet.
    var awaitsContinue = false
    /// The response has been passed on whole, and the endpoint still takes the request's body.
    var responseIsComplete = false
    /// The chunks of the response are taken apart for a client of HTTP/1.0.
    var dechunks = false
    var status = 0
    var upstream: Upstream?
    var exchange: UpstreamConnection?
    var tries = RequestTries()
    var discarded = 0
    var startedNanoseconds: Int64 = 0
    var tryStartedNanoseconds: Int64 = 0
    var requestBytes: UInt64 = 0
    var responseBytes: UInt64 = 0
    /// What was asked, kept only when somebody reads it (the access log).
    var subject: RequestSubject?

    // Deadlines in monotonic nanoseconds; `.max` when there is none.
    var clientDeadline = Int64.max
    var requestDeadline = Int64.max
    var tryDeadline = Int64.max
    var retryAt = Int64.max
    /// For more of the request's body.
    var bodyDeadline = Int64.max
    /// When something of the exchange last moved.
    var movedNanoseconds: Int64 = 0
    private var timer: LoopTimer!

    init(
        loop: ProxyLoop, downstream: Connection, direction: Direction, destination: SocketAddress, target: RouteTarget,
        caller: Caller
    ) {
        self.loop = loop
        self.downstream = downstream
        self.direction = direction
        self.destination = destination
        self.target = target
        self.caller = caller
        timer = LoopTimer(loop: loop.eventLoop, target: self)
        loop.add(self)
        downstream.delegate = self
        awaitRequest()
    }

    @inline(__always)
    var now: Int64 { loop.now }

    // MARK: - The client's connection

    func opened(_ connection: Connection) {}

    @inline(__always)
    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        switch phase {
        case .idle: return beginRequests(bytes)
        case .exchanging, .waiting: return requestBody.isDone ? 0 : continueRequest(bytes)
        case .discarding: return discard(bytes)
        case .closing: return bytes.count
        }
    }

    func readEnded(_ connection: Connection) {
        downstreamEnded = true
        switch phase {
        case .idle:
            downstream.close()
            phase = .closing
        case .waiting, .exchanging:
            // What has come before the end, and waits here, is offered yet.
            if downstream.retainedBytes == 0 {
                requestEnded()
            } else if !requestBody.isDone {
                // Nothing more will come that would have them offered: the beginning of a chunk's line, for one.
                downstream.deliverRetained()
            }
        case .discarding, .closing:
            downstream.close()
        }
    }

    /// The client has finished its side. It may still wait for the answer, but not in the middle of its request.
    func requestEnded() {
        if requestBody.isDone { return }
        if responseIsComplete { endEarlyAnswer() } else { abandonRequest(.clientGone) }
    }

    func drained(_ connection: Connection) {
        exchange?.connection.resumeReading()
    }

    func closed(_ connection: Connection, _ cause: CloseCause) {
        if phase == .waiting || phase == .exchanging { abandonRequest(.clientGone) }
        phase = .closing
        replay.release(to: &loop.buffers)
        timer.cancel()
        loop.remove(self)
    }

    // MARK: - Between requests

    @inline(__always)
    func awaitRequest() {
        phase = .idle
        clientDeadline = now &+ Int64(loop.configuration.deadlines.idleMilliseconds) &* 1_000_000
        requestDeadline = .max
        tryDeadline = .max
        timer.arm(afterMilliseconds: loop.configuration.deadlines.idleMilliseconds)
    }

    /// Arms the timer for the earliest of the deadlines. A deadline that moved later needs no call: the timer fires, finds
    /// nothing due, and is armed again.
    func rearm() {
        var next = min(min(clientDeadline, requestDeadline), min(tryDeadline, min(retryAt, bodyDeadline)))
        if phase == .waiting || phase == .exchanging { next = min(next, stallDeadline) }
        guard next != .max else { return }
        timer.arm(afterMilliseconds: Int(clamping: max(0, next &- now) / 1_000_000 + 1))
    }

    func timerFired(_ timer: LoopTimer) {
        if retryAt <= now {
            retryAt = .max
            startTry()
        } else if requestDeadline <= now {
            requestDeadline = .max
            tryDeadline = .max
            timedOut(.requestTimeout)
        } else if tryDeadline <= now {
            tryDeadline = .max
            timedOut(phase == .waiting ? .connectionQueueTimeout : .perTryTimeout)
        } else if bodyDeadline <= now {
            bodyDeadline = .max
            bodyTimedOut()
        } else if clientDeadline <= now {
            clientDeadline = .max
            clientTimedOut()
        } else if phase == .waiting || phase == .exchanging, stallDeadline <= now {
            loop.counters.idleTimeouts &+= 1
            movedNanoseconds = now
            timedOut(.idleTimeout)
        }
        if phase != .closing || clientDeadline != .max { rearm() }
    }

    private func clientTimedOut() {
        switch phase {
        case .idle where downstream.retainedBytes > 0:
            loop.counters.headTimeouts &+= 1
            refuse(.headTimeout)
        case .idle:
            loop.counters.idleTimeouts &+= 1
            closeGracefully()
        case .discarding, .closing:
            downstream.close()
        case .waiting, .exchanging:
            break
        }
    }

    /// The idle timer of the time between requests is not taken back when one begins: it comes to this at its leisure.
    private var stallDeadline: Int64 {
        movedNanoseconds &+ Int64(loop.configuration.deadlines.byteIdleMilliseconds) &* 1_000_000
    }

    /// The client has sent nothing of its body for a while.
    private func bodyTimedOut() {
        guard phase == .waiting || phase == .exchanging, !requestBody.isDone else { return }
        if responseIsComplete {
            endEarlyAnswer()
            return
        }
        // Nobody waits for a client that was not told to go on, that is held up here, or that talks with its server in turns.
        let isHeldUp = phase == .waiting || exchange?.connection.isAboveHighWater == true
        if awaitsContinue || isHeldUp || responseStarted {
            awaitBody()
            return
        }
        loop.counters.bodyTimeouts &+= 1
        endTry(abort: true)
        refuse(.bodyTimeout)
    }

    /// Ends the connection so that a peer which is just sending another request learns that nobody has read it: our side is
    /// finished first, and reading goes on for a while, since closing over unread bytes would reset what we sent.
    func closeGracefully() {
        guard phase != .closing else { return }
        phase = .closing
        if downstreamEnded {
            downstream.close()
            return
        }
        downstream.finishWriting()
        clientDeadline = now &+ Int64(ProxyLimits.lingerMilliseconds) &* 1_000_000
        requestDeadline = .max
        tryDeadline = .max
        bodyDeadline = .max
        rearm()
        downstream.resumeReading()
    }

    /// Breaks the connection off: the client must not take what it has for a whole answer.
    func breakOff() {
        phase = .closing
        downstream.abort()
    }

    /// Leaves the connection to another delegate.
    func detach() {
        timer.cancel()
        loop.remove(self)
    }

    func drainStarted() {
        guard direction == .inbound, phase == .idle, downstream.retainedBytes == 0 else { return }
        closeGracefully()
    }
}

extension HTTPRelay: Equatable {
    static func == (left: HTTPRelay, right: HTTPRelay) -> Bool { left === right }
}
