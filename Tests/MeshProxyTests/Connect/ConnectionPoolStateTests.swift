import MeshProxy
import Testing

private typealias Pool = ConnectionPoolState<Int, String>

@Suite struct ConnectionPoolStateTests {
    private static let second: Int64 = 1_000_000_000

    private func pool(_ adjust: (inout Pool.Limits) -> Void = { _ in }) -> Pool {
        var limits = Pool.Limits()
        adjust(&limits)
        return Pool(limits: limits)
    }

    @Test func theFirstRequestOpensAConnectionAndTheNextReusesIt() {
        var pool = pool()
        guard case .connect = pool.checkout("a", now: 0) else { Issue.record("expected connect"); return }
        let result1 = pool.connected(1, now: 0)
        #expect(result1 == .serve("a"))
        let result2 = pool.released(1, now: 0)
        #expect(result2 == .keep)
        guard case .use(1) = pool.checkout("b", now: 1) else { Issue.record("expected the connection"); return }
        #expect(pool.active == 1)
    }

    @Test func aConnectionThatIsFreedServesWhoWaitsFirst() {
        var pool = pool()
        _ = pool.checkout("a", now: 0)
        _ = pool.connected(1, now: 0)
        _ = pool.checkout("b", now: 0)
        _ = pool.checkout("c", now: 0)
        let result3 = pool.released(1, now: 0)
        #expect(result3 == .serve("b"))
        let result4 = pool.connected(2, now: 0)
        #expect(result4 == .serve("c"))
        let result5 = pool.connected(3, now: 0)
        #expect(result5 == .keep, "what was opened for b stays for the next")
    }

    @Test func atTheLimitRequestsWaitAndBeyondTheQueueTheyAreRefused() {
        var pool = pool {
            $0.connections = 1
            $0.waiting = 2
        }
        guard case .connect = pool.checkout("a", now: 0) else { Issue.record("expected connect"); return }
        guard case .wait = pool.checkout("b", now: 0) else { Issue.record("expected wait"); return }
        guard case .refuse = pool.checkout("c", now: 0) else { Issue.record("expected refuse"); return }
        #expect(pool.refused == 1)
    }

    @Test func aFailedConnectionFailsOneWhoHasNoOtherChance() {
        var pool = pool()
        _ = pool.checkout("a", now: 0)
        _ = pool.checkout("b", now: 0)
        let result6 = pool.connectFailed()
        #expect(result6 == "a")
        let result7 = pool.connectFailed()
        #expect(result7 == "b")
        #expect(pool.isUnused)
    }

    @Test func aFailedConnectionFailsNobodyWhenTheWaiterWasServed() {
        var pool = pool()
        _ = pool.checkout("a", now: 0)
        _ = pool.connected(1, now: 0)
        _ = pool.checkout("b", now: 0)
        _ = pool.released(1, now: 0)
        let result8 = pool.connectFailed()
        #expect(result8 == nil)
    }

    @Test func whenAConnectionEndsAnotherIsOpenedForThoseWhoWait() {
        var pool = pool { $0.connections = 1 }
        _ = pool.checkout("a", now: 0)
        _ = pool.connected(1, now: 0)
        _ = pool.checkout("b", now: 0)
        let result9 = pool.ended()
        #expect(result9)
        let result10 = pool.connected(2, now: 0)
        #expect(result10 == .serve("b"))
    }

    @Test func idleConnectionsAreReusedYoungestFirstAndGrowOld() {
        var pool = pool()
        for id in 1...3 {
            _ = pool.checkout("w\(id)", now: 0)
            _ = pool.connected(id, now: 0)
        }
        for id in 1...3 { _ = pool.released(id, now: Int64(id) * Self.second) }
        guard case .use(3) = pool.checkout("x", now: 4 * Self.second) else {
            Issue.record("expected the youngest"); return
        }
        pool.expire(now: 61 * Self.second)
        let result11 = pool.takeExpired()
        #expect(result11 == [1])
        guard case .connect = pool.checkout("y", now: 63 * Self.second) else { Issue.record("all are too old"); return }
        let result12 = pool.takeExpired()
        #expect(result12 == [2])
    }

    @Test func moreIdleConnectionsThanAllowedGoWhenTheBurstIsOver() {
        var pool = pool { $0.idle = 1 }
        for id in 1...3 {
            _ = pool.checkout("w\(id)", now: 0)
            _ = pool.connected(id, now: 0)
        }
        for id in 1...3 { _ = pool.released(id, now: 0) }
        pool.expire(now: 4 * Self.second)
        #expect(!pool.hasExpired)
        pool.expire(now: 5 * Self.second)
        let expired = pool.takeExpired()
        #expect(expired == [1, 2])
        #expect(pool.idleCount == 1)
    }

    /// One connection that is idle since `now`.
    private func idlePool(at now: Int64, _ adjust: (inout Pool.Limits) -> Void = { _ in }) -> Pool {
        var pool = pool(adjust)
        _ = pool.checkout("first", now: now)
        _ = pool.connected(1, now: now)
        _ = pool.released(1, now: now)
        return pool
    }

    @Test func whatCannotBeRepeatedGetsNoConnectionThatWasIdleForLong() {
        var pool = idlePool(at: 0)
        guard case .use(1) = pool.checkout("young", isCautious: true, now: Self.second - 1) else {
            Issue.record("a connection of a moment ago is good enough"); return
        }
        _ = pool.released(1, now: Self.second)
        guard case .connect = pool.checkout("old", isCautious: true, now: 3 * Self.second) else {
            Issue.record("expected a new connection"); return
        }
        #expect(pool.idleCount == 1, "the other is kept for what may be repeated")
        let served = pool.connected(2, now: 3 * Self.second)
        #expect(served == .serve("old"))
        guard case .use(1) = pool.checkout("repeatable", now: 3 * Self.second) else {
            Issue.record("expected the old connection"); return
        }
        pool.proveIdle(age: 2 * Self.second)
        _ = pool.released(1, now: 4 * Self.second)
        guard case .use(1) = pool.checkout("trusting", isCautious: true, now: 5 * Self.second) else {
            Issue.record("the endpoint keeps connections for that long"); return
        }
    }

    @Test func cautionDoesNotWaitForAConnectionThatIsIdle() {
        var pool = idlePool(at: 0) { $0.connections = 1 }
        guard case .connect = pool.checkout("careful", isCautious: true, now: 3 * Self.second) else {
            Issue.record("expected a new connection in the place of the idle one"); return
        }
        let expired = pool.takeExpired()
        #expect(expired == [1])
        #expect(pool.connecting == 1 && pool.idleCount == 0)
    }

    @Test func whatTheEndpointSaysOfIdleConnectionsIsHonoured() {
        var pool = idlePool(at: 0)
        pool.announceIdle(seconds: 5)
        guard case .use(1) = pool.checkout("careful", isCautious: true, now: 4 * Self.second) else {
            Issue.record("it said that it keeps them"); return
        }
        _ = pool.released(1, now: 4 * Self.second)
        guard case .connect = pool.checkout("late", now: 9 * Self.second - Self.second / 2) else {
            Issue.record("it may close it at any moment"); return
        }
        let expired = pool.takeExpired()
        #expect(expired == [1])
        pool.announceIdle(seconds: .max)
        pool.announceIdle(seconds: -1)
    }

    @Test func itLearnsHowLongTheEndpointKeepsIdleConnections() {
        var pool = pool()
        for id in 1...2 {
            _ = pool.checkout("w\(id)", now: 0)
            _ = pool.connected(id, now: 0)
        }
        _ = pool.released(1, now: 0)
        pool.idleEnded(1, now: 5 * Self.second)
        #expect(pool.learnedIdleNanoseconds == 5 * Self.second)
        _ = pool.released(2, now: 10 * Self.second)
        guard case .connect = pool.checkout("x", now: 14_500_000_000) else {
            Issue.record("too close to the end"); return
        }
        let result15 = pool.takeExpired()
        #expect(result15 == [2])
    }

    @Test func shuttingDownReturnsEverythingThatIsNotInUse() {
        var pool = pool { $0.connections = 2 }
        _ = pool.checkout("a", now: 0)
        _ = pool.connected(1, now: 0)
        _ = pool.checkout("b", now: 0)
        _ = pool.connected(2, now: 0)
        _ = pool.checkout("c", now: 0)
        _ = pool.cancel("nobody")
        let (idle, waiters) = pool.shutDown()
        #expect(idle.isEmpty)
        #expect(waiters == ["c"])
    }

    /// Whatever happens in whatever order, the counts match a naive model and no connection or waiter is lost or doubled.
    @Test(arguments: 0..<40)
    func anyScheduleKeepsTheBooks(_ seed: UInt64) {
        var random = LoopRandom(seed: seed)
        var pool = pool {
            $0.connections = 8
            $0.waiting = 6
            $0.idle = 3
        }
        var now: Int64 = 0
        var nextID = 0
        var inUse: Set<Int> = []
        var idle: Set<Int> = []
        var waiting: [String] = []
        var connecting = 0
        func serve(_ waiter: String, _ connection: Int) {
            #expect(waiting.first == waiter)
            waiting.removeFirst()
            #expect(inUse.insert(connection).inserted)
        }
        for _ in 0..<3000 {
            now += Int64(random.next() % 3_000_000_000)
            nextID += 1
            switch random.next() % 7 {
            case 0, 1:
                let waiter = "w\(nextID)"
                switch pool.checkout(waiter, now: now) {
                case .use(let connection):
                    #expect(idle.remove(connection) != nil)
                    #expect(inUse.insert(connection).inserted)
                case .connect:
                    waiting.append(waiter)
                    connecting += 1
                case .wait: waiting.append(waiter)
                case .refuse: #expect(waiting.count == 6)
                }
            case 2 where connecting > 0:
                connecting -= 1
                switch pool.connected(nextID, now: now) {
                case .serve(let waiter): serve(waiter, nextID)
                case .keep: idle.insert(nextID)
                case .close: Issue.record("never more than may exist")
                }
            case 3 where connecting > 0:
                connecting -= 1
                if let waiter = pool.connectFailed() { waiting.removeAll { $0 == waiter } }
            case 4:
                guard let connection = inUse.min() else { continue }
                inUse.remove(connection)
                switch pool.released(connection, now: now) {
                case .serve(let waiter): serve(waiter, connection)
                case .keep: idle.insert(connection)
                case .close: Issue.record("never more than may exist")
                }
            case 5:
                guard let connection = inUse.max() else { continue }
                inUse.remove(connection)
                if pool.ended() { connecting += 1 }
            case 6:
                if let connection = idle.min(), random.next() % 2 == 0 {
                    pool.idleEnded(connection, now: now)
                    idle.remove(connection)
                } else if let waiter = waiting.randomElement(using: &random) {
                    let result16 = pool.cancel(waiter)
                    #expect(result16)
                    waiting.removeAll { $0 == waiter }
                } else {
                    pool.expire(now: now)
                }
            default:
                break
            }
            for connection in pool.takeExpired() { #expect(idle.remove(connection) != nil) }
            #expect(pool.active == inUse.count)
            #expect(pool.connecting == connecting)
            #expect(pool.idleCount == idle.count)
            #expect(pool.waitingCount == waiting.count)
            #expect(inUse.count + connecting + idle.count <= 8)
            #expect(waiting.isEmpty || connecting > 0 || !inUse.isEmpty, "somebody waits for nothing")
        }
    }
}
