/// The field `traceparent` of W3C Trace Context: which trace a request belongs to, and which span is its parent.
package struct TraceContext: Sendable, Hashable {
    package var traceHigh: UInt64
    package var traceLow: UInt64
    package var span: UInt64
    package var flags: UInt8

    /// The length of what is written: `00-<32 hex>-<16 hex>-<2 hex>`.
    package static let byteCount = 55

    package var isSampled: Bool { flags & 1 != 0 }

    package init(traceHigh: UInt64, traceLow: UInt64, span: UInt64, flags: UInt8) {
        self.traceHigh = traceHigh
        self.traceLow = traceLow
        self.span = span
        self.flags = flags
    }

    /// A new trace, from three random numbers; IDs of zero, which are invalid, become one.
    package static func starting(random: (UInt64, UInt64, UInt64), isSampled: Bool) -> TraceContext {
        let isZero = random.0 == 0 && random.1 == 0
        return TraceContext(
            traceHigh: random.0, traceLow: isZero ? 1 : random.1, span: max(1, random.2), flags: isSampled ? 1 : 0)
    }

    /// The same trace under a span of this hop. Of the flags only those that version 00 knows pass on (§3.3).
    package func child(random: UInt64) -> TraceContext {
        TraceContext(traceHigh: traceHigh, traceLow: traceLow, span: max(1, random), flags: flags & 1)
    }

    /// Nil for what §3.2.2 tells to ignore: other lengths than 55 in version 00, upper-case digits, IDs of zero, version ff. Of a
    /// later version the known fields are taken.
    package init?(parsing bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= TraceContext.byteCount else { return nil }
        guard let version = TraceContext.hex(bytes, 0, 2), version != 0xff,
            bytes[2] == 0x2d, bytes[35] == 0x2d, bytes[52] == 0x2d,
            let high = TraceContext.hex(bytes, 3, 16), let low = TraceContext.hex(bytes, 19, 16),
            let span = TraceContext.hex(bytes, 36, 16), let flags = TraceContext.hex(bytes, 53, 2)
        else { return nil }
        if bytes.count > TraceContext.byteCount {
            guard version > 0, bytes[TraceContext.byteCount] == 0x2d else { return nil }
        }
        guard high != 0 || low != 0, span != 0 else { return nil }
        self.init(traceHigh: high, traceLow: low, span: span, flags: UInt8(truncatingIfNeeded: flags))
    }

    private static func hex(_ bytes: UnsafeRawBufferPointer, _ from: Int, _ count: Int) -> UInt64? {
        var value: UInt64 = 0
        for index in from..<(from + count) {
            let byte = bytes[index]
            let digit: UInt8
            if byte &- 0x30 < 10 {
                digit = byte &- 0x30
            } else if byte &- 0x61 < 6 {
                digit = byte &- 0x57
            } else {
                return nil
            }
            value = value << 4 | UInt64(digit)
        }
        return value
    }

    /// Writes the field's value; false when `output` has less than `byteCount` bytes.
    @discardableResult
    package func write(to output: UnsafeMutableRawBufferPointer) -> Bool {
        guard output.count >= TraceContext.byteCount else { return false }
        func write(_ value: UInt64, at offset: Int) {
            let high = TraceContext.digits(UInt32(truncatingIfNeeded: value >> 32))
            let low = TraceContext.digits(UInt32(truncatingIfNeeded: value))
            output.storeBytes(of: high.bigEndian, toByteOffset: offset, as: UInt64.self)
            output.storeBytes(of: low.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
        }
        output.storeBytes(of: 0x3030, toByteOffset: 0, as: UInt16.self)
        output[2] = 0x2d
        write(traceHigh, at: 3)
        write(traceLow, at: 19)
        output[35] = 0x2d
        write(span, at: 36)
        output[52] = 0x2d
        let last = UInt16(truncatingIfNeeded: TraceContext.digits(UInt32(flags)))
        output.storeBytes(of: last.bigEndian, toByteOffset: 53, as: UInt16.self)
        return true
    }

    /// Eight hexadecimal digits, the first in the highest byte: the nibbles are spread over the bytes, and all become digits at once.
    @inline(__always)
    private static func digits(_ value: UInt32) -> UInt64 {
        var spread = UInt64(value)
        spread = (spread & 0xffff_0000) << 16 | spread & 0xffff
        spread = spread << 8 & 0x00ff_0000_00ff_0000 | spread & 0x0000_00ff_0000_00ff
        spread = spread << 4 & 0x0f00_0f00_0f00_0f00 | spread & 0x000f_000f_000f_000f
        let letters = (spread &+ 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101
        return spread &+ 0x3030_3030_3030_3030 &+ letters &* 0x27
    }
}

extension TraceContext: CustomStringConvertible {
    package var description: String {
        String(unsafeUninitializedCapacity: TraceContext.byteCount) { buffer in
            write(to: UnsafeMutableRawBufferPointer(buffer))
            return TraceContext.byteCount
        }
    }

    /// The trace's ID alone, 32 hexadecimal digits: what logs are searched by.
    package var traceID: String { String(description.dropFirst(3).prefix(32)) }
}
