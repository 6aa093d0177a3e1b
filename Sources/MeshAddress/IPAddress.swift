/// An IPv4 or IPv6 address.
///
/// Both families are kept in 16 bytes; an IPv4 address is stored as its IPv4-mapped form (RFC 4291 §2.5.5.2), so that
/// an IPv4 peer compares equal whether it arrived on an IPv4 or on a dual-stack socket.
package struct IPAddress: Hashable, Sendable {
    package let high: UInt64
    package let low: UInt64

    /// From the two halves of the address in host byte order.
    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// From an IPv4 address in host byte order: `0x7f000001` is 127.0.0.1.
    package init(v4 value: UInt32) {
        self.init(high: 0, low: 0x0000_ffff_0000_0000 | UInt64(value))
    }

    package static let loopback4 = IPAddress(v4: 0x7f00_0001)
    package static let loopback6 = IPAddress(high: 0, low: 1)
    package static let any4 = IPAddress(v4: 0)
    package static let any6 = IPAddress(high: 0, low: 0)

    package var isV4: Bool { high == 0 && low >> 32 == 0xffff }

    /// The IPv4 value in host byte order; nil for IPv6.
    package var v4: UInt32? { isV4 ? UInt32(truncatingIfNeeded: low) : nil }

    package var isLoopback: Bool {
        if let v4 { return v4 >> 24 == 127 }
        return self == .loopback6
    }

    /// The sixteen bytes in network order.
    package var bytes: [UInt8] {
        (0..<16).map { index in
            UInt8(truncatingIfNeeded: (index < 8 ? high : low) >> UInt64(56 - 8 * (index % 8)))
        }
    }

    /// From 4 or 16 bytes in network order; nil for any other count.
    package init?(bytes: some Collection<UInt8>) {
        switch bytes.count {
        case 4:
            self.init(v4: bytes.reduce(0) { $0 << 8 | UInt32($1) })
        case 16:
            var halves: (UInt64, UInt64) = (0, 0)
            for (index, byte) in bytes.enumerated() {
                if index < 8 {
                    halves.0 = halves.0 << 8 | UInt64(byte)
                } else {
                    halves.1 = halves.1 << 8 | UInt64(byte)
                }
            }
            self.init(high: halves.0, low: halves.1)
        default:
            return nil
        }
    }
}

// MARK: - Text

extension IPAddress: LosslessStringConvertible {
    /// From dotted decimal or from the text forms of RFC 4291 §2.2, without brackets or zone; nil for anything else.
    package init?(_ text: some StringProtocol) {
        if text.utf8.contains(UInt8(ascii: ":")) {
            guard let parsed = IPAddress.parseV6(Array(text.utf8)) else { return nil }
            self = parsed
        } else {
            guard let value = IPAddress.parseV4(Array(text.utf8)[...]) else { return nil }
            self.init(v4: value)
        }
    }

    private static func parseV4(_ text: ArraySlice<UInt8>) -> UInt32? {
        var value: UInt32 = 0
        let parts = text.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        for part in parts {
            guard (1...3).contains(part.count), part.allSatisfy({ (48...57).contains($0) }) else { return nil }
            if part.count > 1 && part.first == 48 { return nil }
            let octet = part.reduce(UInt32(0)) { $0 * 10 + UInt32($1 - 48) }
            guard octet <= 255 else { return nil }
            value = value << 8 | octet
        }
        return value
    }

    private static func parseV6(_ text: [UInt8]) -> IPAddress? {
        let colon = UInt8(ascii: ":")
        var gap: Int?
        var halves = [text[...]]
        if let at = text.indices.dropLast().first(where: { text[$0] == colon && text[$0 + 1] == colon }) {
            halves = [text[..<at], text[(at + 2)...]]
            gap = 0
        }
        var groups: [[UInt16]] = []
        for (index, half) in halves.enumerated() {
            var list: [UInt16] = []
            let parts = half.isEmpty ? [] : half.split(separator: colon, omittingEmptySubsequences: false)
            for (position, part) in parts.enumerated() {
                let isLast = index == halves.count - 1 && position == parts.count - 1
                if isLast, part.contains(UInt8(ascii: ".")) {
                    guard let v4 = parseV4(part) else { return nil }
                    list += [UInt16(v4 >> 16), UInt16(truncatingIfNeeded: v4)]
                    continue
                }
                guard (1...4).contains(part.count) else { return nil }
                guard let group = UInt16(String(decoding: part, as: UTF8.self), radix: 16), part.first != 43,
                    part.first != 45
                else { return nil }
                list.append(group)
            }
            groups.append(list)
        }
        let count = groups.reduce(0) { $0 + $1.count }
        if gap != nil {
            guard count <= 7 else { return nil }
            groups.insert(Array(repeating: 0, count: 8 - count), at: 1)
        } else {
            guard count == 8 else { return nil }
        }
        let flat = groups.flatMap { $0 }
        return IPAddress(
            high: flat[..<4].reduce(0) { $0 << 16 | UInt64($1) }, low: flat[4...].reduce(0) { $0 << 16 | UInt64($1) })
    }

    /// Dotted decimal, or the canonical form of RFC 5952.
    package var description: String {
        if let v4 {
            return "\(v4 >> 24).\(v4 >> 16 & 255).\(v4 >> 8 & 255).\(v4 & 255)"
        }
        let groups = (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> UInt64(48 - 16 * ($0 % 4))) }
        var best = 0..<0
        var index = 0
        while index < 8 {
            var end = index
            while end < 8 && groups[end] == 0 { end += 1 }
            if end - index > max(1, best.count) { best = index..<end }
            index = max(end, index + 1)
        }
        func joined(_ range: Range<Int>) -> String {
            groups[range].map { String($0, radix: 16) }.joined(separator: ":")
        }
        return best.isEmpty ? joined(0..<8) : joined(0..<best.lowerBound) + "::" + joined(best.upperBound..<8)
    }
}
