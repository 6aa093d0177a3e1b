import Dispatch
import Glibc
import Synchronization

/// One end of a pipe or terminal, read or written without blocking a thread. For one task at a time.
final class PipeEnd: Sendable {
    private struct State {
        var waiter: CheckedContinuation<Void, Never>?
        var isSuspended = true
        var isClosed = false
    }

    private static let queue = DispatchQueue(label: "apus.pipes")

    private let descriptor: Int32
    private let state = Mutex(State())
    /// Dispatch sources may be used from any thread; the import does not say so.
    private nonisolated(unsafe) let source: any DispatchSourceProtocol

    /// The descriptor becomes the object's own.
    init(_ descriptor: Int32, isForReading: Bool) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        source =
            isForReading
            ? DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: PipeEnd.queue)
            : DispatchSource.makeWriteSource(fileDescriptor: descriptor, queue: PipeEnd.queue)
        source.setEventHandler { [weak self] in self?.isPossible() }
        source.setCancelHandler { _ = Glibc.close(descriptor) }
    }

    deinit { close() }

    func close() {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard !state.isClosed else { return nil }
            state.isClosed = true
            source.cancel()
            // Only a running source delivers its cancellation.
            if state.isSuspended { source.resume() }
            state.isSuspended = false
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume()
    }

    private func isPossible() {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard !state.isClosed, !state.isSuspended else { return nil }
            source.suspend()
            state.isSuspended = true
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume()
    }

    private func wait() async {
        await withCheckedContinuation { continuation in
            let isClosed = state.withLock { state in
                if state.isClosed { return true }
                state.waiter = continuation
                if state.isSuspended { source.resume() }
                state.isSuspended = false
                return false
            }
            if isClosed { continuation.resume() }
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
                state.isClosed ? 0 : rest.withUnsafeBytes { orNegativeError(Glibc.write(descriptor, $0.baseAddress, $0.count)) }
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
