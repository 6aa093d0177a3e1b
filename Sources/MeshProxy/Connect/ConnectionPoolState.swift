internal import DequeModule

/// The connections of one loop to one endpoint, as a value: it owns no socket and no clock, and answers every event with what
/// its owner must do.
///
/// Idle connections are reused youngest first, so that those beyond the need grow old and close. Waiting requests are
/// served in the order they came.
package struct ConnectionPoolState<Connection: Equatable, Waiter: Equatable> {
    package struct Limits: Sendable, Equatable {
        /// Connections that exist or are being made.
        package var connections = 1024
        package var waiting = 1024
        /// Connections that may be idle for longer than a pause between bursts; more than that are let go after it.
        package var idle = 256
        package var burstNanoseconds: Int64 = 5_000_000_000
        package var idleNanoseconds: Int64 = 60_000_000_000
        /// A connection that was idle for longer is not trusted with a request that cannot be repeated, until the endpoint has been
        /// seen to keep one for as long.
        package var trustNanoseconds: Int64 = 1_000_000_000

        package init() {}
    }

    package enum Checkout {
        case use(Connection)
        /// The waiter is queued; open a connection.
        case connect
        /// The waiter is queued; every connection that may exist does.
        case wait
        /// As many wait as may: counted in `refused`.
        case refuse
    }

    package enum Return: Equatable {
        case serve(Waiter)
        case keep
        case close
    }

    fileprivate struct Idle {
        let connection: Connection
        let since: Int64
    }

    package let limits: Limits
    private var idle: [Idle] = []
    private var waiters: Deque<Waiter> = []
    package private(set) var active = 0
    package private(set) var connecting = 0
    package private(set) var refused = 0
    /// How long the endpoint was seen to keep an idle connection; reuse stays clear of it.
    package private(set) var learnedIdleNanoseconds: Int64?
    private var learnedAt: Int64 = 0
    /// How long the endpoint says that it keeps one (`Keep-Alive: timeout=N`).
    package private(set) var announcedIdleNanoseconds: Int64?
    /// The longest idleness after which a request was answered.
    package private(set) var provenIdleNanoseconds: Int64 = 0
    /// Too old to be used again: the owner takes and closes them.
    private var expired: [Connection] = []

    /// An endpoint that closes sooner than this does so for another reason than idleness.
    private static var shortestLearnedIdleNanoseconds: Int64 { 500_000_000 }
    /// What was learned is forgotten after this long, since the endpoint's program may have been replaced.
    private static var learnedLifeNanoseconds: Int64 { 600_000_000_000 }

    package init(limits: Limits = Limits()) {
        self.limits = limits
    }

    package var idleCount: Int { idle.count }
    package var waitingCount: Int { waiters.count }
    package var isUnused: Bool { idle.isEmpty && waiters.isEmpty && active == 0 && connecting == 0 }

    private func reuseLimit(now: Int64) -> Int64 {
        var limit = limits.idleNanoseconds
        if let announcedIdleNanoseconds { limit = min(limit, announcedIdleNanoseconds - announcedIdleNanoseconds / 8) }
        if let learnedIdleNanoseconds, now &- learnedAt < Self.learnedLifeNanoseconds {
            limit = min(limit, learnedIdleNanoseconds - learnedIdleNanoseconds / 8)
        }
        return limit
    }

    /// A request was answered on a connection that had been idle for `age`.
    @inline(__always)
    package mutating func proveIdle(age: Int64) {
        if age > provenIdleNanoseconds { provenIdleNanoseconds = age }
    }

    private var trustLimit: Int64 {
        max(limits.trustNanoseconds, provenIdleNanoseconds, announcedIdleNanoseconds ?? 0)
    }

    /// The endpoint has said in a response how long it keeps an idle connection.
    package mutating func announceIdle(seconds: Int) {
        announcedIdleNanoseconds = Int64(clamping: min(max(seconds, 0), 1_000_000)) * 1_000_000_000
    }

    /// Wants a connection for `waiter`; one beyond doubt when it `isCautious`, because its request cannot be repeated.
    @inline(__always)
    package mutating func checkout(_ waiter: Waiter, isCautious: Bool = false, now: Int64) -> Checkout {
        if let last = idle.popLast() {
            let age = now &- last.since
            if age < 500_000_000 || age < reuseLimit(now: now) {
                if isCautious, age >= limits.trustNanoseconds, age >= trustLimit {
                    idle.append(last)
                    if active + connecting + idle.count >= limits.connections {
                        expired.append(idle.removeFirst().connection)
                    }
                    return checkoutNew(waiter)
                }
                active &+= 1
                return .use(last.connection)
            }
            expired.append(last.connection)
            expired.append(contentsOf: idle.map(\.connection))
            idle.removeAll(keepingCapacity: true)
        }
        return checkoutNew(waiter)
    }

    private mutating func checkoutNew(_ waiter: Waiter) -> Checkout {
        guard waiters.count < limits.waiting else {
            refused &+= 1
            return .refuse
        }
        waiters.append(waiter)
        return openIfNeeded() ? .connect : .wait
    }

    /// Counts a connection as being made when the waiters need one and the limit allows it.
    private mutating func openIfNeeded() -> Bool {
        guard connecting < waiters.count, active + connecting + idle.count < limits.connections else { return false }
        connecting += 1
        return true
    }

    /// A connection that `connect` asked for is ready.
    package mutating func connected(_ connection: Connection, now: Int64) -> Return {
        connecting = max(0, connecting - 1)
        if let waiter = waiters.popFirst() {
            active += 1
            return .serve(waiter)
        }
        return keep(connection, now: now)
    }

    /// A connection that `connect` asked for will not be. Returns the waiter that fails with it, if any has lost its chance.
    package mutating func connectFailed() -> Waiter? {
        connecting = max(0, connecting - 1)
        guard waiters.count > connecting else { return nil }
        return waiters.popFirst()
    }

    /// A connection in use is free again.
    @inline(__always)
    package mutating func released(_ connection: Connection, now: Int64) -> Return {
        if let waiter = waiters.popFirst() { return .serve(waiter) }
        active &-= 1
        return keep(connection, now: now)
    }

    @inline(__always)
    private mutating func keep(_ connection: Connection, now: Int64) -> Return {
        guard idle.count < limits.connections else { return .close }
        idle.append(Idle(connection: connection, since: now))
        return .keep
    }

    /// A connection in use has ended or cannot be used again. True when another must be opened for those that wait.
    package mutating func ended() -> Bool {
        active = max(0, active - 1)
        return openIfNeeded()
    }

    /// An idle connection was closed by its peer.
    package mutating func idleEnded(_ connection: Connection, now: Int64) {
        guard let index = idle.firstIndex(where: { $0.connection == connection }) else { return }
        let age = now &- idle[index].since
        idle.remove(at: index)
        learnIdle(age: age, now: now)
    }

    /// The endpoint has closed a connection that was idle for `age`.
    package mutating func learnIdle(age: Int64, now: Int64) {
        guard age >= Self.shortestLearnedIdleNanoseconds else { return }
        // It keeps them for a shorter time than it did.
        if age <= provenIdleNanoseconds { provenIdleNanoseconds = 0 }
        if let known = learnedIdleNanoseconds, known <= age, now &- learnedAt < Self.learnedLifeNanoseconds { return }
        learnedIdleNanoseconds = age
        learnedAt = now
    }

    /// The waiter gives up. False when it was not waiting.
    package mutating func cancel(_ waiter: Waiter) -> Bool {
        guard let index = waiters.firstIndex(of: waiter) else { return false }
        waiters.remove(at: index)
        return true
    }

    /// Lets idle connections go that are past their time.
    package mutating func expire(now: Int64) {
        let limit = reuseLimit(now: now)
        let surplus = idle.count - limits.idle
        // The oldest come first, so whatever goes is a beginning of the list.
        var kept = 0
        while kept < idle.count {
            let age = now &- idle[kept].since
            guard age >= limit || kept < surplus && age >= limits.burstNanoseconds else { break }
            kept += 1
        }
        guard kept > 0 else { return }
        expired.append(contentsOf: idle[..<kept].map(\.connection))
        idle.removeFirst(kept)
    }

    package var hasExpired: Bool { !expired.isEmpty }

    package mutating func takeExpired() -> [Connection] {
        defer { expired.removeAll() }
        return expired
    }

    /// The endpoint is gone: nothing may be idle or wait any more. What is in use ends by itself.
    package mutating func shutDown() -> (idle: [Connection], waiters: [Waiter]) {
        let connections = idle.map(\.connection) + expired
        let waiting = Array(waiters)
        idle.removeAll()
        expired.removeAll()
        waiters.removeAll()
        return (connections, waiting)
    }
}

extension ConnectionPoolState: Sendable where Connection: Sendable, Waiter: Sendable {}
extension ConnectionPoolState.Idle: Sendable where Connection: Sendable, Waiter: Sendable {}
