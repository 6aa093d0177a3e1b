import DequeModule
import NIOCore
import Synchronization

/// Bytes from an event loop to a task, with a mark above which the loop stops reading.
final class BytePipe: Sendable {
    private struct State {
        var pieces: Deque<[UInt8]> = []
        var bytes = 0
        var isFinished = false
        var isPaused = false
        var waiter: CheckedContinuation<[UInt8]?, Never>?
    }

    private let state = Mutex(State())
    private let limitBytes: Int
    /// Called once when what was above the mark has been taken.
    private let resume: @Sendable () -> Void

    init(limitBytes: Int, resume: @escaping @Sendable () -> Void) {
        self.limitBytes = limitBytes
        self.resume = resume
    }

    /// False when the writer has to stop until `resume` is called.
    func push(_ piece: [UInt8]) -> Bool {
        let (waiter, goesOn): (CheckedContinuation<[UInt8]?, Never>?, Bool) = state.withLock { state in
            guard !state.isFinished else { return (nil, true) }
            if let waiter = state.waiter {
                state.waiter = nil
                return (waiter, true)
            }
            state.pieces.append(piece)
            state.bytes += piece.count
            state.isPaused = state.bytes > limitBytes
            return (nil, !state.isPaused)
        }
        waiter?.resume(returning: piece)
        return goesOn
    }

    func finish() {
        let waiter = state.withLock { state in
            state.isFinished = true
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume(returning: nil)
    }

    private func next() async -> [UInt8]? {
        await withCheckedContinuation { continuation in
            var mustResume = false
            let result: [UInt8]?? = state.withLock { state in
                if let piece = state.pieces.popFirst() {
                    state.bytes -= piece.count
                    if state.isPaused, state.bytes <= limitBytes / 2 {
                        state.isPaused = false
                        mustResume = true
                    }
                    return .some(piece)
                }
                if state.isFinished || state.waiter != nil { return .some(nil) }
                state.waiter = continuation
                return nil
            }
            if mustResume { resume() }
            if let result { continuation.resume(returning: result) }
        }
    }

    /// The bytes, for one reader.
    var stream: AsyncStream<[UInt8]> {
        AsyncStream(unfolding: { await self.next() }, onCancel: { self.finish() })
    }
}
