internal import CApus
internal import Glibc
internal import Synchronization

/// Told once at the end of each poll round in which it asked for it.
package protocol EndOfRoundTarget: AnyObject {
    func endOfRound()
}

/// One thread, one epoll. Everything made on a loop is used on that loop's thread only.
///
/// Unchecked because the loop's own members are confined to its thread, which assertions check; what other threads may
/// call (`submit`, `stop`, `isCurrent`) goes through a lock or an atomic.
///
/// A round: wait, read the clock, hand out the events, run submitted jobs, fire timers, do what connections have put off
/// (deliveries after `resumeReading`, reads left over for fairness, `closed`), then tell the end-of-round targets.
package final class EventLoop: @unchecked Sendable {
    /// Jobs that may wait at a time.
    package static let jobLimit = 65_536
    /// The size of the shared buffers, and so of one read: half of it costs a bulk relay a fifth more time.
    static let bufferSize = 128 * 1024
    /// How often what a stopping loop's callbacks and jobs ask for is still done.
    private static let endingPasses = 64

    package let name: String
    /// Read once per poll round.
    package private(set) var now: MonotonicTime
    /// For building output; valid until the next call into the loop's connections.
    package let scratch: UnsafeMutableRawBufferPointer

    /// Plaintext just read; only the outermost reading connection uses it.
    let readBuffer: UnsafeMutableRawPointer
    /// Ciphertext just received; as above.
    let cipherBuffer: UnsafeMutableRawPointer
    let tlsBuffers = TLSBuffers()
    var timers: TimerWheel
    var pipes = PipePool()
    var counts = LoopStatistics()

    private let epoll: Int32
    private let wakeup: Int32
    private let inbox = Mutex(Inbox())
    /// The pthread_t of the running thread; zero while nobody runs the loop.
    private let thread = Atomic<UInt>(0)
    private var table = DescriptorTable()
    private var attention: ContiguousArray<Connection> = []
    private var attending: ContiguousArray<Connection> = []
    private var roundTargets: ContiguousArray<any EndOfRoundTarget> = []
    private var tellingTargets: ContiguousArray<any EndOfRoundTarget> = []
    private var roundTargetIDs: Set<ObjectIdentifier> = []
    private(set) var isEnding = false

    private struct Inbox {
        var jobs: [@Sendable () -> Void] = []
        var isWoken = false
        var mustStop = false
        var hasEnded = false
        var rejected = 0
    }

    private static let wakeupToken = UInt64.max
    private static let eventCapacity = 256

    package init(name: String) throws(SystemError) {
        self.name = name
        epoll = apus_epoll_create()
        guard epoll >= 0 else { throw .current("epoll_create1") }
        wakeup = apus_wakeup_create()
        guard wakeup >= 0 else {
            let error = SystemError.current("eventfd")
            Glibc.close(epoll)
            throw error
        }
        now = .now()
        timers = TimerWheel(startingAt: now.nanoseconds / 1_000_000)
        scratch = .allocate(byteCount: EventLoop.bufferSize, alignment: 16)
        readBuffer = .allocate(byteCount: EventLoop.bufferSize, alignment: 16)
        cipherBuffer = .allocate(byteCount: EventLoop.bufferSize, alignment: 16)
        guard apus_epoll_add(epoll, wakeup, Readiness.read, 0, EventLoop.wakeupToken) == 0 else {
            throw .current("epoll_ctl")
        }
    }

    deinit {
        pipes.closeIdle()
        Glibc.close(epoll)
        Glibc.close(wakeup)
        scratch.deallocate()
        readBuffer.deallocate()
        cipherBuffer.deallocate()
    }

    // MARK: From any thread

    /// Makes a loop and a thread that runs it until `stop()`.
    package static func spawn(name: String) throws(SystemError) -> EventLoop {
        let loop = try EventLoop(name: name)
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(loop)
        let result = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<EventLoop>.fromOpaque(argument).takeRetainedValue().run()
                return nil
            }, argument.toOpaque())
        guard result == 0 else {
            argument.release()
            throw SystemError(code: result, operation: "pthread_create")
        }
        pthread_detach(thread)
        return loop
    }

    /// Runs `job` on the loop soon, in the order of submission. False when `jobLimit` jobs wait or the loop has ended;
    /// both are counted in `statistics.rejectedJobs`.
    @discardableResult
    package func submit(_ job: @escaping @Sendable () -> Void) -> Bool {
        let (accepted, mustWake) = inbox.withLock { inbox in
            if inbox.hasEnded || inbox.jobs.count >= EventLoop.jobLimit {
                inbox.rejected += 1
                return (false, false)
            }
            inbox.jobs.append(job)
            defer { inbox.isWoken = true }
            return (true, !inbox.isWoken)
        }
        if mustWake { apus_wakeup_signal(wakeup) }
        return accepted
    }

    /// Ends `run()` after the present round: open connections are told `closed(.local)`, listeners closed.
    package func stop() {
        let mustWake = inbox.withLock { inbox in
            inbox.mustStop = true
            defer { inbox.isWoken = true }
            return !inbox.isWoken
        }
        if mustWake { apus_wakeup_signal(wakeup) }
    }

    /// True on the loop's thread, and on any thread while nobody runs the loop.
    package var isCurrent: Bool {
        let running = thread.load(ordering: .relaxed)
        return running == 0 || running == pthread_self()
    }

    // MARK: On the loop

    package var statistics: LoopStatistics {
        assert(isCurrent, "statistics are read on the loop")
        var result = counts
        result.rejectedJobs = inbox.withLock { $0.rejected }
        result.armedTimers = timers.armedCount
        return result
    }

    /// Has `target` told at the end of the present poll round, once however often it is asked for.
    package func atEndOfRound(_ target: any EndOfRoundTarget) {
        assert(isCurrent, "called on another thread")
        if let last = roundTargets.last, last === target { return }
        if roundTargetIDs.insert(ObjectIdentifier(target)).inserted { roundTargets.append(target) }
    }

    /// Blocks the calling thread until `stop()`.
    package func run() {
        let claimed = thread.compareExchange(expected: 0, desired: pthread_self(), ordering: .relaxed).exchanged
        precondition(claimed, "the loop \(name) runs already")
        apus_set_thread_name(name)
        apus_block_sigpipe()
        let events = UnsafeMutablePointer<epoll_event>.allocate(capacity: EventLoop.eventCapacity)
        defer { events.deallocate() }
        while !isEnding { round(events) }
        end()
        thread.store(0, ordering: .relaxed)
    }

    private func round(_ events: UnsafeMutablePointer<epoll_event>) {
        let count = apus_epoll_wait(epoll, events, Int32(EventLoop.eventCapacity), timeoutMilliseconds())
        now = .now()
        var isWoken = false
        var index = 0
        while index < Int(count) {
            let token = apus_event_token(events, index)
            let mask = apus_event_mask(events, index)
            index &+= 1
            if token == EventLoop.wakeupToken {
                isWoken = true
            } else if let connection = table.connection(token) {
                connection.ready(mask)
            } else if let listener = table.listener(token) {
                listener.ready()
            }
        }
        if isWoken {
            apus_wakeup_clear(wakeup)
            runJobs()
        }
        while let timer = timers.popExpired(at: now.nanoseconds / 1_000_000) { timer.fire() }
        attend()
        tellRoundTargets()
    }

    private func timeoutMilliseconds() -> Int32 {
        if !attention.isEmpty || !roundTargets.isEmpty { return 0 }
        guard let tick = timers.nextTick else { return -1 }
        let nanoseconds = tick &* 1_000_000 &- MonotonicTime.now().nanoseconds
        if nanoseconds <= 0 { return 0 }
        return Int32(clamping: (nanoseconds &+ 999_999) / 1_000_000)
    }

    private func runJobs() {
        let jobs = inbox.withLock { inbox in
            inbox.isWoken = false
            if inbox.mustStop { isEnding = true }
            let jobs = inbox.jobs
            inbox.jobs = []
            return jobs
        }
        for job in jobs { job() }
    }

    private func attend() {
        if attention.isEmpty { return }
        swap(&attention, &attending)
        for connection in attending { connection.attend() }
        attending.removeAll(keepingCapacity: attending.count <= 4096)
    }

    private func tellRoundTargets() {
        if roundTargets.isEmpty { return }
        swap(&roundTargets, &tellingTargets)
        roundTargetIDs.removeAll(keepingCapacity: true)
        for target in tellingTargets { target.endOfRound() }
        tellingTargets.removeAll(keepingCapacity: true)
    }

    private func end() {
        table.forEach { connection, listener in
            connection?.abort()
            listener?.close()
        }
        for _ in 0..<EventLoop.endingPasses {
            attend()
            tellRoundTargets()
            let jobs = inbox.withLock { inbox in
                let jobs = inbox.jobs
                inbox.jobs = []
                inbox.hasEnded = jobs.isEmpty && attention.isEmpty && roundTargets.isEmpty
                return jobs
            }
            for job in jobs { job() }
            if inbox.withLock({ $0.hasEnded }) { return }
        }
        inbox.withLock { $0.hasEnded = true }
    }

    // MARK: For connections and listeners

    /// Has `connection.attend()` called later in this round, or in the next one when this round's turn is over.
    func attendLater(_ connection: Connection) {
        attention.append(connection)
    }

    /// Watches the descriptor edge-triggered in both directions, so that nothing needs changing for the rest of its life.
    func watch(_ connection: Connection, _ descriptor: Int32) throws(SystemError) {
        if isEnding { throw SystemError(code: ECANCELED, operation: "the event loop has ended") }
        let token = table.insert(connection, descriptor)
        let events = Readiness.read | Readiness.write | Readiness.peerFinished
        guard apus_epoll_add(epoll, descriptor, events, 1, token) == 0 else {
            let error = SystemError.current("epoll_ctl")
            table.remove(descriptor)
            throw error
        }
        counts.openConnections += 1
    }

    /// Forgets the connection; closing the descriptor takes it out of the epoll.
    func unwatch(_ connection: Connection, _ descriptor: Int32) {
        table.remove(descriptor)
        counts.openConnections -= 1
    }

    func watch(_ listener: Listener, _ descriptor: Int32) throws(SystemError) {
        if isEnding { throw SystemError(code: ECANCELED, operation: "the event loop has ended") }
        let token = table.insert(listener, descriptor)
        guard apus_epoll_add(epoll, descriptor, Readiness.read, 0, token) == 0 else {
            let error = SystemError.current("epoll_ctl")
            table.remove(descriptor)
            throw error
        }
    }

    func setWatching(_ listener: Listener, _ descriptor: Int32, _ isWatching: Bool) {
        _ = apus_epoll_modify(epoll, descriptor, isWatching ? Readiness.read : 0, table.token(descriptor))
    }

    func unwatch(_ listener: Listener, _ descriptor: Int32) {
        table.remove(descriptor)
    }
}
