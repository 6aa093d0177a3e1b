import Logging
import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshTelemetry

/// Something that lives on a loop until its connection is closed.
protocol LoopMember: AnyObject {
    /// Its place in the loop's list.
    var memberIndex: Int { get set }
    /// The sidecar is about to stop: what is idle may end.
    func drainStarted()
}

/// Everything that one data loop owns: its view of the mesh, its connections, its counts. Only its own thread touches it.
final class ProxyLoop: TimerTarget {
    let eventLoop: EventLoop
    let index: Int
    let configuration: DataPlane.Configuration
    private(set) var snapshot: Snapshot!
    private(set) var clientTLS: TLSContext?
    private(set) var serverTLS: TLSContext?
    var random: LoopRandom
    var buffers = BufferPool()
    var counters = LoopCounters()
    var requestsInFlight = 0
    private(set) var isDraining = false
    var drain: Drain?
    /// This pod, as the source of what its application dials.
    private(set) var ownCaller: Caller
    let unknownCaller = Caller()
    let metrics = MetricsRegistry()
    /// Counts changes of this pod's own labels.
    private(set) var labelGeneration = 0
    /// Nil when requests are not logged.
    var accessLog: AccessLog?

    private var acceptors: [Acceptor] = []
    private var members: ContiguousArray<any LoopMember> = []
    private var localTargets: [SocketAddress: RouteTarget] = [:]
    private var waiting: [SocketAddress: [OutboundConnection]] = [:]
    private var waitingCount = 0
    private var tick: LoopTimer!
    private var ticks = 0
    private var settleTimer: LoopTimer!
    private var logsThisSecond = 0

    private static let logsPerSecond = 20

    init(eventLoop: EventLoop, index: Int, configuration: DataPlane.Configuration) {
        self.eventLoop = eventLoop
        self.index = index
        self.configuration = configuration
        var seed = SystemRandomNumberGenerator()
        random = LoopRandom(seed: seed.next())
        ownCaller = unknownCaller
        snapshot = Snapshot(loop: self)
        tick = LoopTimer(loop: eventLoop, target: self)
        settleTimer = LoopTimer(loop: eventLoop, target: self, tag: 1)
        if let log = configuration.accessLog { accessLog = AccessLog(format: log.format, writer: log.writer) }
        tick.arm(afterMilliseconds: 1000)
    }

    @inline(__always)
    var now: Int64 { eventLoop.now.nanoseconds }

    /// For building output; valid until the next call into a connection.
    @inline(__always)
    var scratch: UnsafeMutableRawBufferPointer { eventLoop.scratch }

    // MARK: - Listening

    /// Listens on all addresses and answers where, with the real ports.
    func listen(
        outbound: [DataPlane.ListenerConfiguration], inbound: [DataPlane.ListenerConfiguration], reusePort: Bool
    ) throws(SystemError) -> (outbound: [SocketAddress], inbound: [SocketAddress]) {
        var addresses: (outbound: [SocketAddress], inbound: [SocketAddress]) = ([], [])
        for listener in outbound {
            let acceptor = try Acceptor(
                loop: self, direction: .outbound, configuration: listener, reusePort: reusePort)
            acceptors.append(acceptor)
            addresses.outbound.append(acceptor.listener.address)
        }
        for listener in inbound {
            let acceptor = try Acceptor(loop: self, direction: .inbound, configuration: listener, reusePort: reusePort)
            acceptors.append(acceptor)
            addresses.inbound.append(acceptor.listener.address)
        }
        return addresses
    }

    /// Whether a connection there would come back here.
    func isOwnListener(_ address: SocketAddress) -> Bool {
        guard acceptors.contains(where: { $0.listener.address.port == address.port }) else { return false }
        if address.ip.isLoopback || address.ip == .any4 || address.ip == .any6 { return true }
        return snapshot.own?.workload.addresses.contains(address.ip) ?? false
    }

    var mayAccept: Bool { members.count < ProxyLimits.connections }

    // MARK: - Members

    func add(_ member: any LoopMember) {
        member.memberIndex = members.count
        members.append(member)
    }

    /// Harmless when it was removed already.
    func remove(_ member: any LoopMember) {
        let index = member.memberIndex
        guard index >= 0, index < members.count, members[index] === member else { return }
        member.memberIndex = -1
        let last = members.removeLast()
        if last !== member {
            members[index] = last
            last.memberIndex = index
        }
    }

    /// Tells the connections to it that are in use.
    func endpointRemoved(_ upstream: Upstream) {
        for member in members {
            if let connection = member as? UpstreamConnection, connection.upstream === upstream {
                connection.endpointRemoved()
            }
        }
    }

    // MARK: - What it believes

    func apply(_ changes: [SnapshotChange]) {
        for change in changes {
            snapshot.apply(change)
            if case .own(let own) = change {
                ownCaller = Caller(own: own.workload)
                labelGeneration += 1
                if own.workload.isTerminating { beginDrain() }
            }
        }
        releaseWaiting()
    }

    func use(client: TLSContext, server: TLSContext) {
        clientTLS = client
        serverTLS = server
    }

    var unknownDestinations: MeshSettings.UnknownDestinationPolicy {
        snapshot.own?.unknownDestinations ?? .allow
    }

    /// Before the control plane has said more it is taken to be.
    var isStrict: Bool { snapshot.own?.plaintext != .permissive }

    func localProtocol(_ port: UInt16) -> ApplicationProtocol? {
        configuration.opaquePorts.contains(port) ? .opaque : snapshot.own?.workload.ports[port]
    }

    /// The application behind one of this pod's addresses. Nil when too many were dialled at once.
    func localTarget(_ destination: SocketAddress) -> RouteTarget? {
        if let target = localTargets[destination] {
            target.lastUsed = now
            return target
        }
        guard localTargets.count < ProxyLimits.localTargets else { return nil }
        let target = RouteTarget(
            loop: self, kind: .local, port: destination.port, service: snapshot.own?.workload.service, decision: .local,
            declaredProtocol: localProtocol(destination.port), balancing: .roundRobin)
        target.update(destination, .plaintext, workload: snapshot.own?.workload, isReady: true)
        localTargets[destination] = target
        return target
    }

    /// Where requests of a kept connection go after their target has gone.
    func freshTarget(for destination: SocketAddress, _ direction: HTTPRelay.Direction) -> RouteTarget? {
        switch direction {
        case .inbound:
            return localTarget(destination)
        case .outbound:
            guard case .route(let target) = snapshot.resolve(destination) else { return nil }
            return target
        }
    }

    func preface(_ inner: Preface.InnerProtocol, to upstream: Upstream) -> Preface {
        Preface(
            innerProtocol: inner, owner: ownCaller.labels.workload, app: ownCaller.labels.app,
            version: ownCaller.labels.version,
            service: upstream.target?.service?.description ?? "", pod: ownCaller.labels.pod?.description ?? "")
    }

    // MARK: - Unknown destinations

    func ask(_ address: SocketAddress) {
        configuration.resolver?.resolve(address)
    }

    /// False when as many wait as may.
    func wait(_ connection: OutboundConnection) -> Bool {
        guard waitingCount < ProxyLimits.waitingCallers else { return false }
        waitingCount += 1
        waiting[connection.destination, default: []].append(connection)
        armSettleTimer()
        return true
    }

    func stopWaiting(_ connection: OutboundConnection) {
        guard var list = waiting[connection.destination], let index = list.firstIndex(where: { $0 === connection })
        else { return }
        list.remove(at: index)
        waitingCount -= 1
        waiting[connection.destination] = list.isEmpty ? nil : list
    }

    private func releaseWaiting() {
        guard waitingCount > 0 else { return }
        for address in Array(waiting.keys) {
            guard case .route(let target) = snapshot.resolve(address), let list = waiting.removeValue(forKey: address)
            else { continue }
            waitingCount -= list.count
            for connection in list { connection.resolved(target) }
        }
        if waitingCount > 0 { armSettleTimer() }
    }

    /// What is waited for is looked at again after a while: a service that has no endpoint yet may have had its time, and a
    /// question that was not answered is asked again.
    private func armSettleTimer() {
        guard !settleTimer.isArmed else { return }
        settleTimer.arm(afterMilliseconds: Int(Snapshot.settlingNanoseconds / 1_000_000))
    }

    /// How an HTTP/2 connection ended, where that says something about its peer.
    func countEnd(_ cause: HTTP2CloseCause) {
        switch cause {
        case .protocolViolation(let why):
            counters.http2Violations &+= 1
            log(.info, "ended an HTTP/2 connection: \(why)")
        case .flood: counters.http2Floods &+= 1
        default: break
        }
    }

    func countDenied(_ destination: SocketAddress) {
        counters.unknownDenied &+= 1
        log(.warning, "denied a connection to the unknown destination \(destination)")
    }

    // MARK: - Draining

    func beginDrain() {
        guard !isDraining else { return }
        isDraining = true
        for member in Array(members) { member.drainStarted() }
    }

    /// Requests under way, byte connections that are open, and callers of HTTP/2 that do not know yet that it is time to go.
    var inFlight: Int {
        requestsInFlight
            + members.count { member in
                (member as? ByteRelay)?.isInFlight == true || (member as? HTTP2Relay)?.isTakingLeave == true
            }
    }

    func startDrain(deadlineMilliseconds: Int, completion: @escaping @Sendable (Int) -> Void) {
        drain = Drain(loop: self, deadlineMilliseconds: deadlineMilliseconds, completion: completion)
    }

    func stopAccepting() {
        for acceptor in acceptors { acceptor.listener.close() }
        acceptors.removeAll()
    }

    // MARK: - Housekeeping

    func timerFired(_ timer: LoopTimer) {
        if timer.tag == 1 {
            releaseWaiting()
            return
        }
        ticks &+= 1
        logsThisSecond = 0
        accessLog?.flush()
        if ticks % 5 == 0 {
            eachTarget { target in for upstream in target.upstreams { upstream.expireIdle() } }
            for member in members { (member as? ByteRelay)?.reportProgress() }
        }
        if ticks % 10 == 0 { eachTarget { $0.endInterval() } }
        if ticks % 60 == 0 {
            let used = snapshot.destinationsUsed(since: now &- 60_000_000_000)
            metrics.sweep(nowNanoseconds: now)
            if !used.isEmpty { configuration.resolver?.keepAlive(used) }
            for (address, target) in localTargets where target.isUnused && now &- target.lastUsed > 600_000_000_000 {
                localTargets[address] = nil
                target.removeAll()
            }
        }
        tick.arm(afterMilliseconds: 1000)
    }

    private func eachTarget(_ body: (RouteTarget) -> Void) {
        snapshot.forEachTarget(body)
        for target in localTargets.values { body(target) }
    }

    /// At most twenty lines a second and loop: a caller must not be able to fill a disk.
    func log(_ level: Logger.Level, _ message: @autoclosure () -> String) {
        guard configuration.logger.logLevel <= level, logsThisSecond < ProxyLoop.logsPerSecond else { return }
        logsThisSecond += 1
        let text = message()
        configuration.logger.log(level: level, "\(text)")
    }

    // MARK: - Reading it from outside

    /// What has happened since the last call, for the control plane.
    func takeTelemetry() -> LoopTelemetry {
        var ejections: [Ejection] = []
        let unix = AccessLog.unixNanoseconds()
        eachTarget { target in
            guard let service = target.service, target.kind != .local else { return }
            for upstream in target.upstreams where upstream.health.isEjected {
                ejections.append(
                    Ejection(
                        service: service, port: target.port, address: upstream.address, pod: upstream.workload?.pod,
                        sinceUnixMilliseconds: (unix &- (now &- upstream.health.ejectedAt)) / 1_000_000,
                        cause: upstream.health.lastCause ?? .consecutiveFailures))
            }
        }
        return LoopTelemetry(edges: metrics.takeReports(), ejections: ejections, learnedPorts: learnedPorts)
    }

    var learnedPorts: [UInt16: LearnedProtocol] {
        var learned: [UInt16: LearnedProtocol] = [:]
        for target in localTargets.values { learned[target.port] = target.memory.learned ?? learned[target.port] }
        return learned
    }

    var report: LoopReport {
        LoopReport(
            counters: counters, accessLogDropped: accessLog?.dropped ?? 0, eventLoop: eventLoop.statistics,
            requestsInFlight: requestsInFlight,
            connections: members.count, waitingCallers: waitingCount, changesApplied: snapshot.changesApplied)
    }
}
