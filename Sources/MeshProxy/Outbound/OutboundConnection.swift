import Logging
import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO

/// A connection that the application has dialled, from its acceptance to the relay that carries it.
///
/// The steps, in order: `resolve` (asking for a destination that is not known and waiting for the answer), `detect` (when
/// nobody has declared the protocol), `relay`.
final class OutboundConnection: ByteRelayOwner, TimerTarget, LoopMember {
    private enum Phase {
        case resolving
        case detecting(RouteTarget)
        /// A relay has it that waits for either side to speak.
        case dialledEarly(RouteTarget)
        case done
    }

    private let loop: ProxyLoop
    private let connection: Connection
    let destination: SocketAddress
    private var phase = Phase.resolving
    /// The client has begun with something that does not tell enough yet; what it counts as if nothing follows.
    private var beginning: ApplicationProtocol?
    /// The client sends no more, and may still wait for an answer.
    private var hasFinished = false
    private var timer: LoopTimer!
    var memberIndex = -1

    init(_ socket: AcceptedSocket, _ destination: SocketAddress, _ loop: ProxyLoop) {
        self.loop = loop
        self.destination = destination
        connection = Connection(accepting: socket, loop: loop.eventLoop, delegate: nil)
        timer = LoopTimer(loop: loop.eventLoop, target: self)
        connection.delegate = self
        loop.add(self)
    }

    // MARK: - Resolve

    func resolve() {
        switch loop.snapshot.resolve(destination) {
        case .route(let target):
            proceed(target)
        case .pending:
            guard loop.wait(self) else {
                loop.counters.waitingRefused &+= 1
                unresolved(.destinationQueueFull)
                return
            }
            timer.arm(afterMilliseconds: loop.configuration.deadlines.destinationMilliseconds)
            // What the client sends meanwhile, its end too, must find somebody who looks at it.
            connection.pauseReading()
        case .overflow:
            unresolved(.destinationQueueFull)
        }
    }

    /// The answer has come.
    func resolved(_ target: RouteTarget) {
        guard case .resolving = phase else { return }
        timer.cancel()
        connection.resumeReading()
        proceed(target)
    }

    /// No answer in time: the policy for unknown destinations decides, as it does for those known to be unknown. But where
    /// the mesh is strict, nothing that may be one of its own is dialled in plaintext for want of an answer.
    private func unresolved(_ error: ProxyError) {
        loop.counters.unresolvedDestinations &+= 1
        guard loop.unknownDestinations == .allow else { return refuse(error) }
        if loop.isStrict, loop.snapshot.mayBeInMesh(destination.ip) {
            loop.counters.unresolvedRefused &+= 1
            loop.log(.warning, "refused \(destination): discovery did not answer, and it may be in the mesh")
            return refuse(error)
        }
        loop.counters.unresolvedPassed &+= 1
        loop.log(.warning, "dials \(destination) in plaintext: discovery did not answer")
        proceed(loop.snapshot.passthrough(destination))
    }

    private func proceed(_ target: RouteTarget) {
        target.lastUsed = loop.now
        if target.kind == .passthrough, loop.unknownDestinations == .deny {
            loop.countDenied(destination)
            refuse(.unknownDestinationDenied)
            return
        }
        detect(target)
    }

    // MARK: - Detect

    /// Reads what the client says first. A client that may be waiting for the server's greeting is not waited for long; where
    /// HTTP is declared the client speaks first, so there is no hurry; bytes that are TLS all the same are passed through, and
    /// HTTP of another version is relayed as what it is.
    private func detect(_ target: RouteTarget) {
        if hasFinished, connection.retainedBytes == 0 { return finishedInSilence(target) }
        switch target.detectionPlan {
        case .settled(let declared):
            relay(target, declared)
        case .look(dialAfterMilliseconds: 0):
            dialEarly(target)
        case .look(let pause):
            phase = .detecting(target)
            timer.arm(afterMilliseconds: pause ?? loop.configuration.deadlines.idleMilliseconds)
            if connection.retainedBytes > 0 { connection.deliverRetained() }
        }
    }

    private func dialEarly(_ target: RouteTarget) {
        leave()
        phase = .dialledEarly(target)
        ByteRelay.startUndecided(
            loop: loop, downstream: connection, target: target, direction: .outbound, caller: loop.ownCaller,
            owner: self)
    }

    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard case .detecting(let target) = phase else { return 0 }
        switch FirstBytes.read(bytes, declared: target.declaredProtocol) {
        case .needsMore(let fallback):
            if beginning == nil { timer.arm(afterMilliseconds: ProxyLimits.sniffMilliseconds) }
            beginning = fallback
            return 0
        case .found(.http1, _) where target.kind != .passthrough:
            return startHTTP(target, bytes)
        case .found(.http2, _) where target.kind != .passthrough:
            return startHTTP2(target, bytes)
        case .found(let found, let serverName):
            relay(target, found, serverName)
            return 0
        }
    }

    func clientBegan(_ bytes: UnsafeRawBufferPointer) -> ByteRelay.Beginning {
        guard case .dialledEarly(let target) = phase else { return .elsewhere }
        switch FirstBytes.read(bytes, declared: target.declaredProtocol) {
        case .needsMore(let fallback):
            return .needsMore(else: fallback)
        case .found(let found, let serverName):
            // What leaves the mesh is passed on as it is, HTTP too.
            if target.kind == .passthrough { return .bytes(found == .tls ? .tls : .opaque, serverName) }
            return found.isHTTP ? .elsewhere : .bytes(found, serverName)
        }
    }

    func takeBack() {
        guard case .dialledEarly(let target) = phase else { return }
        phase = .detecting(target)
        loop.add(self)
    }

    func timerFired(_ timer: LoopTimer) {
        switch phase {
        case .resolving:
            loop.stopWaiting(self)
            connection.resumeReading()
            unresolved(.destinationTimeout)
        case .detecting(let target):
            if let beginning {
                settle(target, beginning)
            } else if target.declaresHTTP {
                loop.counters.idleTimeouts &+= 1
                end()
                connection.close()
            } else {
                dialEarly(target)
            }
        case .dialledEarly, .done:
            break
        }
    }

    // MARK: - Relay

    /// Nothing more has come in time: whoever relays what it counts as knows how long to wait for the rest.
    private func settle(_ target: RouteTarget, _ beginning: ApplicationProtocol) {
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        switch beginning {
        case .http1:
            _ = startHTTP(target, nothing)
            connection.deliverRetained()
        case .http2, .grpc:
            _ = startHTTP2(target, nothing)
            connection.deliverRetained()
        case .tls, .opaque:
            relay(target, beginning, beginning == .tls ? .invalid : nil)
        }
    }

    private func startHTTP(_ target: RouteTarget, _ bytes: UnsafeRawBufferPointer) -> Int {
        end()
        let relay = HTTPRelay(
            loop: loop, downstream: connection, direction: .outbound, destination: destination, target: target,
            caller: loop.ownCaller)
        return bytes.isEmpty ? 0 : relay.received(connection, bytes)
    }

    private func startHTTP2(_ target: RouteTarget, _ bytes: UnsafeRawBufferPointer) -> Int {
        end()
        return HTTP2Relay.start(
            loop: loop, downstream: connection, direction: .outbound, destination: destination, target: target,
            caller: loop.ownCaller, bytes: bytes)
    }

    private func relay(
        _ target: RouteTarget, _ found: ApplicationProtocol, _ serverName: TLSServerName? = nil
    ) {
        end()
        ByteRelay.start(
            loop: loop, downstream: connection, target: target, direction: .outbound, caller: loop.ownCaller,
            innerProtocol: found, serverName: serverName, clientHasFinished: hasFinished)
    }

    /// A client that speaks HTTP is told why; any other sees its connection reset.
    private func refuse(_ error: ProxyError) {
        end()
        let target = loop.snapshot.passthrough(destination)
        Refusal.start(
            loop: loop, connection: connection,
            refused: RefusedRequests(error: error, direction: .outbound, target: target, caller: loop.ownCaller))
    }

    private func end() {
        phase = .done
        leave()
    }

    private func leave() {
        timer.cancel()
        loop.remove(self)
    }

    // MARK: - The client

    func opened(_ connection: Connection) {}
    func drained(_ connection: Connection) {}
    func drainStarted() {}

    func readEnded(_ connection: Connection) {
        hasFinished = true
        guard case .detecting(let target) = phase else { return }
        if connection.retainedBytes == 0 {
            finishedInSilence(target)
        } else if target.declaresHTTP {
            end()
            connection.close()
        } else {
            // It has said all it will say: whatever it is, it is passed on as it is.
            relay(target, beginning ?? .opaque)
        }
    }

    /// The server may have something to say all the same, unless it speaks HTTP.
    private func finishedInSilence(_ target: RouteTarget) {
        if target.declaresHTTP {
            end()
            connection.close()
        } else {
            relay(target, target.declaredProtocol ?? .opaque)
        }
    }

    func closed(_ connection: Connection, _ cause: CloseCause) {
        if case .resolving = phase { loop.stopWaiting(self) }
        end()
    }
}
