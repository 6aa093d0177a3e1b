import Dispatch
import Glibc
import Synchronization

/// The wish that the platform stops: from a signal or from the calling task. A second signal means at once.
final class StopSignal: Sendable {
    private struct State {
        var count = 0
        var waiters: [(count: Int, CheckedContinuation<Void, Never>)] = []
    }

    /// The last comes when the terminal is closed.
    private static let numbers = [SIGTERM, SIGINT, SIGHUP]

    private let state = Mutex(State())
    /// Dispatch sources may be used from any thread; the import does not say so.
    private nonisolated(unsafe) var sources: [any DispatchSourceSignal] = []

    init(handlesSignals: Bool) {
        guard handlesSignals else { return }
        sources = StopSignal.numbers.map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { [weak self] in self?.request() }
            source.resume()
            return source
        }
    }

    /// Signals end the process again.
    func release() {
        for source in sources { source.cancel() }
        if !sources.isEmpty { StopSignal.numbers.forEach { _ = signal($0, SIG_DFL) } }
    }

    func request() {
        let ready = state.withLock { state in
            state.count += 1
            let ready = state.waiters.filter { $0.count <= state.count }
            state.waiters.removeAll { $0.count <= state.count }
            return ready
        }
        ready.forEach { $0.1.resume() }
    }

    var isRequested: Bool { state.withLock { $0.count > 0 } }

    /// Returns after the given number of requests.
    func wait(count: Int = 1) async {
        await withCheckedContinuation { continuation in
            let isReached = state.withLock { state in
                if state.count < count { state.waiters.append((count, continuation)) }
                return state.count >= count
            }
            if isReached { continuation.resume() }
        }
    }
}

final class LockedInstant: Sendable {
    private let instant = Mutex(ContinuousClock.now)

    /// Milliseconds since the last call or the start.
    func advance() -> Int {
        instant.withLock { instant in
            let now = ContinuousClock.now
            let (seconds, attoseconds) = (now - instant).components
            instant = now
            return Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000)
        }
    }
}
