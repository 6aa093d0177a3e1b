import DequeModule
import Synchronization

/// The keys that a controller has to look at. A key that is added again while it waits is still one; one that is added while
/// it is worked on comes again afterwards; so no change is lost and no key is worked on twice at once.
final class WorkQueue<Key: Hashable & Sendable>: Sendable {
    private struct State {
        var waiting: Deque<Key> = []
        var queued: Set<Key> = []
        var active: Set<Key> = []
        var again: Set<Key> = []
        var failures: [Key: Int] = [:]
        /// When a key is to be added though nothing changes.
        var alarms: [Key: ContinuousClock.Instant] = [:]
        var takers: Deque<CheckedContinuation<Key?, Never>> = []
        var isClosed = false
    }

    private let state = Mutex(State())

    func add(_ key: Key) {
        let taker: CheckedContinuation<Key?, Never>? = state.withLock { state in
            guard !state.isClosed else { return nil }
            if state.active.contains(key) {
                state.again.insert(key)
                return nil
            }
            guard state.queued.insert(key).inserted else { return nil }
            guard let taker = state.takers.popFirst() else {
                state.waiting.append(key)
                return nil
            }
            state.queued.remove(key)
            state.active.insert(key)
            return taker
        }
        taker?.resume(returning: key)
    }

    /// Sets the time at which a key comes again. False when it will come earlier anyway.
    func setAlarm(_ key: Key, at time: ContinuousClock.Instant) -> Bool {
        state.withLock { state in
            if let present = state.alarms[key], present <= time { return false }
            state.alarms[key] = time
            return true
        }
    }

    /// The time has come: adds the key, unless an earlier alarm took this one's place.
    func ring(_ key: Key, _ time: ContinuousClock.Instant) {
        let isCurrent = state.withLock { state in
            guard state.alarms[key] == time else { return false }
            state.alarms[key] = nil
            return true
        }
        if isCurrent { add(key) }
    }

    /// The next key; nil when the queue is closed.
    func next() async -> Key? {
        await withCheckedContinuation { continuation in
            let key: Key?? = state.withLock { state in
                if let key = state.waiting.popFirst() {
                    state.queued.remove(key)
                    state.active.insert(key)
                    return .some(key)
                }
                if state.isClosed { return .some(nil) }
                state.takers.append(continuation)
                return nil
            }
            if let key { continuation.resume(returning: key) }
        }
    }

    /// Returns how often in a row the key has failed, this time included.
    @discardableResult
    func done(_ key: Key, failed: Bool) -> Int {
        let (comesAgain, failures) = state.withLock { state in
            state.active.remove(key)
            state.failures[key] = failed ? (state.failures[key] ?? 0) + 1 : nil
            return (state.again.remove(key) != nil, state.failures[key] ?? 0)
        }
        if comesAgain { add(key) }
        return failures
    }

    func close() {
        let takers = state.withLock { state in
            state.isClosed = true
            defer { state.takers = [] }
            return state.takers
        }
        for taker in takers { taker.resume(returning: nil) }
    }
}
