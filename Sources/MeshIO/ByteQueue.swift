internal import Glibc

/// Bytes in order: appended at the end, taken from the front. Holds memory only while it holds bytes.
///
/// Its owner calls `clear()` before it lets go of it; there is no deinit because a struct in a class is copied nowhere
/// and a noncopyable one would forbid moving the bytes out while they are being delivered.
struct ByteQueue {
    private var base: UnsafeMutableRawPointer?
    private var capacity = 0
    private var offset = 0
    private(set) var count = 0

    private static let smallestCapacity = 1024

    var isEmpty: Bool { count == 0 }

    /// Valid until the next change.
    var bytes: UnsafeRawBufferPointer {
        guard let base, count > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        return UnsafeRawBufferPointer(start: base + offset, count: count)
    }

    mutating func append(_ source: UnsafeRawPointer, _ sourceCount: Int) {
        guard sourceCount > 0 else { return }
        reserve(sourceCount)
        if let base { memcpy(base + offset + count, source, sourceCount) }
        count += sourceCount
    }

    mutating func append(_ source: UnsafeRawBufferPointer) {
        if let start = source.baseAddress { append(start, source.count) }
    }

    mutating func consume(_ consumed: Int) {
        if consumed >= count {
            clear()
        } else {
            offset += consumed
            count -= consumed
        }
    }

    mutating func clear() {
        free(base)
        self = ByteQueue()
    }

    /// Moves the bytes out; the receiver of them clears them.
    mutating func take() -> ByteQueue {
        let taken = self
        self = ByteQueue()
        return taken
    }

    private mutating func reserve(_ extra: Int) {
        if offset + count + extra <= capacity { return }
        if let base, count + extra <= capacity / 2 {
            memmove(base, base + offset, count)
            offset = 0
            return
        }
        // Twice as much as before, so that the next moves of the bytes come only after as many have been appended.
        var wanted = max(ByteQueue.smallestCapacity, 2 * capacity)
        while wanted < count + extra { wanted *= 2 }
        guard let bigger = malloc(wanted) else { preconditionFailure("out of memory: a buffer of \(wanted) bytes") }
        if let base {
            memcpy(bigger, base + offset, count)
            free(base)
        }
        base = bigger
        capacity = wanted
        offset = 0
    }
}
