/// Which bytes may stand where in a head, and the scan that finds the end of a value.
enum ByteClass {
    /// `tchar` (RFC 9110 §5.6.2).
    static let token: UInt8 = 1
    /// In a request target: visible ASCII without `#`. Bytes from 0x80 on are refused, because lenient parsers take some of
    /// them (0x85, 0xA0) for white space and would split the request line elsewhere than we do.
    static let target: UInt8 = 2
    /// In a host name: unreserved and sub-delims (RFC 3986 §3.2.2) without the comma, which could be two Host fields joined.
    static let host: UInt8 = 4
    static let hexDigit: UInt8 = 8

    /// One letter per byte value: 0x40 with the bits above. A literal, so that a look-up is a load from a constant address,
    /// without the once-check of a global's initializer.
    @inline(__always)
    private static var table: UnsafePointer<UInt8> {
        let letters: StaticString = """
            @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@GBAGCGGFFGGBGGBOOOOOOOOOOBFBFBB\
            BOOOOOOGGGGGGGGGGGGGGGGGGGGBBBCGCOOOOOOGGGGGGGGGGGGGGGGGGGGBCBG@\
            @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\
            @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
            """
        return letters.utf8Start
    }

    @inline(__always)
    static func has(_ byte: UInt8, _ bits: UInt8) -> Bool { table[Int(byte)] & bits != 0 }
}

/// The offset of the first byte in `from ..< end` that may not stand in a field value (RFC 9110 §5.5): below 0x20 except
/// HTAB, or DEL; `end` when there is none. Eight bytes a step.
@inline(__always)
func endOfValue(_ base: UnsafeRawPointer, _ from: Int, _ end: Int) -> Int {
    var position = from
    while true {
        position = firstControl(base, position, end)
        if position == end || base.load(fromByteOffset: position, as: UInt8.self) != 0x09 { return position }
        position &+= 1
    }
}

@inline(__always)
private func firstControl(_ base: UnsafeRawPointer, _ from: Int, _ end: Int) -> Int {
    let ones: UInt64 = 0x0101_0101_0101_0101
    var position = from
    while position &+ 8 <= end {
        let word = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: position, as: UInt64.self))
        let delete = word ^ (ones &* 0x7f)
        // The lowest flagged byte is exact: a borrow can only flag bytes above a true hit.
        let hits = (((word &- ones &* 0x20) & ~word) | ((delete &- ones) & ~delete)) & (ones &* 0x80)
        if hits != 0 { return position &+ hits.trailingZeroBitCount / 8 }
        position &+= 8
    }
    while position < end {
        let byte = base.load(fromByteOffset: position, as: UInt8.self)
        if byte < 0x20 || byte == 0x7f { return position }
        position &+= 1
    }
    return end
}
