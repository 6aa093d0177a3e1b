internal import CApus
internal import Glibc
package import MeshAddress

/// A TCP connection on a loop, plaintext or TLS 1.3.
///
/// The loop keeps it alive until it is closed, and it keeps its delegate alive until `closed` has been delivered; no owner
/// needs to hold it. All members are used on the loop's thread only.
package final class Connection {
    enum Phase: UInt8 {
        case connecting, handshaking, open
        /// Closed by its owner; its last bytes are on their way.
        case lingering
        case closed
    }

    /// Connections of a loop that may linger at a time; beyond that, `close()` drops what is unsent.
    package static let lingeringLimit = 4096
    static let lingerMilliseconds = 1000

    package let loop: EventLoop
    package let peer: SocketAddress
    /// Told what happens; may be exchanged at any time. Without one, received bytes are retained.
    package var delegate: (any ConnectionDelegate)?
    /// Free for the owner.
    package var userData = 0

    /// Unsent bytes above which `isAboveHighWater` asks the owner to pause its source.
    package var highWater = 256 * 1024
    /// Unsent bytes at which `drained` follows.
    package var lowWater = 64 * 1024
    /// Unsent bytes beyond which the connection closes with `.bufferLimit`.
    package var unsentLimit = 16 * 1024 * 1024
    /// Unconsumed bytes at which reading stops. One more read of 128 KiB may come on top.
    package var retainedLimit = 80 * 1024

    /// Payload received from the peer: plaintext under TLS, and without the bytes of a handshake.
    package internal(set) var bytesReceived: UInt64 = 0
    /// Payload taken for sending, sent or not.
    package internal(set) var bytesSent: UInt64 = 0
    package internal(set) var isAboveHighWater = false

    var descriptor: Int32
    var phase: Phase
    var session: TLSSession?
    /// What the socket did not take yet; ciphertext under TLS.
    var unsent = ByteQueue()
    /// Payload written before the connection was open.
    var early = ByteQueue()
    /// Payload that the delegate did not consume; before a handshake, its first bytes.
    var retained = ByteQueue()

    // What the kernel is known to hold, since events are edge-triggered.
    var isReadable = false
    /// The peer has finished or failed, so that the end must be read even after a short read.
    var mustReadToEnd = false

    var isReadingPaused = false
    var mustOfferRetained = false
    var isReadEndPending = false
    var hasReadEnded = false
    var isFinishRequested = false
    var hasFinished = false
    /// The socket refused a write; what the peer had sent before is still read.
    var hasWriteFailed = false
    /// The peer's FIN has been read.
    var hasPeerFinished = false
    /// As it was when the peer reset the connection.
    var finalTransmission: Transmission?
    /// `opened` is being told while early bytes wait: what is written meanwhile queues behind them.
    var isHoldingWrites = false
    var isAttending = false
    var isWatched = false
    var pendingCause: CloseCause?
    var forwarding: Forwarding?
    /// The connection that forwards into this one; it is let go of when either of them closes.
    var forwardingSource: Connection?
    var deadline: LoopTimer?
    var handshakeTimeoutMilliseconds = 0
    private var knownLocal: SocketAddress?

    /// Takes over an accepted socket, in plaintext until `startTLS`.
    package init(accepting socket: AcceptedSocket, loop: EventLoop, delegate: (any ConnectionDelegate)?) {
        assert(loop.isCurrent, "a connection is made on its loop")
        self.loop = loop
        self.delegate = delegate
        peer = socket.peer
        descriptor = socket.take()
        phase = .open
        setOption(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
        watch()
    }

    /// Dials. Whatever fails arrives as `closed` from a later turn of the loop, never during init.
    ///
    /// - Parameters:
    ///   - tls: a client's context and the name for SNI, if any.
    ///   - handshakeTimeoutMilliseconds: counted from the moment the TCP connection stands.
    ///   - sourceAddress: bound before connecting; port 0 leaves the port to the kernel.
    package init(
        connectingTo address: SocketAddress,
        loop: EventLoop,
        tls: (TLSContext, serverName: String?)? = nil,
        connectTimeoutMilliseconds: Int,
        handshakeTimeoutMilliseconds: Int = 10_000,
        sourceAddress: SocketAddress? = nil,
        delegate: (any ConnectionDelegate)?
    ) {
        assert(loop.isCurrent, "a connection is made on its loop")
        self.loop = loop
        self.delegate = delegate
        self.handshakeTimeoutMilliseconds = handshakeTimeoutMilliseconds
        peer = address
        phase = .connecting
        descriptor = apus_socket_stream(address.family)
        guard descriptor >= 0 else {
            finish(.connectFailed(.current("socket")))
            return
        }
        setOption(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
        if let sourceAddress {
            setOption(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
            let code = sourceAddress.withKernelAddress { bind(descriptor, $0, $1) == 0 ? 0 : errno }
            guard code == 0 else {
                finish(.connectFailed(SystemError(code: code, operation: "bind \(sourceAddress)")))
                return
            }
        }
        if let tls {
            do {
                session = try TLSSession(tls.0, .client(serverName: tls.serverName), loop.tlsBuffers)
            } catch {
                finish(.tls(error))
                return
            }
        }
        let code = address.withKernelAddress { connect(descriptor, $0, $1) == 0 ? 0 : errno }
        guard code == 0 || code == EINPROGRESS || code == EINTR else {
            finish(.connectFailed(SystemError(code: code, operation: "connect")))
            return
        }
        watch()
        if phase == .connecting { arm(afterMilliseconds: connectTimeoutMilliseconds) }
    }

    deinit {
        unsent.clear()
        early.clear()
        retained.clear()
    }

    /// The address on this side; unspecified with port 0 until the connection stands.
    package var local: SocketAddress {
        if let knownLocal { return knownLocal }
        guard descriptor >= 0 else { return SocketAddress(peer.ip.isV4 ? .any4 : .any6, 0) }
        let address = SocketAddress.local(of: descriptor)
        if phase != .connecting { knownLocal = address }
        return address
    }

    /// What the handshake established; nil before `opened` and without TLS.
    package var tls: TLSInformation? { session?.information }

    /// True once `closed` is due: what is written is dropped.
    package var isClosed: Bool { phase == .closed || phase == .lingering }

    private func watch() {
        do {
            try loop.watch(self, descriptor)
            isWatched = true
        } catch {
            finish(phase == .connecting ? .connectFailed(error) : .error(error))
        }
    }

    // MARK: Events

    func ready(_ mask: UInt32) {
        if mask & (Readiness.read | Readiness.ending) != 0 { isReadable = true }
        if mask & Readiness.ending != 0 { mustReadToEnd = true }
        switch phase {
        case .open, .handshaking:
            if mask & Readiness.write != 0 { becameWritable() }
            if isReadable { readRound() }
            if mask & Readiness.error != 0, !mayRead { checkError() }
        case .connecting:
            finishConnecting(mask)
        case .lingering:
            linger()
        case .closed:
            break
        }
    }

    /// The turn that the connection asked for with `attendLater`.
    func attend() {
        isAttending = false
        if let cause = pendingCause {
            pendingCause = nil
            deliverClosed(cause)
            return
        }
        switch phase {
        case .open, .handshaking:
            readRound()
        case .lingering:
            linger()
        case .connecting, .closed:
            break
        }
    }

    func attendLater() {
        if isAttending { return }
        isAttending = true
        loop.attendLater(self)
    }

    private func finishConnecting(_ mask: UInt32) {
        if let error = socketError() {
            finish(.connectFailed(error))
            return
        }
        guard mask & Readiness.write != 0 else { return }
        deadline?.cancel()
        loop.counts.establishedConnections += 1
        if session != nil {
            phase = .handshaking
            arm(afterMilliseconds: handshakeTimeoutMilliseconds)
            continueHandshake()
        } else {
            phase = .open
            tellOpened()
        }
        if isReadable { readRound() }
    }

    /// The error that the kernel holds for the socket, which taking it clears.
    private func socketError() -> SystemError? {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) == 0 else { return .current("getsockopt") }
        return code == 0 ? nil : SystemError(code: code, operation: phase == .connecting ? "connect" : "socket")
    }

    /// A connection that does not read must learn from the event that its peer has gone.
    private func checkError() {
        guard !isClosed, let error = socketError() else { return }
        finish(Connection.cause(of: error))
    }

    static func cause(of error: SystemError) -> CloseCause {
        error.code == ECONNRESET || error.code == EPIPE ? .reset : .error(error)
    }

    func tellOpened() {
        isHoldingWrites = !early.isEmpty
        delegate?.opened(self)
        isHoldingWrites = false
        sendEarly()
        if isFinishRequested, phase == .open { finishIfSent() }
    }

    // MARK: Deadlines

    func arm(afterMilliseconds milliseconds: Int) {
        let timer = deadline ?? LoopTimer(loop: loop, target: self)
        deadline = timer
        timer.arm(afterMilliseconds: milliseconds)
    }
}

extension Connection: TimerTarget {
    package func timerFired(_ timer: LoopTimer) {
        switch phase {
        case .connecting:
            finish(.connectTimeout)
        case .handshaking:
            loop.counts.failedHandshakes += 1
            finish(.handshakeTimeout)
        case .lingering:
            endLingering()
        case .open, .closed:
            break
        }
    }
}
