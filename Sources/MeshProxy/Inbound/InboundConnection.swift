import Logging
import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshIdentity

/// A connection that somebody has dialled in this pod, from its acceptance to the relay that carries it.
///
/// The steps, in order: `peek` (is it a sidecar of the mesh?), TLS and `identify`, `preface`, or `authorize` for those who come
/// without an identity, then `detect` where it is not known what is spoken, then `relay` to the application.
final class InboundConnection: ByteRelayOwner, TimerTarget, LoopMember {
    private enum Phase {
        case peeking
        case handshaking
        case preface(SPIFFEID)
        case detecting(Caller)
        /// A relay has it that waits for either side to speak.
        case dialledEarly(Caller)
        case done
    }

    private let loop: ProxyLoop
    private let connection: Connection
    private let destination: SocketAddress
    private var phase = Phase.peeking
    /// The first wait of `peeking` is over.
    private var isLate = false
    /// The caller has begun with something that does not tell enough yet; what it counts as if nothing follows.
    private var beginning: ApplicationProtocol?
    /// Taken for somebody without an identity because it was slow.
    private var isLateSidecar = false
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

    // MARK: - Peek

    /// A sidecar sends its ClientHello at once. Under a permissive policy a caller that is silent for a moment may be waiting
    /// for the server's greeting; under a strict one it has until the handshake's deadline.
    func peek() {
        timer.arm(afterMilliseconds: ProxyLimits.sniffMilliseconds)
    }

    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        switch phase {
        case .peeking:
            switch ClientHello.inspect(bytes) {
            case .needsMore:
                isLate = true
                timer.arm(afterMilliseconds: ProxyLimits.handshakeMilliseconds)
            case .mesh:
                handshake()
            case .otherTLS:
                authorize(.otherTLS)
            case .notTLS:
                authorize(.plaintext)
            }
            return detectNow(bytes)
        case .preface(let identity):
            return readPreface(bytes, identity)
        case .detecting(let caller):
            return detect(bytes, caller)
        case .handshaking, .dialledEarly, .done:
            return 0
        }
    }

    // MARK: - TLS and identity

    private func handshake() {
        guard let context = loop.serverTLS else {
            loop.counters.handshakesWithoutIdentity &+= 1
            end()
            connection.abort()
            return
        }
        phase = .handshaking
        timer.cancel()
        connection.startTLS(context, handshakeTimeoutMilliseconds: ProxyLimits.handshakeMilliseconds)
    }

    func opened(_ connection: Connection) {
        guard case .handshaking = phase else { return }
        do {
            let identity = try MeshServerTLS.identity(of: connection.tls, trustDomains: loop.snapshot.trustDomains)
            guard Authorizer.decide(.mesh(identity), own: loop.snapshot.own) == .allow else {
                refuseCaller("policy denies \(identity)")
                return
            }
            phase = .preface(identity)
            timer.arm(afterMilliseconds: loop.configuration.deadlines.idleMilliseconds)
        } catch {
            refuseCaller(error.description)
        }
    }

    private func refuseCaller(_ why: String) {
        loop.counters.identityMismatches &+= 1
        loop.log(.warning, "refused a caller from \(connection.peer) to \(destination): \(why)")
        end()
        connection.abort()
    }

    // MARK: - Preface

    private func readPreface(_ bytes: UnsafeRawBufferPointer, _ identity: SPIFFEID) -> Int {
        switch Preface.parse(bytes) {
        case .needsMore:
            return 0
        case .malformed(let why):
            refuseCaller("its preface is malformed: \(why)")
            return bytes.count
        case .parsed(let preface, let length):
            let caller = Caller(identity, preface)
            switch preface.innerProtocol {
            case .http1:
                return length + startHTTP(caller, UnsafeRawBufferPointer(rebasing: bytes[length...]))
            case .http2:
                return length + startHTTP2(caller, UnsafeRawBufferPointer(rebasing: bytes[length...]))
            case .opaque where !isDeclaredHTTP:
                relay(caller, .opaque)
            case .tls, .opaque, .undecided:
                look(caller, hasBegun: bytes.count > length)
                return length + detectNow(UnsafeRawBufferPointer(rebasing: bytes[length...]))
            }
            return length
        }
    }

    /// Then a caller's word that it sends bytes is not taken for it.
    private var isDeclaredHTTP: Bool {
        loop.localProtocol(destination.port)?.isHTTP ?? false
    }

    // MARK: - Without an identity

    private func authorize(_ caller: Authorizer.Caller) {
        switch Authorizer.decide(caller, own: loop.snapshot.own) {
        case .allow:
            loop.counters.plaintextAccepted &+= 1
            look(loop.unknownCaller, hasBegun: true)
        case .deny:
            loop.counters.plaintextRefused &+= 1
            refuse(.mtlsRequired)
        }
    }

    // MARK: - Detect

    /// Finds out what is spoken. The application is dialled at once: who calls has been silent for long enough, and it is near.
    ///
    /// - Parameter hasBegun: whether the caller has sent something that its connection will offer again.
    private func look(_ caller: Caller, hasBegun: Bool) {
        guard let target = loop.localTarget(destination) else { return refuseForRoom() }
        switch target.detectionPlan {
        case .settled(let declared):
            relay(caller, declared)
        case .look(let pause) where hasBegun || pause == nil:
            phase = .detecting(caller)
            timer.arm(afterMilliseconds: loop.configuration.deadlines.idleMilliseconds)
            connection.deliverRetained()
        case .look:
            leave()
            phase = .dialledEarly(caller)
            ByteRelay.startUndecided(
                loop: loop, downstream: connection, target: target, direction: .inbound, caller: caller, owner: self)
        }
    }

    /// A caller's end that comes with its first bytes must not find them unread: they would pass as bytes, whatever they are.
    private func detectNow(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard case .detecting(let caller) = phase, !bytes.isEmpty else { return 0 }
        return detect(bytes, caller)
    }

    private func detect(_ bytes: UnsafeRawBufferPointer, _ caller: Caller) -> Int {
        switch read(bytes) {
        case .needsMore(let fallback):
            if beginning == nil { timer.arm(afterMilliseconds: ProxyLimits.sniffMilliseconds) }
            beginning = fallback
            return 0
        case .found(.http1, _):
            return startHTTP(caller, bytes)
        case .found(.http2, _):
            return startHTTP2(caller, bytes)
        case .found(let found, let serverName):
            relay(caller, found, serverName)
            return 0
        }
    }

    private func read(_ bytes: UnsafeRawBufferPointer) -> FirstBytes {
        .read(bytes, declared: loop.localProtocol(destination.port))
    }

    func clientBegan(_ bytes: UnsafeRawBufferPointer) -> ByteRelay.Beginning {
        guard case .dialledEarly(let caller) = phase else { return .elsewhere }
        if caller === loop.unknownCaller, ClientHello.inspect(bytes) == .mesh {
            isLateSidecar = true
            return .elsewhere
        }
        switch read(bytes) {
        case .needsMore(let fallback): return .needsMore(else: fallback)
        case .found(.http1, _), .found(.http2, _): return .elsewhere
        case .found(let found, let serverName): return .bytes(found, serverName)
        }
    }

    func takeBack() {
        guard case .dialledEarly(let caller) = phase else { return }
        phase = isLateSidecar ? .peeking : .detecting(caller)
        loop.add(self)
    }

    // MARK: - Relay

    /// Nothing more has come in time: whoever relays what it counts as knows how long to wait for the rest.
    private func settle(_ caller: Caller, _ beginning: ApplicationProtocol) {
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        switch beginning {
        case .http1:
            _ = startHTTP(caller, nothing)
            connection.deliverRetained()
        case .http2, .grpc:
            _ = startHTTP2(caller, nothing)
            connection.deliverRetained()
        case .tls, .opaque:
            relay(caller, beginning, beginning == .tls ? .invalid : nil)
        }
    }

    private func startHTTP(_ caller: Caller, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard let target = loop.localTarget(destination) else {
            refuseForRoom()
            return 0
        }
        end()
        let relay = HTTPRelay(
            loop: loop, downstream: connection, direction: .inbound, destination: destination, target: target,
            caller: caller)
        return bytes.isEmpty ? 0 : relay.received(connection, bytes)
    }

    private func startHTTP2(_ caller: Caller, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard let target = loop.localTarget(destination) else {
            refuseForRoom()
            return 0
        }
        end()
        return HTTP2Relay.start(
            loop: loop, downstream: connection, direction: .inbound, destination: destination, target: target,
            caller: caller, bytes: bytes)
    }

    private func relay(
        _ caller: Caller, _ found: ApplicationProtocol, _ serverName: TLSServerName? = nil,
        clientHasFinished: Bool = false
    ) {
        guard let target = loop.localTarget(destination) else { return refuseForRoom() }
        end()
        ByteRelay.start(
            loop: loop, downstream: connection, target: target, direction: .inbound, caller: caller,
            innerProtocol: found, serverName: serverName, clientHasFinished: clientHasFinished)
    }

    private func refuseForRoom() { refuse(.destinationQueueFull) }

    private func refuse(_ error: ProxyError) {
        end()
        let target = loop.localTarget(destination) ?? loop.snapshot.passthrough(destination)
        Refusal.start(
            loop: loop, connection: connection,
            refused: RefusedRequests(error: error, direction: .inbound, target: target, caller: loop.unknownCaller))
    }

    private func end() {
        phase = .done
        leave()
    }

    private func leave() {
        timer.cancel()
        loop.remove(self)
    }

    // MARK: - The caller

    func timerFired(_ timer: LoopTimer) {
        switch phase {
        case .peeking:
            let mayBePlaintext = Authorizer.decide(.plaintext, own: loop.snapshot.own) == .allow
            if mayBePlaintext, connection.retainedBytes == 0 {
                loop.counters.plaintextAccepted &+= 1
                look(loop.unknownCaller, hasBegun: false)
            } else if !isLate {
                isLate = true
                timer.arm(afterMilliseconds: ProxyLimits.handshakeMilliseconds)
            } else {
                loop.counters.idleTimeouts &+= 1
                end()
                connection.abort()
            }
        case .detecting(let caller) where beginning != nil:
            settle(caller, beginning ?? .opaque)
        case .preface, .detecting:
            loop.counters.idleTimeouts &+= 1
            end()
            connection.close()
        case .handshaking, .dialledEarly, .done:
            break
        }
    }

    func readEnded(_ connection: Connection) {
        switch phase {
        case .detecting(let caller) where connection.retainedBytes > 0 && !isDeclaredHTTP:
            relay(caller, beginning ?? .opaque, clientHasFinished: true)
        case .dialledEarly, .done:
            break
        default:
            end()
            connection.close()
        }
    }

    func closed(_ connection: Connection, _ cause: CloseCause) {
        if case .handshaking = phase, cause != .local {
            loop.counters.handshakesFailed &+= 1
            loop.log(.info, "TLS from \(connection.peer) to \(destination) failed: \(cause)")
        }
        end()
    }

    func drained(_ connection: Connection) {}

    func drainStarted() {
        // A caller that has shown who it is and asked for nothing yet loses nothing.
        guard case .preface = phase, connection.retainedBytes == 0 else { return }
        end()
        connection.close()
    }
}
