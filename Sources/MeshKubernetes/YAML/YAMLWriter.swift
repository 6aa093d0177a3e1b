/// Writes a document as block YAML in the order that readers of manifests expect: what it is and its name first, its
/// status last, the rest by name.
package struct YAMLWriter {
    private var text = ""

    /// One document without its `---` line, ending with a line feed.
    package static func text(_ value: JSONValue) -> String {
        var writer = YAMLWriter()
        switch value {
        case .object(let members) where !members.isEmpty: writer.write(members, indent: 0, continuesLine: false)
        case .array(let elements) where !elements.isEmpty: writer.write(elements, indent: 0)
        default: writer.text += writer.flow(value) + "\n"
        }
        return writer.text
    }

    private mutating func write(_ members: [String: JSONValue], indent: Int, continuesLine: Bool) {
        var isFirst = continuesLine
        for (name, value) in members.sorted(by: { YAMLWriter.precedes($0.key, $1.key) }) {
            if !isFirst { pad(indent) }
            isFirst = false
            text += scalar(name, indent: indent, mayBlock: false) + ":"
            switch value {
            case .object(let inner) where !inner.isEmpty:
                text += "\n"
                write(inner, indent: indent + 2, continuesLine: false)
            case .array(let elements) where !elements.isEmpty:
                text += "\n"
                write(elements, indent: indent)
            case .string(let value):
                text += " " + scalar(value, indent: indent + 2, mayBlock: true) + "\n"
            default:
                text += " " + flow(value) + "\n"
            }
        }
    }

    private mutating func write(_ elements: [JSONValue], indent: Int) {
        for element in elements {
            pad(indent)
            text += "- "
            switch element {
            case .object(let members) where !members.isEmpty:
                write(members, indent: indent + 2, continuesLine: true)
            case .array(let inner) where !inner.isEmpty:
                text += "\n"
                write(inner, indent: indent + 2)
            case .string(let value):
                text += scalar(value, indent: indent + 2, mayBlock: true) + "\n"
            default:
                text += flow(element) + "\n"
            }
        }
    }

    private mutating func pad(_ indent: Int) { text += String(repeating: " ", count: indent) }

    private func flow(_ value: JSONValue) -> String {
        if case .string(let text) = value { return scalar(text, indent: 0, mayBlock: false) }
        return String(decoding: value.bytes(), as: UTF8.self)
    }

    /// A text in the plainest form that reads back as the same text.
    private func scalar(_ value: String, indent: Int, mayBlock: Bool) -> String {
        if mayBlock, YAMLWriter.isBlock(value) {
            let lines = value.dropLast().split(separator: "\n", omittingEmptySubsequences: false)
            let padding = String(repeating: " ", count: indent)
            return "|\n" + lines.map { $0.isEmpty ? "" : padding + $0 }.joined(separator: "\n")
        }
        return YAMLWriter.isPlain(value) ? value : YAMLWriter.quoted(value)
    }

    /// A JSON string is a YAML one as soon as what YAML takes for a line's end or refuses is escaped too (YAML 1.1
    /// §4.2).
    private static func quoted(_ text: String) -> String {
        var result = ""
        for scalar in String(decoding: JSONValue.string(text).bytes(), as: UTF8.self).unicodeScalars {
            if isPrintable(scalar) {
                result.unicodeScalars.append(scalar)
            } else {
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: max(0, 4 - digits.count)) + digits
            }
        }
        return result
    }

    private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0..<0x20, 0x7f...0x9f, 0x2028, 0x2029, 0xfeff, 0xfffe, 0xffff: false
        default: true
        }
    }

    /// Several lines of visible text, ended by exactly one line feed, the first not indented.
    private static func isBlock(_ text: String) -> Bool {
        guard text.dropLast().contains("\n"), text.hasSuffix("\n"), !text.hasSuffix("\n\n"), let first = text.first,
            first != " ", first != "\n"
        else { return false }
        return text.unicodeScalars.allSatisfy { $0 == "\n" || isPrintable($0) }
    }

    private static func isPlain(_ text: String) -> Bool {
        guard let first = text.utf8.first, let last = text.utf8.last, text.utf8.count < 200 else { return false }
        let isLetter = { (byte: UInt8) in (65...90).contains(byte) || (97...122).contains(byte) }
        let isDigit = { (byte: UInt8) in (48...57).contains(byte) }
        guard isLetter(first) || first == UInt8(ascii: "/") || isDigit(first), last != UInt8(ascii: ":") else {
            return false
        }
        guard !text.contains(": "), last != UInt8(ascii: " ") else { return false }
        let allowed = Set("-_./:=@+, ()*".utf8)
        guard text.utf8.allSatisfy({ isLetter($0) || isDigit($0) || allowed.contains($0) }) else { return false }
        if isDigit(first) {
            // What starts like a number or a time is read as one by some readers, unless a letter tells otherwise.
            guard
                text.utf8.contains(where: {
                    isLetter($0) && $0 | 0x20 != UInt8(ascii: "e") && $0 | 0x20 != UInt8(ascii: "t")
                }),
                !text.hasPrefix("0x"), !text.hasPrefix("0o"), !text.hasPrefix("0b"), !text.contains(":"),
                !text.contains("_")
            else { return false }
        }
        return !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(text.lowercased())
    }

    private static let order = ["apiVersion": 0, "kind": 1, "metadata": 2, "name": 3, "namespace": 4, "status": 100]

    private static func precedes(_ left: String, _ right: String) -> Bool {
        (order[left] ?? 50, left) < (order[right] ?? 50, right)
    }
}
