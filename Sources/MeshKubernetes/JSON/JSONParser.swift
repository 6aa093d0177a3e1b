/// Why a text is not JSON, and where.
package struct JSONError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Bytes before what is wrong.
    package let offset: Int
    package let reason: String

    package var description: String { "not JSON at byte \(offset): \(reason)" }
}

/// RFC 8259, one document, strict. Written by hand because the API server and the informers parse whole objects all the
/// time, and Foundation's decoder takes several times as long to arrive at a `JSONValue`.
struct JSONParser {
    private let bytes: [UInt8]
    private var index = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func document() throws(JSONError) -> JSONValue {
        let value = try value(depth: 0)
        skipSpace()
        guard index == bytes.count else { throw fail("more text after the document") }
        return value
    }

    private mutating func value(depth: Int) throws(JSONError) -> JSONValue {
        skipSpace()
        guard index < bytes.count else { throw fail("the text ends where a value is expected") }
        switch bytes[index] {
        case UInt8(ascii: "{"): return .object(try members(depth: depth + 1))
        case UInt8(ascii: "["): return .array(try elements(depth: depth + 1))
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case UInt8(ascii: "-"), 48...57: return try number()
        default: throw fail("a value starts with none of { [ \" t f n - or a digit")
        }
    }

    private mutating func members(depth: Int) throws(JSONError) -> [String: JSONValue] {
        guard depth <= JSONValue.depthLimit else { throw fail("nested deeper than \(JSONValue.depthLimit)") }
        var members: [String: JSONValue] = [:]
        index += 1
        skipSpace()
        if take(UInt8(ascii: "}")) { return members }
        while true {
            skipSpace()
            guard index < bytes.count, bytes[index] == UInt8(ascii: "\"") else {
                throw fail("a member's name is expected")
            }
            let name = try string()
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw fail("':' is expected after a member's name") }
            members[name] = try value(depth: depth)
            skipSpace()
            if take(UInt8(ascii: ",")) { continue }
            guard take(UInt8(ascii: "}")) else { throw fail("',' or '}' is expected after a member") }
            return members
        }
    }

    private mutating func elements(depth: Int) throws(JSONError) -> [JSONValue] {
        guard depth <= JSONValue.depthLimit else { throw fail("nested deeper than \(JSONValue.depthLimit)") }
        var elements: [JSONValue] = []
        index += 1
        skipSpace()
        if take(UInt8(ascii: "]")) { return elements }
        while true {
            elements.append(try value(depth: depth))
            skipSpace()
            if take(UInt8(ascii: ",")) { continue }
            guard take(UInt8(ascii: "]")) else { throw fail("',' or ']' is expected after an element") }
            return elements
        }
    }

    private mutating func word(_ text: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        let length = text.utf8CodeUnitCount
        let isEqual =
            index + length <= bytes.count && text.withUTF8Buffer { $0.elementsEqual(bytes[index..<index + length]) }
        guard isEqual else { throw fail("expected \(text)") }
        index += length
        return value
    }
}

// MARK: - Numbers

extension JSONParser {
    private mutating func number() throws(JSONError) -> JSONValue {
        let start = index
        _ = take(UInt8(ascii: "-"))
        let firstDigit = index
        skipDigits()
        guard index > firstDigit else { throw fail("a digit is expected") }
        guard bytes[firstDigit] != 48 || index == firstDigit + 1 else { throw fail("a number with a leading zero") }
        var isInteger = true
        if take(UInt8(ascii: ".")) {
            isInteger = false
            let fraction = index
            skipDigits()
            guard index > fraction else { throw fail("a digit is expected after '.'") }
        }
        if index < bytes.count, bytes[index] | 0x20 == UInt8(ascii: "e") {
            isInteger = false
            index += 1
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            let exponent = index
            skipDigits()
            guard index > exponent else { throw fail("a digit is expected in the exponent") }
        }
        let text = String(decoding: bytes[start..<index], as: UTF8.self)
        if isInteger, let value = Int64(text) { return .int(value) }
        guard let value = Double(text), value.isFinite else {
            throw fail("the number \(text.prefix(40)) is out of range")
        }
        if value == value.rounded(), abs(value) < 9e15 { return .int(Int64(value)) }
        return .double(value)
    }

    private mutating func skipDigits() {
        while index < bytes.count, (48...57).contains(bytes[index]) { index += 1 }
    }
}

// MARK: - Strings

extension JSONParser {
    private mutating func string() throws(JSONError) -> String {
        index += 1
        let start = index
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\""):
                let text = try text(start..<index)
                index += 1
                return text
            case UInt8(ascii: "\\"):
                return try escapedString(from: start)
            case 0..<0x20:
                throw fail("a control character within a string")
            default:
                index += 1
            }
        }
        throw fail("a string without an end")
    }

    private mutating func escapedString(from start: Int) throws(JSONError) -> String {
        var result = try text(start..<index)
        var run = index
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\""):
                result += try text(run..<index)
                index += 1
                return result
            case UInt8(ascii: "\\"):
                result += try text(run..<index)
                index += 1
                result.unicodeScalars.append(try escape())
                run = index
            case 0..<0x20:
                throw fail("a control character within a string")
            default:
                index += 1
            }
        }
        throw fail("a string without an end")
    }

    private mutating func escape() throws(JSONError) -> Unicode.Scalar {
        guard index < bytes.count else { throw fail("a string without an end") }
        let byte = bytes[index]
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"):
            let unit = try hexadecimalUnit()
            if let scalar = Unicode.Scalar(unit) { return scalar }
            guard (0xd800..<0xdc00).contains(unit), take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else {
                throw fail("half of a surrogate pair")
            }
            let low = try hexadecimalUnit()
            guard (0xdc00..<0xe000).contains(low),
                let scalar = Unicode.Scalar(0x10000 + (UInt32(unit) - 0xd800) << 10 + (UInt32(low) - 0xdc00))
            else { throw fail("half of a surrogate pair") }
            return scalar
        default:
            throw fail("an unknown escape")
        }
    }

    private mutating func hexadecimalUnit() throws(JSONError) -> UInt16 {
        guard index + 4 <= bytes.count else { throw fail("a string without an end") }
        var unit: UInt16 = 0
        for byte in bytes[index..<index + 4] {
            let digit: UInt8
            switch byte {
            case 48...57: digit = byte - 48
            case 65...70: digit = byte - 55
            case 97...102: digit = byte - 87
            default: throw fail("four hexadecimal digits are expected after \\u")
            }
            unit = unit << 4 | UInt16(digit)
        }
        index += 4
        return unit
    }

    private func text(_ range: Range<Int>) throws(JSONError) -> String {
        guard let text = String(validating: bytes[range], as: UTF8.self) else {
            throw fail("a string that is not UTF-8")
        }
        return text
    }
}

// MARK: - Steps

extension JSONParser {
    private mutating func skipSpace() {
        while index < bytes.count,
            bytes[index] == 0x20 || bytes[index] == 0x0a || bytes[index] == 0x0d || bytes[index] == 0x09
        {
            index += 1
        }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard index < bytes.count, bytes[index] == byte else { return false }
        index += 1
        return true
    }

    private func fail(_ reason: String) -> JSONError { JSONError(offset: index, reason: reason) }
}
