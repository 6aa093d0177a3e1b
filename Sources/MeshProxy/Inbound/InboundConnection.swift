import Logging
import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshIdentity

/// A connection that somebody has dialled in this pod, from its acceptance to the relay that carries it.
///
/// The steps, in order: `accept`, `peek` (is it a sidecar of the mesh?), TLS and `identify`, `preface`, or `authorize` and `detect` for
/// those who come without an identity, then `relay` to the application.
final class InboundConnection: ConnectionDelegate, TimerTarget, LoopMember {
    private enum Phase {
        case peeking
        case handshaking
        case preface(SPIFFEID)
        case detecting
        case done
    }

    private let loop: ProxyLoop
    private let connection: Connection
    private let destination: SocketAddress
    private var phase = Phase.peeking
    /// The first wait of `peeking` is over.
    private var isLate = false
    private var timer: LoopTimer!
    var memberIndex = -1

    static func accept(_ socket: AcceptedSocket, destination: SocketAddress?, on loop: ProxyLoop) {
        guard let destination else {
            loop.counters.notRedirected &+= 1
            socket.close()
            return
        }
        guard !loop.isOwnListener(destination) else {
            loop.counters.loopsRefused &+= 1
            socket.close()
            return
        }
        guard loop.mayAccept else {
            loop.counters.connectionsRefused &+= 1
            socket.close()
            return
        }
        InboundConnection(socket, destination, loop).peek()
    }

    private init(_ socket: AcceptedSocket, _ destination: SocketAddress, _ loop: ProxyLoop) {
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
    private func peek() {
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
            return 0
        case .preface(let identity):
            return readPreface(bytes, identity)
        case .detecting:
            return detect(bytes)
        case .handshaking, .done:
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
                relay(caller, .http2)
            case .opaque:
                relay(caller, .opaque)
            }
            return length
        }
    }

    // MARK: - Without an identity

    private func authorize(_ caller: Authorizer.Caller) {
        switch Authorizer.decide(caller, own: loop.snapshot.own) {
        case .allow:
            loop.counters.plaintextAccepted &+= 1
            if caller == .otherTLS {
                relay(loop.unknownCaller, .tls)
                return
            }
            switch loop.localProtocol(destination.port) {
            case .some(.http1), nil:
                phase = .detecting
                timer.arm(afterMilliseconds: ProxyLimits.sniffMilliseconds)
                connection.deliverRetained()
            case .some(let declared):
                relay(loop.unknownCaller, declared)
            }
        case .deny:
            loop.counters.plaintextRefused &+= 1
            end()
            Refusal.start(loop: loop, connection: connection, error: .mtlsRequired)
        }
    }

    private func detect(_ bytes: UnsafeRawBufferPointer) -> Int {
        switch ProtocolDetector.detect(bytes) {
        case .needsMore:
            if bytes.count >= ProxyLimits.sniffBytes { relay(loop.unknownCaller, .opaque) }
            return 0
        case .found(.http1):
            return startHTTP(loop.unknownCaller, bytes)
        case .found(let found):
            relay(loop.unknownCaller, found)
            return 0
        }
    }

    // MARK: - Relay

    private func startHTTP(_ caller: Caller, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard let target = loop.localTarget(destination) else {
            end()
            Refusal.start(loop: loop, connection: connection, error: .destinationQueueFull)
            return 0
        }
        end()
        let relay = HTTPRelay(
            loop: loop, downstream: connection, direction: .inbound, destination: destination, target: target,
            caller: caller)
        return bytes.isEmpty ? 0 : relay.received(connection, bytes)
    }

    private func relay(_ caller: Caller, _ found: ApplicationProtocol) {
        end()
        guard let target = loop.localTarget(destination) else {
            connection.abort()
            return
        }
        ByteRelay.start(
            loop: loop, downstream: connection, target: target, direction: .inbound, caller: caller,
            innerProtocol: found)
    }

    private func end() {
        phase = .done
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
                relay(loop.unknownCaller, .opaque)
            } else if !isLate {
                isLate = true
                timer.arm(afterMilliseconds: ProxyLimits.handshakeMilliseconds)
            } else {
                loop.counters.idleTimeouts &+= 1
                end()
                connection.abort()
            }
        case .detecting:
            relay(loop.unknownCaller, .opaque)
        case .preface:
            loop.counters.idleTimeouts &+= 1
            end()
            connection.close()
        case .handshaking, .done:
            break
        }
    }

    func readEnded(_ connection: Connection) {
        switch phase {
        case .detecting where connection.retainedBytes > 0:
            relay(loop.unknownCaller, .opaque)
        case .done:
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
