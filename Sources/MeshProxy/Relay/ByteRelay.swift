import MeshAddress
import MeshCore
import MeshIO

/// Relays bytes both ways between a client's connection and one of its own to an endpoint, whatever they mean.
///
/// Each side's end is passed on as such (half-close), each side's slowness slows the other, and nothing is looked at. Between two
/// plaintext connections the kernel moves the bytes. A relay that was started before anybody has spoken
/// (`ByteRelay+Opening.swift`) finds out first whether bytes are what it has to carry.
final class ByteRelay: ConnectionDelegate, TimerTarget, LoopMember {
    enum Phase {
        case connecting
        /// The endpoint is there, and neither side has spoken.
        case listening
        case relaying
        case closed
    }

    let loop: ProxyLoop
    let downstream: Connection
    let direction: HTTPRelay.Direction
    let target: RouteTarget
    let caller: Caller
    var innerProtocol: ApplicationProtocol
    /// Of the application's own TLS.
    var serverName: TLSServerName?
    /// Whom to ask what the client's first bytes mean; nil once that is settled.
    var owner: (any ByteRelayOwner)?
    var upstream: Upstream?
    var connection: Connection?
    var phase = Phase.connecting
    var tried: [Upstream] = []
    var downstreamIsClosed = false
    var upstreamIsClosed = false
    /// The client's end was told before the relay could pass it on.
    var clientHasFinished = false
    /// The client has begun with something that does not tell enough yet; what it counts as if nothing follows.
    var beginning: ApplicationProtocol?
    var error: ProxyError?
    var timer: LoopTimer!
    let startedNanoseconds: Int64
    /// An upgraded exchange was counted as a request already.
    let isUpgrade: Bool
    var memberIndex = -1

    private var movedNanoseconds: Int64
    /// From the client and to it, and how much of it has been told.
    private var sentBytes: UInt64 = 0
    private var receivedBytes: UInt64 = 0
    private var reportedSent: UInt64 = 0
    private var reportedReceived: UInt64 = 0
    /// What the client's connection had counted when the kernel took over moving the bytes; nil while they pass through here.
    private var forwardedFrom: (received: UInt64, sent: UInt64)?
    /// What the first bytes from the server prove; nil when they have, or when there is nothing to learn.
    private var unproven: LearnedProtocol?

    init(
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
    ///
    /// - Parameter clientHasFinished: its end has been told to whoever had the connection before.
    static func start(
        loop: ProxyLoop, downstream: Connection, target: RouteTarget, direction: HTTPRelay.Direction, caller: Caller,
        innerProtocol: ApplicationProtocol, serverName: TLSServerName? = nil, clientHasFinished: Bool = false
    ) {
        let relay = ByteRelay(
            loop: loop, downstream: downstream, target: target, direction: direction, caller: caller,
            innerProtocol: innerProtocol, isUpgrade: false)
        relay.clientHasFinished = clientHasFinished
        downstream.pauseReading()
        relay.settle(innerProtocol, serverName)
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

    /// Whether anybody would miss it: a connection on which nobody has spoken carries nothing.
    var isInFlight: Bool { owner == nil }

    // MARK: - Beginning

    /// What it carries is known from here on.
    ///
    /// - Parameter proving: what the server's first bytes prove of the port, if they come.
    func settle(_ found: ApplicationProtocol, _ serverName: TLSServerName?, proving: LearnedProtocol? = nil) {
        innerProtocol = found
        self.serverName = serverName
        owner = nil
        unproven = isUpgrade || target.declaredProtocol != nil ? nil : proving ?? LearnedProtocol(found)
        loop.counters.byteConnections &+= 1
        if direction == .inbound { loop.counters.arrivals &+= 1 }
    }

    /// - Parameter offered: bytes of the client's that its connection offers at this moment, and so does not count as retained.
    func begin(offered: Int = 0) {
        phase = .relaying
        movedNanoseconds = loop.now
        timer.arm(afterMilliseconds: loop.configuration.deadlines.byteIdleMilliseconds)
        recordOpened()
        forward(offered)
        downstream.resumeReading()
        if downstream.retainedBytes > 0 {
            downstream.deliverRetained()
        } else if clientHasFinished, offered == 0 {
            connection?.finishWriting()
        }
    }

    /// Between two plaintext connections the kernel moves the bytes.
    private func forward(_ offered: Int) {
        guard let connection, upstream?.isMeshed == false, downstream.tls == nil else { return }
        let counted = (
            received: downstream.bytesReceived &- UInt64(downstream.retainedBytes + offered), sent: downstream.bytesSent
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
        if received > 0 { prove() }
    }

    /// The server has answered: what it was spoken to is what it speaks.
    private func prove() {
        guard let proven = unproven else { return }
        unproven = nil
        target.prove(proven)
    }

    // MARK: - Relaying

    private func other(_ side: Connection) -> Connection? { side === downstream ? connection : downstream }

    func received(_ side: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        switch phase {
        case .relaying: relay(bytes, from: side)
        case .connecting, .listening: listen(bytes, from: side)
        case .closed: bytes.count
        }
    }

    func relay(_ bytes: UnsafeRawBufferPointer, from side: Connection) -> Int {
        guard let other = other(side) else { return bytes.count }
        movedNanoseconds = loop.now
        if side === downstream {
            if forwardedFrom == nil { sentBytes &+= UInt64(bytes.count) }
        } else {
            if forwardedFrom == nil { receivedBytes &+= UInt64(bytes.count) }
            if unproven != nil { prove() }
        }
        other.write(bytes)
        if clientHasFinished, side === downstream { other.finishWriting() }
        if other.isAboveHighWater { side.pauseReading() }
        return bytes.count
    }

    func readEnded(_ side: Connection) {
        switch phase {
        case .relaying: other(side)?.finishWriting()
        case .connecting, .listening: endedEarly(side)
        case .closed: break
        }
    }

    func drained(_ side: Connection) {
        guard phase == .relaying else { return }
        other(side)?.resumeReading()
    }

    func closed(_ side: Connection, _ cause: CloseCause) {
        guard phase == .relaying || phase == .closed else { return closedEarly(side, cause) }
        if side === downstream { downstreamIsClosed = true } else { upstreamIsClosed = true }
        if phase == .relaying {
            phase = .closed
            // A clean end flushes the other side; anything else must be as visible there as it was here.
            if let other = other(side) {
                if cause == .peer || cause == .local { other.close() } else { other.abort() }
            }
        }
        if downstreamIsClosed, upstreamIsClosed { end() }
    }

    func timerFired(_ timer: LoopTimer) {
        guard phase == .relaying else { return waitedLong() }
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

    func drainStarted() {
        guard owner != nil, direction == .inbound else { return }
        endUnused()
    }

    // MARK: - Recording

    private func recordOpened() {
        guard !isUpgrade else { return }
        record(.opened, sent: 0, received: 0)
    }

    /// What has moved since it was last told; long connections are told about while they live.
    func reportProgress() {
        guard phase == .relaying, !isUpgrade else { return }
        report(.progress)
    }

    private func report(_ kind: ByteRecord.Kind) {
        count()
        record(kind, sent: sentBytes &- reportedSent, received: receivedBytes &- reportedReceived)
        reportedReceived = receivedBytes
        reportedSent = sentBytes
    }

    private func record(_ kind: ByteRecord.Kind, sent: UInt64, received: UInt64) {
        ByteRecord(
            direction: direction, target: target, upstream: upstream, caller: caller, kind: kind, sent: sent,
            received: received, totalSent: sentBytes, totalReceived: receivedBytes, error: error,
            durationNanoseconds: loop.now &- startedNanoseconds, applicationProtocol: innerProtocol,
            serverName: serverName
        ).record(on: loop)
    }

    /// Both sides have closed, or nothing was begun.
    func end() {
        timer.cancel()
        if !isUpgrade { report(connection == nil ? .failed : .closed) }
        releaseUpstream()
        loop.remove(self)
    }
}
