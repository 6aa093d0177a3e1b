/// Checks and comparisons of `host[:port]` (RFC 3986 §3.2, RFC 9110 §7.2), on the bytes of a head.
enum Authority {
    /// A non-empty host name, IPv4 address or bracketed IPv6 address, with an optional port of at most 65,535. User
    /// information, percent-encoding and IPv6 zones are refused.
    static func isValid(_ base: UnsafeRawPointer, _ from: Int, _ to: Int) -> Bool {
        guard from < to else { return false }
        var position = from
        if base.load(fromByteOffset: from, as: UInt8.self) == 0x5b {
            position &+= 1
            while position < to {
                let byte = base.load(fromByteOffset: position, as: UInt8.self)
                guard ByteClass.has(byte, ByteClass.hexDigit) || byte == 0x3a || byte == 0x2e else { break }
                position &+= 1
            }
            guard position < to, position &- from >= 3, base.load(fromByteOffset: position, as: UInt8.self) == 0x5d
            else {
                return false
            }
            position &+= 1
        } else {
            while position < to, ByteClass.has(base.load(fromByteOffset: position, as: UInt8.self), ByteClass.host) {
                position &+= 1
            }
            guard position > from else { return false }
        }
        if position == to { return true }
        guard base.load(fromByteOffset: position, as: UInt8.self) == 0x3a, to &- position <= 6 else { return false }
        var port = 0
        for offset in (position &+ 1)..<to {
            let digit = base.load(fromByteOffset: offset, as: UInt8.self) &- 0x30
            guard digit <= 9 else { return false }
            port = port &* 10 &+ Int(digit)
        }
        return port <= 65535
    }

    /// Whether two valid authorities name the same host and port, where an absent port is `defaultPort`.
    static func areEqual(_ base: UnsafeRawPointer, _ one: ByteRange, _ other: ByteRange, defaultPort: Int) -> Bool {
        let (oneHost, onePort) = split(base, one, defaultPort)
        let (otherHost, otherPort) = split(base, other, defaultPort)
        guard onePort == otherPort, oneHost.count == otherHost.count else { return false }
        for index in 0..<oneHost.count {
            let left = lowercased(base.load(fromByteOffset: oneHost.lowerBound &+ index, as: UInt8.self))
            let right = lowercased(base.load(fromByteOffset: otherHost.lowerBound &+ index, as: UInt8.self))
            if left != right { return false }
        }
        return true
    }

    private static func lowercased(_ byte: UInt8) -> UInt8 { byte &- 0x41 < 26 ? byte | 0x20 : byte }

    private static func split(_ base: UnsafeRawPointer, _ range: ByteRange, _ defaultPort: Int) -> (Range<Int>, Int) {
        var colon = range.upperBound
        var port = 0
        var scale = 1
        // A port has five digits at most, so that its colon is one of the last six bytes.
        while colon > range.lowerBound, range.upperBound &- colon < 6 {
            colon &-= 1
            let byte = base.load(fromByteOffset: colon, as: UInt8.self)
            if byte == 0x3a {
                let isEmpty = colon == range.upperBound &- 1
                return (range.lowerBound..<colon, isEmpty ? defaultPort : port)
            }
            let digit = byte &- 0x30
            guard digit <= 9 else { break }
            port &+= Int(digit) &* scale
            scale &*= 10
        }
        return (range.lowerBound..<range.upperBound, defaultPort)
    }
}
