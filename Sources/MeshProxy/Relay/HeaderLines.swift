import MeshTelemetry

/// The field lines that a relay adds to a head, built in place.
struct HeaderLines {
    private static let capacity = 160

    private var storage = InlineArray<160, UInt8>(repeating: 0)
    private var count = 0

    /// Our own constants only, which fit.
    @inline(__always)
    mutating func append(_ text: StaticString) {
        for index in 0..<text.utf8CodeUnitCount where count < HeaderLines.capacity {
            storage[count] = text.utf8Start[index]
            count &+= 1
        }
    }

    /// For what is at most an address and a port long.
    mutating func append(_ text: String) {
        for byte in text.utf8 where count < HeaderLines.capacity {
            storage[count] = byte
            count &+= 1
        }
    }

    @inline(__always)
    mutating func appendTraceparent(_ trace: TraceContext) {
        append("traceparent: ")
        guard count + TraceContext.byteCount <= HeaderLines.capacity else { return }
        withUnsafeMutableBytes(of: &storage) { bytes in
            _ = trace.write(to: UnsafeMutableRawBufferPointer(rebasing: bytes[count...]))
        }
        count &+= TraceContext.byteCount
        append("\r\n")
    }

    @inline(__always)
    func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(of: storage) { body(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }
}

extension TraceContext {
    /// One in this many traces that begin here is marked as sampled; a caller's own decision is passed on.
    private static let sampledOneIn: UInt64 = 100

    /// The trace of a request on its next hop: its caller's under a span of this hop, or one that begins here when there is none or
    /// it cannot be read (§3.2.2.5).
    @inline(__always)
    static func next(after parent: UnsafeRawBufferPointer?, random: inout LoopRandom) -> TraceContext {
        if let parent, let context = TraceContext(parsing: parent) { return context.child(random: random.next()) }
        return .starting(
            random: (random.next(), random.next(), random.next()), isSampled: random.next() % sampledOneIn == 0)
    }
}
