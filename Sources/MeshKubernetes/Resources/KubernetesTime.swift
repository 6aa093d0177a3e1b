package import Foundation

/// A moment as the API writes it (RFC 3339): whole seconds in `Time` fields, microseconds in `MicroTime` fields.
package struct KubernetesTime: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// Since 1970-01-01T00:00:00Z.
    package var seconds: Int64
    /// 0 to 999,999.
    package var microseconds: Int

    package init(seconds: Int64, microseconds: Int = 0) {
        self.seconds = seconds
        self.microseconds = min(max(microseconds, 0), 999_999)
    }

    package init(_ date: Date) {
        let whole = date.timeIntervalSince1970.rounded(.down)
        let fraction = (date.timeIntervalSince1970 - whole) * 1e6
        self.init(seconds: Int64(exactly: whole) ?? 0, microseconds: Int(fraction))
    }

    package static var now: KubernetesTime { KubernetesTime(Date()) }

    package var date: Date { Date(timeIntervalSince1970: Double(seconds) + Double(microseconds) / 1e6) }

    package static func < (left: Self, right: Self) -> Bool {
        (left.seconds, left.microseconds) < (right.seconds, right.microseconds)
    }
}

// MARK: - Text

extension KubernetesTime {
    /// From RFC 3339 §5.6 text, such as `2026-01-31T09:05:00Z` or `2026-01-31T10:05:00.25+01:00`; nil for anything
    /// else.
    package init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        func number(_ start: Int, _ count: Int) -> Int? {
            guard start + count <= bytes.count else { return nil }
            var value = 0
            for byte in bytes[start..<start + count] {
                guard (48...57).contains(byte) else { return nil }
                value = value * 10 + Int(byte - 48)
            }
            return value
        }
        func isAt(_ index: Int, _ characters: StaticString) -> Bool {
            index < bytes.count && characters.withUTF8Buffer { $0.contains(bytes[index]) }
        }
        guard bytes.count <= 40, let year = number(0, 4), isAt(4, "-"), let month = number(5, 2), isAt(7, "-"),
            let day = number(8, 2), isAt(10, "Tt "), let hour = number(11, 2), isAt(13, ":"),
            let minute = number(14, 2),
            isAt(16, ":"), let second = number(17, 2), (1...12).contains(month), (1...31).contains(day), hour < 24,
            minute < 60,
            second <= 60
        else { return nil }
        var index = 19
        var fraction = 0
        if isAt(index, ".") {
            index += 1
            var digits = 0
            while index < bytes.count, (48...57).contains(bytes[index]) {
                if digits < 6 { fraction = fraction * 10 + Int(bytes[index] - 48) }
                digits += 1
                index += 1
            }
            guard digits > 0 else { return nil }
            for _ in min(digits, 6)..<6 { fraction *= 10 }
        }
        var offset = 0
        if isAt(index, "Zz") {
            index += 1
        } else if isAt(index, "+-"), let hours = number(index + 1, 2), isAt(index + 3, ":"),
            let minutes = number(index + 4, 2)
        {
            offset = (hours * 3600 + minutes * 60) * (bytes[index] == UInt8(ascii: "-") ? -1 : 1)
            index += 6
        } else {
            return nil
        }
        guard index == bytes.count else { return nil }
        let days = KubernetesTime.days(year: year, month: month, day: day)
        self.init(seconds: Int64(days * 86_400 + hour * 3600 + minute * 60 + second - offset), microseconds: fraction)
    }

    /// Whole seconds in UTC: `2026-01-31T09:05:00Z`.
    package var description: String { text + "Z" }

    /// Microseconds in UTC, for `MicroTime` fields: `2026-01-31T09:05:00.250000Z`.
    package var microText: String { "\(text).\(KubernetesTime.padded(microseconds, 6))Z" }

    private var text: String {
        let range = min(max(seconds, -62_135_596_800), 253_402_300_799)
        let days = Int((range >= 0 ? range : range - 86_399) / 86_400)
        let rest = Int(range) - days * 86_400
        let (year, month, day) = KubernetesTime.civil(days: days)
        let date =
            "\(KubernetesTime.padded(year, 4))-\(KubernetesTime.padded(month, 2))-\(KubernetesTime.padded(day, 2))"
        let hour = KubernetesTime.padded(rest / 3600, 2)
        return "\(date)T\(hour):\(KubernetesTime.padded(rest / 60 % 60, 2)):\(KubernetesTime.padded(rest % 60, 2))"
    }

    private static func padded(_ value: Int, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    /// Days since 1970-01-01 in the proleptic Gregorian calendar. Years start in March, so that the leap day comes
    /// last.
    private static func days(year: Int, month: Int, day: Int) -> Int {
        let shifted = month > 2 ? year : year - 1
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private static func civil(days: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let index = (5 * dayOfYear + 2) / 153
        let month = index < 10 ? index + 3 : index - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * index + 2) / 5 + 1)
    }
}

extension KubernetesTime: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let time = KubernetesTime(text) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "'\(text)' is not an RFC 3339 time such as 2026-01-31T09:05:00Z")
        }
        self = time
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
