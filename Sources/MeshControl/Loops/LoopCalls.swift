internal import MeshIO

/// A loop that has ended, or whose queue is full, does nothing more.
struct LoopUnavailable: Error, CustomStringConvertible {
    let loop: String
    var description: String { "the loop '\(loop)' takes no more work" }
}

extension EventLoop {
    /// Runs `body` on the loop and waits for what it returns.
    func perform<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
            let isTaken = submit { continuation.resume(with: Result { try body() }) }
            if !isTaken { continuation.resume(throwing: LoopUnavailable(loop: name)) }
        }
    }
}
