import Foundation

struct RigFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Long enough for a busy machine; only a test that fails waits so long.
let patienceSeconds = 30

/// A thread for each piece of a task's work.
private final class OwnThreadExecutor: TaskExecutor {
    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let executor = asUnownedTaskExecutor()
        let thread = Thread { job.runSynchronously(on: executor) }
        thread.stackSize = 1 << 20
        thread.start()
    }
}

/// Runs a test's body on a thread of its own, as part of the test's task: it blocks, and the threads of Swift's tasks are
/// few.
func onOwnThread(_ body: @escaping @Sendable () throws -> Void) async throws {
    try await withTaskExecutorPreference(OwnThreadExecutor()) { try body() }
}

/// A value that threads share and wait on.
final class Watched<Value>: @unchecked Sendable {
    private let condition = NSCondition()
    private var stored: Value

    init(_ value: Value) { stored = value }

    var value: Value {
        condition.withLock { stored }
    }

    func change<R>(_ body: (inout Value) -> R) -> R {
        condition.withLock {
            defer { condition.broadcast() }
            return body(&stored)
        }
    }

    @discardableResult
    func wait(for what: String, until isMet: (Value) -> Bool) throws -> Value {
        let limit = Date(timeIntervalSinceNow: TimeInterval(patienceSeconds))
        condition.lock()
        defer { condition.unlock() }
        while !isMet(stored) {
            guard condition.wait(until: limit) else { throw RigFailure("waited in vain for \(what)") }
        }
        return stored
    }
}
