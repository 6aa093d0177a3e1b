import MeshAddress
import MeshCore
import MeshIO

/// Relays bytes both ways between a client's connection and one of its own to an endpoint, whatever they mean.
///
/// Each side's end is passed on as such (half-close), each side's slowness slows the other, and nothing is looked at.
final class ByteRelay: ConnectionDelegate, TimerTarget, LoopMember {
    private enum Phase {
        case connecting
        case relaying
        case closed
    }

    private let loop: ProxyLoop
    private let downstream: Connection
    private let direction: HTTPRelay.Direction
    private let target: RouteTarget
    private let caller: Caller
    private let innerProtocol: ApplicationProtocol
    private var upstream: Upstream?
    private var connection: Connection?
    private var phase = Phase.connecting
    private var tried: [Upstream] = []
    private var downstreamIsClosed = false
    private var upstreamIsClosed = false
    private var startedNanoseconds: Int64
    private var movedNanoseconds: Int64
    /// From the client and to it, and how much of it has been told.
    private var sentBytes: UInt64 = 0
    private var receivedBytes: UInt64 = 0
    /// What the client's connection had counted when the kernel took over moving the bytes; nil while they pass through here.
    private var forwardedFrom: (received: UInt64, sent: UInt64)?
    private var reportedSent: UInt64 = 0
    private var reportedReceived: UInt64 = 0
    private var error: ProxyError?
    private var timer: LoopTimer!
    /// An upgraded exchange was counted as a request already.
    private let isUpgrade: Bool
    var memberIndex = -1

    private init(
        loop: ProxyLoop, downstream: Connection, target: RouteTarget, direction: HTTPRelay.Direction, caller: Caller,
        innerProtocol: ApplicationProtocol, isUpgrade: Bool
    ) {
        self.loop = loop
        self.downstream = downstream
        self.target = target
        self.direction = direction
        self.caller = caller
        self.innerProtocol = innerProtocol
        self.isUpgrade = isUpgrade
        startedNanoseconds = loop.now
        movedNanoseconds = loop.now
        timer = LoopTimer(loop: loop.eventLoop, target: self)
        loop.add(self)
        downstream.delegate = self
    }

    /// Chooses an endpoint for the client's connection and connects to it. What the client has sent so far is retained by its
    /// connection and goes first.
    static func start(
        loop: ProxyLoop, downstream: Connection, target: RouteTarget, direction: HTTPRelay.Direction, caller: Caller,
        innerProtocol: ApplicationProtocol
    ) {
        let relay = ByteRelay(
            loop: loop, downstream: downstream, target: target, direction: direction, caller: caller,
            innerProtocol: innerProtocol, isUpgrade: false)
        downstream.pauseReading()
        loop.counters.byteConnections &+= 1
        relay.connect()
    }

    /// Goes on with two connections that stand, behind an upgrade.
    static func take(
        loop: ProxyLoop, downstream: Connection, upstreamConnection: Connection, upstream: Upstream,
        target: RouteTarget,
        direction: HTTPRelay.Direction, caller: Caller
    ) {
        let relay = ByteRelay(
            loop: loop, downstream: downstream, target: target, direction: direction, caller: caller,
            innerProtocol: .http1, isUpgrade: true)
        relay.upstream = upstream
        relay.connection = upstreamConnection
        upstream.pending += 1
        upstream.byteConnections += 1
        upstreamConnection.delegate = relay
        relay.begin()
    }

    // MARK: - Connecting

    private func connect() {
        guard let chosen = target.pick(excluding: tried) else {
            fail(target.emptiness)
            return
        }
        guard chosen.byteConnections < Upstream.byteConnectionLimit else {
            fail(.connectionQueueFull)
            return
        }
        var tls: (TLSContext, serverName: String?)?
        if chosen.isMeshed {
            guard let context = loop.clientTLS else {
                fail(.identityMissing)
                return
            }
            tls = (context, serverName: nil)
        }
        upstream = chosen
        chosen.pending += 1
        chosen.byteConnections += 1
        loop.counters.connectionsOpened &+= 1
        connection = Connection(
            connectingTo: chosen.address, loop: loop.eventLoop, tls: tls,
            connectTimeoutMilliseconds: target.decision.connectTimeoutMilliseconds,
            handshakeTimeoutMilliseconds: ProxyLimits.handshakeMilliseconds, delegate: self)
    }

    private func releaseUpstream() {
        guard let upstream else { return }
        upstream.pending -= 1
        upstream.byteConnections -= 1
        OutlierDetector.abandoned(&upstream.health)
        self.upstream = nil
    }

    /// Nothing has been sent, so any endpoint may be tried in its place.
    private func connectFailed(_ error: ProxyError) {
        loop.counters.connectFailures &+= 1
        upstream?.failedInTransport()
        connection = nil
        guard let failed = upstream else { return }
        releaseUpstream()
        tried.append(failed)
        guard tried.count <= target.decision.retry.count,
            target.upstreams.contains(where: { candidate in
                !tried.contains { $0 === candidate }
            })
        else {
            fail(error)
            return
        }
        loop.counters.retries &+= 1
        connect()
    }

    private func fail(_ error: ProxyError) {
        guard phase == .connecting else { return }
        phase = .closed
        self.error = error
        upstreamIsClosed = true
        downstream.abort()
    }

    func opened(_ connection: Connection) {
        guard connection === self.connection, phase == .connecting, let upstream else { return }
        if case .mesh(let expected) = upstream.security {
            if let problem = MeshClientTLS.problem(with: connection.tls, expected: expected) {
                loop.counters.identityMismatches &+= 1
                connection.delegate = nil
                connection.abort()
                connectFailed(problem)
                return
            }
            loop.preface(Preface.InnerProtocol(innerProtocol), to: upstream).encoded.withUnsafeBytes {
                connection.write($0)
            }
        }
        connection.detectLoss(
            idleSeconds: ProxyLimits.silenceSeconds, intervalSeconds: ProxyLimits.silenceIntervalSeconds,
            timeoutMilliseconds: ProxyLimits.lossMilliseconds)
        upstream.latency.observe(nanoseconds: loop.now &- startedNanoseconds, now: loop.now)
        upstream.succeeded()
        begin()
    }

    private func begin() {
        phase = .relaying
        movedNanoseconds = loop.now
        timer.arm(afterMilliseconds: loop.configuration.deadlines.byteIdleMilliseconds)
        recordOpened()
        forward()
        downstream.resumeReading()
        if downstream.retainedBytes > 0 { downstream.deliverRetained() }
    }

    /// Between two plaintext connections the kernel moves the bytes.
    private func forward() {
        guard let connection, upstream?.isMeshed == false, downstream.tls == nil else { return }
        let counted = (
            received: downstream.bytesReceived &- UInt64(downstream.retainedBytes), sent: downstream.bytesSent
        )
        guard downstream.forward(into: connection) else { return }
        forwardedFrom = counted
        _ = connection.forward(into: downstream)
    }

    private func count() {
        guard let forwardedFrom else { return }
        let sent = downstream.bytesReceived &- forwardedFrom.received
        let received = downstream.bytesSent &- forwardedFrom.sent
        if sent != sentBytes || received != receivedBytes { movedNanoseconds = loop.now }
        sentBytes = sent
        receivedBytes = received
    }

    // MARK: - Relaying

    private func other(_ side: Connection) -> Connection? { side === downstream ? connection : downstream }

    func received(_ side: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard phase == .relaying, let other = other(side) else { return phase == .closed ? bytes.count : 0 }
        movedNanoseconds = loop.now
        if forwardedFrom == nil {
            if side === downstream { sentBytes &+= UInt64(bytes.count) } else { receivedBytes &+= UInt64(bytes.count) }
        }
        other.write(bytes)
        if other.isAboveHighWater { side.pauseReading() }
        return bytes.count
    }

    func readEnded(_ side: Connection) {
        guard phase == .relaying else { return }
        other(side)?.finishWriting()
    }

    func drained(_ side: Connection) {
        guard phase == .relaying else { return }
        other(side)?.resumeReading()
    }

    func closed(_ side: Connection, _ cause: CloseCause) {
        if side === downstream {
            downstreamIsClosed = true
        } else if phase == .connecting {
            guard side === connection else { return }
            if downstreamIsClosed { upstreamIsClosed = true } else { connectFailed(ProxyError(connecting: cause)) }
        } else {
            upstreamIsClosed = true
        }
        if phase == .connecting, downstreamIsClosed {
            phase = .closed
            error = .clientGone
            upstreamIsClosed = true
            connection?.delegate = nil
            connection?.abort()
        } else if phase == .relaying, downstreamIsClosed || upstreamIsClosed {
            phase = .closed
            // A clean end flushes the other side; anything else must be as visible there as it was here.
            if let other = other(side) {
                if cause == .peer || cause == .local { other.close() } else { other.abort() }
            }
        }
        if downstreamIsClosed, upstreamIsClosed { end() }
    }

    func timerFired(_ timer: LoopTimer) {
        guard phase == .relaying else { return }
        count()
        let idle = (loop.now &- movedNanoseconds) / 1_000_000
        if idle < Int64(loop.configuration.deadlines.byteIdleMilliseconds) {
            timer.arm(afterMilliseconds: loop.configuration.deadlines.byteIdleMilliseconds - Int(idle))
            return
        }
        loop.counters.idleTimeouts &+= 1
        error = .idleTimeout
        downstream.close()
        connection?.close()
    }

    func drainStarted() {}

    // MARK: - Recording

    private func recordOpened() {
        guard !isUpgrade else { return }
        ByteRecord(
            direction: direction, target: target, upstream: upstream, caller: caller, kind: .opened, sent: 0,
            received: 0,
            error: nil, durationNanoseconds: 0, applicationProtocol: innerProtocol
        ).record(on: loop)
    }

    /// What has moved since it was last told; long connections are told about while they live.
    func reportProgress() {
        guard phase == .relaying, !isUpgrade else { return }
        report(.progress)
    }

    private func report(_ kind: ByteRecord.Kind) {
        count()
        let record = ByteRecord(
            direction: direction, target: target, upstream: upstream, caller: caller, kind: kind,
            sent: sentBytes &- reportedSent, received: receivedBytes &- reportedReceived, error: error,
            durationNanoseconds: loop.now &- startedNanoseconds, applicationProtocol: innerProtocol)
        reportedReceived = receivedBytes
        reportedSent = sentBytes
        record.record(on: loop)
    }

    private func end() {
        timer.cancel()
        if !isUpgrade { report(connection == nil ? .failed : .closed) }
        releaseUpstream()
        loop.remove(self)
    }
}
