package import MeshAddress
package import MeshCore
package import MeshHTTP
package import MeshIO

/// Told of the connection to the control plane. On its loop.
package protocol ControlChannelDelegate: AnyObject {
    /// Every address was tried since the last success: resolve the name again.
    func addressesFailed(_ channel: ControlChannel, reason: String)
    func connected(_ channel: ControlChannel, to address: SocketAddress)
}

/// What a stream on the channel is told.
protocol ControlChannelUser: AnyObject {
    /// A connection stands: open the stream on it, and give up one on an older connection.
    func channelOpened(_ session: HTTP2Session)
    func channelClosed(reason: String)
}

/// The one connection to the control plane that discovery and telemetry share. Connects again by itself, after 50 ms to
/// 5 s.
///
/// The control plane is who it should be when its certificate has exactly the SPIFFE ID expected; nothing is sent
/// before that is known.
package final class ControlChannel {
    package let loop: EventLoop
    /// Of the control plane, tried in turn. While there are none the channel waits.
    package var addresses: [SocketAddress] = [] {
        didSet { if addresses != oldValue { addressesChanged() } }
    }
    /// The client's certificate and the roots. A new one is used for a new connection within two seconds, which takes
    /// the old one's place when it stands.
    package var tls: TLSContext? {
        didSet { if tls !== oldValue { contextChanged() } }
    }
    package weak var delegate: (any ControlChannelDelegate)?
    package private(set) var isConnected = false
    /// Why it is not connected.
    package private(set) var reason = "not started"

    private let expectedIdentity: SPIFFEID?
    private let limits: HTTP2Limits
    private var isStarted = false
    private var session: HTTP2Session?
    private var attempt: HTTP2Session?
    private var backoff: Backoff
    private var timer: LoopTimer?
    private var nextAddress = 0
    private var failedAddresses = 0
    private var users: [WeakUser] = []
    private let mayBePlaintext: Bool

    private struct WeakUser {
        weak var user: (any ControlChannelUser)?
    }

    static let connectTimeoutMilliseconds = 3000
    static let drainMilliseconds = 2000

    /// - Parameter seed: of the jitter.
    package convenience init(loop: EventLoop, expectedIdentity: SPIFFEID, seed: UInt64) {
        self.init(loop: loop, identity: expectedIdentity, seed: seed, mayBePlaintext: false)
    }

    /// Without TLS and identity, for a test.
    package init(
        loop: EventLoop, identity: SPIFFEID?, seed: UInt64, mayBePlaintext: Bool, limits: HTTP2Limits = HTTP2Limits()
    ) {
        self.loop = loop
        self.expectedIdentity = identity
        self.mayBePlaintext = mayBePlaintext
        self.limits = limits
        backoff = Backoff(seed: seed)
        timer = LoopTimer(loop: loop, target: self)
    }

    package func start() {
        guard !isStarted else { return }
        isStarted = true
        connect()
    }

    package func close() {
        isStarted = false
        timer?.cancel()
        attempt?.abort(reason: "closed here")
        attempt = nil
        session?.close()
        becameClosed("closed here")
    }

    func add(_ user: any ControlChannelUser) {
        users.removeAll { $0.user == nil }
        users.append(WeakUser(user: user))
        if let session, isConnected { user.channelOpened(session) }
    }

    /// The connection does what it is for: the next failure is waited for from the beginning.
    func markHealthy() {
        backoff.reset()
        failedAddresses = 0
    }

    // MARK: Connecting

    private func addressesChanged() {
        nextAddress = 0
        failedAddresses = 0
        if isStarted, session == nil, attempt == nil, timer?.isArmed == false { connect() }
    }

    private func contextChanged() {
        guard isStarted else { return }
        if session != nil {
            // All sidecars may get a new root at once; they need not connect at once.
            timer?.arm(afterMilliseconds: backoff.below(2000))
        } else if attempt == nil, timer?.isArmed == false {
            connect()
        }
    }

    private func connect() {
        guard isStarted, attempt == nil else { return }
        guard !addresses.isEmpty else {
            reason = "the control plane's address is not known"
            return
        }
        guard tls != nil || mayBePlaintext else {
            reason = "there is no certificate yet"
            return
        }
        let address = addresses[nextAddress % addresses.count]
        attempt = HTTP2Session(
            connectingTo: address, loop: loop, tls: tls.map { ($0, serverName: nil) },
            connectTimeoutMilliseconds: ControlChannel.connectTimeoutMilliseconds, limits: limits, delegate: self)
    }

    private func retryLater(_ reason: String) {
        self.reason = reason
        guard isStarted else { return }
        nextAddress = (nextAddress + 1) % max(addresses.count, 1)
        failedAddresses += 1
        if failedAddresses >= addresses.count {
            failedAddresses = 0
            delegate?.addressesFailed(self, reason: reason)
        }
        timer?.arm(afterMilliseconds: backoff.delayMilliseconds())
    }

    private func becameClosed(_ reason: String) {
        self.reason = reason
        session = nil
        guard isConnected else { return }
        isConnected = false
        for user in users { user.user?.channelClosed(reason: reason) }
    }
}

extension ControlChannel: HTTP2SessionDelegate {
    package func opened(_ session: HTTP2Session) {
        guard session === attempt else { return session.abort(reason: "no longer needed") }
        if let expectedIdentity {
            let names = session.connection.tls?.peerURISANs ?? []
            guard names == [expectedIdentity.description] else {
                let shown = names.isEmpty ? "none" : names.joined(separator: ", ")
                return session.abort(reason: "the control plane's identity is \(shown), not \(expectedIdentity)")
            }
        }
        let old = self.session
        self.session = session
        attempt = nil
        isConnected = true
        reason = ""
        delegate?.connected(self, to: session.connection.peer)
        for user in users { user.user?.channelOpened(session) }
        old?.shutdown(graceMilliseconds: ControlChannel.drainMilliseconds)
    }

    package func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {}

    package func goAwayReceived(_ session: HTTP2Session) {
        // The control plane restarts or moves: another connection is made while this one's streams end.
        if session === self.session, attempt == nil { retryLater("the control plane is going away") }
    }

    package func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) {
        let reason = "\(session.connection.peer): \(cause)"
        if session === attempt {
            attempt = nil
            retryLater(reason)
        } else if session === self.session {
            becameClosed(reason)
            if attempt == nil { retryLater(reason) }
        }
    }
}

extension ControlChannel: TimerTarget {
    package func timerFired(_ timer: LoopTimer) { connect() }
}
