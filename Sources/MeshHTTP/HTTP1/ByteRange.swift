/// A part of a message, as offsets into the bytes it was parsed from.
package struct ByteRange: Sendable, Equatable {
    package var start: UInt32
    package var count: UInt32

    @inline(__always)
    init(_ start: Int, _ end: Int) {
        self.start = UInt32(truncatingIfNeeded: start)
        self.count = UInt32(truncatingIfNeeded: end &- start)
    }

    static let empty = ByteRange(0, 0)

    package var lowerBound: Int { Int(start) }
    package var upperBound: Int { Int(start) &+ Int(count) }
    package var isEmpty: Bool { count == 0 }
}

extension UnsafeRawBufferPointer {
    /// The part that `range` names; empty when it does not lie within these bytes.
    @inline(__always)
    package subscript(range: ByteRange) -> UnsafeRawBufferPointer {
        guard let baseAddress, range.upperBound <= count else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        return UnsafeRawBufferPointer(start: baseAddress + range.lowerBound, count: Int(range.count))
    }
}
