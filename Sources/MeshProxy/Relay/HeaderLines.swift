/// The field lines that a relay adds to a head, built in place.
struct HeaderLines {
    private var storage = InlineArray<128, UInt8>(repeating: 0)
    private var count = 0

    /// Our own constants only, which fit.
    @inline(__always)
    mutating func append(_ text: StaticString) {
        for index in 0..<text.utf8CodeUnitCount where count < 128 {
            storage[count] = text.utf8Start[index]
            count &+= 1
        }
    }

    @inline(__always)
    private mutating func append(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes where count < 128 {
            storage[count] = byte
            count &+= 1
        }
    }

    @inline(__always)
    private mutating func appendHex(_ value: UInt64) {
        let digits: StaticString = "0123456789abcdef"
        var shift: UInt64 = 60
        for _ in 0..<16 where count < 128 {
            storage[count] = digits.utf8Start[Int(truncatingIfNeeded: (value >> shift) & 15)]
            count &+= 1
            shift = shift &- 4
        }
    }

    /// W3C Trace Context: goes on with the caller's trace under a span ID of this hop, or begins one. A parent that is malformed
    /// begins one too, as §3.2.2.5 asks. True when the parent's own line is to be dropped.
    @inline(__always)
    mutating func appendTraceparent(parent: UnsafeRawBufferPointer?, random: inout LoopRandom) -> Bool {
        append("traceparent: 00-")
        if let parent, HeaderLines.isTraceparent(parent) {
            append(UnsafeRawBufferPointer(rebasing: parent[3..<36]))
            appendHex(random.next() | 1)
            append(UnsafeRawBufferPointer(rebasing: parent[52..<55]))
        } else {
            appendHex(random.next())
            appendHex(random.next() | 1)
            append("-")
            appendHex(random.next() | 1)
            append("-01")
        }
        append("\r\n")
        return parent != nil
    }

    /// `00-<32 hex>-<16 hex>-<2 hex>`, the IDs not all zero.
    private static func isTraceparent(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count == 55, bytes[0] == 0x30, bytes[1] == 0x30 else { return false }
        var traceIsZero = true
        var spanIsZero = true
        for index in 2..<55 {
            let byte = bytes[index]
            if index == 2 || index == 35 || index == 52 {
                guard byte == 0x2d else { return false }
                continue
            }
            guard byte &- 0x30 < 10 || byte &- 0x61 < 6 else { return false }
            if byte != 0x30 {
                if index < 35 { traceIsZero = false } else if index < 52 { spanIsZero = false }
            }
        }
        return !traceIsZero && !spanIsZero
    }

    @inline(__always)
    func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(of: storage) { body(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }
}
