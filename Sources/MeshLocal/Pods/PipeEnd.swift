import Glibc
import Synchronization

/// One end of a pipe or terminal, read or written without blocking a thread. For one task at a time.
final class PipeEnd: Sendable {
    private struct State {
        var registration: DescriptorWatch.Registration?
        var waiter: CheckedContinuation<Void, Never>?
        var isClosed = false
    }

    private let descriptor: Int32
    private let state = Mutex(State())

    /// The descriptor becomes the object's own.
    init(_ descriptor: Int32, isForReading: Bool) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        let registration = DescriptorWatch.shared.register(descriptor, isForReading: isForReading) { [weak self] in
            self?.becamePossible()
        }
        state.withLock { $0.registration = registration }
    }

    deinit { close() }

    func close() {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard !state.isClosed else { return nil }
            state.isClosed = true
            if let registration = state.registration { DescriptorWatch.shared.remove(registration) }
            state.registration = nil
            _ = Glibc.close(descriptor)
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume()
    }

    private func becamePossible() {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume()
    }

    private func wait() async {
        await withCheckedContinuation { continuation in
            let isReady = state.withLock { state in
                guard !state.isClosed, let registration = state.registration else { return true }
                state.waiter = continuation
                guard DescriptorWatch.shared.arm(registration) else {
                    state.waiter = nil
                    return true
                }
                return false
            }
            if isReady { continuation.resume() }
        }
    }

    /// The next bytes; empty at the end, and after `close`.
    func read(limit: Int = 32_768) async -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: limit)
        while true {
            let count = state.withLock { $0.isClosed ? 0 : orNegativeError(Glibc.read(descriptor, &buffer, limit)) }
            if count > 0 { return Array(buffer[..<count]) }
            // A terminal whose last process has gone reads as EIO.
            guard count == -Int(EAGAIN) || count == -Int(EINTR) else { return [] }
            await wait()
        }
    }

    /// False when nobody reads any more.
    func write(_ bytes: [UInt8]) async -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = state.withLock { state in
                state.isClosed
                    ? 0 : rest.withUnsafeBytes { orNegativeError(Glibc.write(descriptor, $0.baseAddress, $0.count)) }
            }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if count == -Int(EAGAIN) || count == -Int(EINTR) {
                await wait()
            } else {
                return false
            }
        }
        return true
    }
}

private func orNegativeError(_ result: Int) -> Int { result < 0 ? -Int(errno) : result }
