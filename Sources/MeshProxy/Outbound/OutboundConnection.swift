import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO

/// A connection that the application has dialled, from its acceptance to the relay that carries it.
///
/// The steps, in order: `accept`, `resolve` (asking for a destination that is not known and waiting for the answer), `detect` (when
/// nobody has declared the protocol), `relay`.
final class OutboundConnection: ConnectionDelegate, TimerTarget, LoopMember {
    private enum Phase {
        case resolving
        case detecting(RouteTarget)
        case done
    }

    private let loop: ProxyLoop
    private let connection: Connection
    let destination: SocketAddress
    private var phase = Phase.resolving
    private var timer: LoopTimer!
    var memberIndex = -1

    /// Takes a connection from the listener. A connection that was not redirected, or whose destination is the sidecar itself,
    /// would go round in a circle and is refused.
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
        OutboundConnection(socket, destination, loop).resolve()
    }

    private init(_ socket: AcceptedSocket, _ destination: SocketAddress, _ loop: ProxyLoop) {
        self.loop = loop
        self.destination = destination
        connection = Connection(accepting: socket, loop: loop.eventLoop, delegate: nil)
        timer = LoopTimer(loop: loop.eventLoop, target: self)
        connection.delegate = self
        loop.add(self)
    }

    // MARK: - Resolve

    private func resolve() {
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
        case .overflow:
            unresolved(.destinationQueueFull)
        }
    }

    /// The answer has come.
    func resolved(_ target: RouteTarget) {
        guard case .resolving = phase else { return }
        timer.cancel()
        proceed(target)
    }

    /// No answer in time: the policy for unknown destinations decides, as it does for those known to be unknown.
    private func unresolved(_ error: ProxyError) {
        loop.counters.unresolvedDestinations &+= 1
        if loop.unknownDestinations == .allow {
            proceed(loop.snapshot.passthrough(destination))
        } else {
            refuse(error)
        }
    }

    private func proceed(_ target: RouteTarget) {
        target.lastUsed = loop.now
        if target.kind == .passthrough {
            guard loop.unknownDestinations == .allow else {
                loop.countDenied(destination)
                refuse(.unknownDestinationDenied)
                return
            }
            relay(target, .opaque)
            return
        }
        switch target.declaredProtocol ?? target.learnedProtocol {
        case .http1:
            detect(target)
        case .some(let declared):
            relay(target, declared)
        case nil:
            detect(target)
        }
    }

    // MARK: - Detect

    /// Reads what the client says first. Where HTTP is declared the client speaks first, so there is no hurry, and bytes that
    /// are TLS or HTTP/2 all the same are passed through as such; elsewhere silence means a protocol whose server begins.
    private func detect(_ target: RouteTarget) {
        phase = .detecting(target)
        timer.arm(
            afterMilliseconds: target.declaredProtocol == .http1
                ? loop.configuration.deadlines.idleMilliseconds : ProxyLimits.sniffMilliseconds)
        if connection.retainedBytes > 0 { connection.deliverRetained() }
    }

    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard case .detecting(let target) = phase else { return 0 }
        switch ProtocolDetector.detect(bytes) {
        case .needsMore:
            if bytes.count >= ProxyLimits.sniffBytes { relay(target, .opaque) }
            return 0
        case .found(let found):
            if target.declaredProtocol == .http1, found == .opaque {
                // Declared HTTP that does not look like it: the parser knows how to refuse it.
                return startHTTP(target, bytes)
            }
            if found == .http1 { return startHTTP(target, bytes) }
            relay(target, found)
            return 0
        }
    }

    func timerFired(_ timer: LoopTimer) {
        switch phase {
        case .resolving:
            loop.stopWaiting(self)
            unresolved(.destinationTimeout)
        case .detecting(let target):
            if target.declaredProtocol == .http1 {
                loop.counters.idleTimeouts &+= 1
                end()
                connection.close()
            } else {
                if connection.retainedBytes == 0 { target.learnedProtocol = .opaque }
                relay(target, .opaque)
            }
        case .done:
            break
        }
    }

    // MARK: - Relay

    private func startHTTP(_ target: RouteTarget, _ bytes: UnsafeRawBufferPointer) -> Int {
        end()
        let relay = HTTPRelay(
            loop: loop, downstream: connection, direction: .outbound, destination: destination, target: target,
            caller: loop.ownCaller)
        return relay.received(connection, bytes)
    }

    private func relay(_ target: RouteTarget, _ found: ApplicationProtocol) {
        end()
        ByteRelay.start(
            loop: loop, downstream: connection, target: target, direction: .outbound, caller: loop.ownCaller,
            innerProtocol: found)
    }

    /// A client that speaks HTTP is told why; any other sees its connection reset.
    private func refuse(_ error: ProxyError) {
        end()
        Refusal.start(loop: loop, connection: connection, error: error)
    }

    private func end() {
        phase = .done
        timer.cancel()
        loop.remove(self)
    }

    // MARK: - The client

    func opened(_ connection: Connection) {}
    func drained(_ connection: Connection) {}
    func drainStarted() {}

    func readEnded(_ connection: Connection) {
        switch phase {
        case .resolving:
            break
        case .detecting(let target):
            // It has said all it will say: whatever it is, it is passed on as it is.
            if connection.retainedBytes > 0 {
                relay(target, .opaque)
            } else {
                end()
                connection.close()
            }
        case .done:
            break
        }
    }

    func closed(_ connection: Connection, _ cause: CloseCause) {
        if case .resolving = phase { loop.stopWaiting(self) }
        end()
    }
}
