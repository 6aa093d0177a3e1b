import MeshHTTP

/// Buffers for requests under way, lent by the loop so that an idle connection owns none.
struct BufferPool {
    static let size = 8 * 1024
    /// Spare buffers kept, 2 MiB: what so many requests at a time need.
    private static let spareLimit = 256

    private var spare: [UnsafeMutableRawBufferPointer] = []

    /// A buffer of at least `count` bytes.
    @inline(__always)
    mutating func take(_ count: Int) -> UnsafeMutableRawBufferPointer {
        if count <= BufferPool.size, let buffer = spare.popLast() { return buffer }
        return .allocate(byteCount: max(count, BufferPool.size), alignment: 16)
    }

    @inline(__always)
    mutating func give(_ buffer: UnsafeMutableRawBufferPointer) {
        if buffer.count == BufferPool.size, spare.count < BufferPool.spareLimit {
            spare.append(buffer)
        } else {
            buffer.deallocate()
        }
    }
}

/// A request as it was sent, kept until its response begins, so that it can be sent again.
struct ReplayBuffer {
    private(set) var storage = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    @inline(__always)
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: storage[..<count]) }

    /// Starts with what `fill` writes; it answers how many bytes it needs, and is called again with that much room when it
    /// had less.
    @inline(__always)
    mutating func start(
        room: Int, from pool: inout BufferPool, fill: (UnsafeMutableRawBufferPointer) -> Int
    ) {
        if storage.count < room {
            release(to: &pool)
            storage = pool.take(room)
        }
        let needed = fill(storage)
        if needed > storage.count {
            release(to: &pool)
            storage = pool.take(needed)
            count = min(fill(storage), storage.count)
        } else {
            count = needed
        }
    }

    /// Adds body bytes; false when there would be more than `limit`.
    mutating func append(
        _ bytes: UnsafeRawBufferPointer, to pool: inout BufferPool,
        limit: Int = ProxyLimits.replayBytes + ProxyLimits.http.headBytes
    ) -> Bool {
        guard !bytes.isEmpty else { return true }
        guard count + bytes.count <= limit else { return false }
        if count + bytes.count > storage.count {
            let larger = pool.take(max(count + bytes.count, storage.count * 2))
            larger.copyMemory(from: self.bytes)
            let kept = count
            release(to: &pool)
            storage = larger
            count = kept
        }
        UnsafeMutableRawBufferPointer(rebasing: storage[count..<count + bytes.count]).copyMemory(from: bytes)
        count += bytes.count
        return true
    }

    @inline(__always)
    mutating func release(to pool: inout BufferPool) {
        if storage.baseAddress != nil { pool.give(storage) }
        storage = UnsafeMutableRawBufferPointer(start: nil, count: 0)
        count = 0
    }
}
