internal import CApus
internal import Glibc

/// A pipe that holds `count` bytes on their way from one socket to another.
struct KernelPipe {
    let reader: Int32
    let writer: Int32
    var count = 0
}

/// The pipes of a loop. A forwarding connection has one only while bytes are in it, so that idle ones cost no descriptor.
struct PipePool {
    /// What one pipe holds; within what a user without privileges may ask for.
    static let capacity: Int32 = 1024 * 1024
    /// Pipes that may be in use at a time; beyond that, bytes are copied.
    static let limit = 1024
    private static let idleLimit = 16

    private var idle: ContiguousArray<KernelPipe> = []
    private(set) var inUse = 0

    /// Nil at the limit, or when the process has no descriptors left.
    mutating func take() -> KernelPipe? {
        if let pipe = idle.popLast() {
            inUse += 1
            return pipe
        }
        guard inUse < PipePool.limit else { return nil }
        var descriptors: (Int32, Int32) = (-1, -1)
        let result = withUnsafeMutableBytes(of: &descriptors) { raw in
            apus_pipe(raw.assumingMemoryBound(to: Int32.self).baseAddress, PipePool.capacity)
        }
        guard result == 0 else { return nil }
        inUse += 1
        return KernelPipe(reader: descriptors.0, writer: descriptors.1)
    }

    /// An empty pipe is kept for the next connection; one with bytes is closed, and they are dropped.
    mutating func giveBack(_ pipe: KernelPipe) {
        inUse -= 1
        if pipe.count == 0 && idle.count < PipePool.idleLimit {
            idle.append(pipe)
        } else {
            PipePool.close(pipe)
        }
    }

    mutating func closeIdle() {
        for pipe in idle { PipePool.close(pipe) }
        idle = []
    }

    private static func close(_ pipe: KernelPipe) {
        Glibc.close(pipe.reader)
        Glibc.close(pipe.writer)
    }
}
