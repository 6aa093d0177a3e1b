/// A moment of the wall clock, in milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// Its text, in reports and in stored state, is RFC 3339 in UTC with milliseconds: `2026-11-22T15:10:12.034Z`.
package struct Timestamp: Hashable, Sendable, Comparable {
    package var unixMilliseconds: Int64

    package init(unixMilliseconds: Int64) {
        self.unixMilliseconds = unixMilliseconds
    }

    /// Saturates outside what milliseconds in 64 bits can hold.
    package init(unixSeconds: Int64) {
        let (product, overflow) = unixSeconds.multipliedReportingOverflow(by: 1000)
        self.unixMilliseconds = overflow ? (unixSeconds < 0 ? .min : .max) : product
    }

    /// The whole second that this moment is in.
    package var unixSeconds: Int64 { Timestamp.floorDivide(unixMilliseconds, 1000) }

    package func advanced(bySeconds seconds: Int64) -> Timestamp {
        advanced(byMilliseconds: Timestamp(unixSeconds: seconds).unixMilliseconds)
    }

    /// Saturates.
    package func advanced(byMilliseconds milliseconds: Int64) -> Timestamp {
        let (sum, overflow) = unixMilliseconds.addingReportingOverflow(milliseconds)
        return Timestamp(unixMilliseconds: overflow ? (milliseconds < 0 ? .min : .max) : sum)
    }

    /// Saturates; negative when `other` is later.
    package func milliseconds(since other: Timestamp) -> Int64 {
        let (difference, overflow) = unixMilliseconds.subtractingReportingOverflow(other.unixMilliseconds)
        return overflow ? (unixMilliseconds < 0 ? .min : .max) : difference
    }

    package func seconds(since other: Timestamp) -> Int64 { milliseconds(since: other) / 1000 }

    package static func < (left: Timestamp, right: Timestamp) -> Bool { left.unixMilliseconds < right.unixMilliseconds }

    fileprivate static func floorDivide(_ value: Int64, _ divisor: Int64) -> Int64 {
        let quotient = value / divisor
        return value % divisor < 0 ? quotient - 1 : quotient
    }
}

// MARK: - Text

extension Timestamp: LosslessStringConvertible {
    package var description: String {
        let clamped = min(max(unixMilliseconds, Timestamp.earliestText), Timestamp.latestText)
        let days = Timestamp.floorDivide(clamped, 86_400_000)
        let inDay = clamped - days * 86_400_000
        let date = Timestamp.date(ofDay: days)
        func padded(_ value: Int64, _ width: Int) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        return "\(padded(date.year, 4))-\(padded(date.month, 2))-\(padded(date.day, 2))T"
            + "\(padded(inDay / 3_600_000, 2)):\(padded(inDay / 60_000 % 60, 2)):\(padded(inDay / 1000 % 60, 2))"
            + ".\(padded(inDay % 1000, 3))Z"
    }

    /// From RFC 3339 with any offset and any number of digits of a second's fraction (beyond milliseconds ignored); nil
    /// for anything else.
    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count >= 20, bytes.count <= 40 else { return nil }
        func number(_ range: Range<Int>) -> Int64? {
            guard range.upperBound <= bytes.count, bytes[range].allSatisfy({ (48...57).contains($0) }) else {
                return nil
            }
            return bytes[range].reduce(0) { $0 * 10 + Int64($1 - 48) }
        }
        guard let year = number(0..<4), let month = number(5..<7), let day = number(8..<10), let hour = number(11..<13),
            let minute = number(14..<16), let second = number(17..<19), bytes[4] == 45, bytes[7] == 45,
            bytes[10] == 84 || bytes[10] == 116, bytes[13] == 58, bytes[16] == 58, (1...12).contains(month),
            (1...Timestamp.days(inMonth: month, year: year)).contains(day), hour < 24, minute < 60, second <= 60
        else { return nil }
        var index = 19
        var fraction: Int64 = 0
        if bytes[index] == 46 {
            index += 1
            let start = index
            while index < bytes.count, (48...57).contains(bytes[index]) { index += 1 }
            guard index > start else { return nil }
            for position in start..<(start + 3) {
                fraction = fraction * 10 + (position < index ? Int64(bytes[position] - 48) : 0)
            }
        }
        guard index < bytes.count else { return nil }
        var offset: Int64 = 0
        if bytes[index] == 90 || bytes[index] == 122 {
            guard index == bytes.count - 1 else { return nil }
        } else {
            guard bytes[index] == 43 || bytes[index] == 45, bytes.count == index + 6, bytes[index + 3] == 58,
                let hours = number(index + 1..<index + 3), let minutes = number(index + 4..<index + 6), hours < 24,
                minutes < 60
            else { return nil }
            offset = (hours * 60 + minutes) * (bytes[index] == 43 ? 60_000 : -60_000)
        }
        let days = Timestamp.day(year: year, month: month, day: day)
        self.unixMilliseconds =
            days * 86_400_000 + hour * 3_600_000 + minute * 60_000 + second * 1000 + fraction - offset
    }

    /// 0000-01-01 and the end of 9999, the years that RFC 3339 can write.
    private static let earliestText: Int64 = -62_167_219_200_000
    private static let latestText: Int64 = 253_402_300_799_999

    private static func isLeap(_ year: Int64) -> Bool { year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) }

    private static func days(inMonth month: Int64, year: Int64) -> Int64 {
        switch month {
        case 2: isLeap(year) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    /// Days before 1 January of a year, counted from 1970. The leap days of all years before it are counted from year
    /// 1, which is why year 0 needs the floor.
    private static func day(ofYear year: Int64) -> Int64 {
        let before = year - 1
        let leaps = floorDivide(before, 4) - floorDivide(before, 100) + floorDivide(before, 400)
        return (year - 1970) * 365 + leaps - 477
    }

    private static func day(year: Int64, month: Int64, day: Int64) -> Int64 {
        self.day(ofYear: year) + (1..<month).reduce(0) { $0 + days(inMonth: $1, year: year) } + day - 1
    }

    private static func date(ofDay day: Int64) -> (year: Int64, month: Int64, day: Int64) {
        var year = 1970 + floorDivide(day * 400, 146_097)
        while self.day(ofYear: year) > day { year -= 1 }
        while self.day(ofYear: year + 1) <= day { year += 1 }
        var rest = day - self.day(ofYear: year)
        var month: Int64 = 1
        while rest >= days(inMonth: month, year: year) {
            rest -= days(inMonth: month, year: year)
            month += 1
        }
        return (year, month, rest + 1)
    }
}

extension Timestamp: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let value = Timestamp(text) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "'\(text)' is not a time of RFC 3339, such as 2026-11-22T15:10:12Z")
        }
        self = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
