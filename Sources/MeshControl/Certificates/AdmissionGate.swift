internal import Synchronization

/// Lets a bounded number of callers work at once and a bounded number wait, in order; the rest are turned away at once.
package final class AdmissionGate: Sendable {
    private struct State {
        var working = 0
        var waiting: [CheckedContinuation<Void, Never>] = []
        /// Where the queue begins in `waiting`, so that leaving costs no shifting.
        var first = 0
        var turnedAway: UInt64 = 0

        var queued: Int { waiting.count - first }
    }

    private enum Turn {
        case now
        case later
        case never
    }

    private let state = Mutex(State())
    private let concurrency: Int
    private let queueLimit: Int

    package init(concurrency: Int, queueLimit: Int) {
        self.concurrency = max(1, concurrency)
        self.queueLimit = max(0, queueLimit)
    }

    package var turnedAway: UInt64 { state.withLock { $0.turnedAway } }
    package var queued: Int { state.withLock { $0.queued } }

    /// Runs `work` when its turn comes; nil when it was turned away.
    package func pass<Result: Sendable>(_ work: @Sendable () async -> Result) async -> Result? {
        let turn: Turn = state.withLock { state in
            if state.working < concurrency {
                state.working += 1
                return .now
            }
            if state.queued < queueLimit { return .later }
            state.turnedAway &+= 1
            return .never
        }
        switch turn {
        case .never: return nil
        case .now: break
        case .later:
            await withCheckedContinuation { continuation in
                let isFree = state.withLock { state -> Bool in
                    // Whoever was working may have left since: then nobody would wake this one.
                    if state.working < concurrency {
                        state.working += 1
                        return true
                    }
                    state.waiting.append(continuation)
                    return false
                }
                if isFree { continuation.resume() }
            }
        }
        let result = await work()
        leave()
        return result
    }

    private func leave() {
        let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard state.first < state.waiting.count else {
                state.working -= 1
                return nil
            }
            let next = state.waiting[state.first]
            state.first += 1
            if state.first > 256, state.first * 2 > state.waiting.count {
                state.waiting.removeFirst(state.first)
                state.first = 0
            }
            return next
        }
        next?.resume()
    }
}
