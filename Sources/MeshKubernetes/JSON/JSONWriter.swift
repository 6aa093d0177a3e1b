/// Writes a document with its members sorted by name, so that equal values have equal bytes.
struct JSONWriter {
    private(set) var bytes: [UInt8] = []
    private let isPretty: Bool

    init(pretty: Bool) { isPretty = pretty }

    mutating func write(_ value: JSONValue, indent: Int = 0) {
        switch value {
        case .null: bytes += "null".utf8
        case .bool(let value): bytes += (value ? "true" : "false").utf8
        case .int(let value): bytes += String(value).utf8
        case .double(let value): bytes += (value.isFinite ? "\(value)" : "null").utf8
        case .string(let value): write(value)
        case .array(let elements):
            write(elements, open: "[", close: "]", indent: indent) { writer, element in
                writer.write(element, indent: indent + 1)
            }
        case .object(let members):
            write(members.sorted { $0.key < $1.key }, open: "{", close: "}", indent: indent) { writer, member in
                writer.write(member.key)
                writer.bytes += (writer.isPretty ? ": " : ":").utf8
                writer.write(member.value, indent: indent + 1)
            }
        }
    }

    private mutating func write<Item>(
        _ items: [Item], open: Unicode.Scalar, close: Unicode.Scalar, indent: Int,
        each: (inout JSONWriter, Item) -> Void
    ) {
        bytes.append(UInt8(ascii: open))
        for (index, item) in items.enumerated() {
            if index > 0 { bytes.append(UInt8(ascii: ",")) }
            newLine(indent + 1)
            each(&self, item)
        }
        if !items.isEmpty { newLine(indent) }
        bytes.append(UInt8(ascii: close))
    }

    private mutating func newLine(_ indent: Int) {
        guard isPretty else { return }
        bytes.append(UInt8(ascii: "\n"))
        for _ in 0..<indent { bytes += "  ".utf8 }
    }

    private mutating func write(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                bytes.append(UInt8(ascii: "\\"))
                bytes.append(byte)
            case 0x0a: bytes += "\\n".utf8
            case 0x0d: bytes += "\\r".utf8
            case 0x09: bytes += "\\t".utf8
            case 0..<0x20:
                bytes += (byte < 0x10 ? "\\u000" : "\\u00").utf8
                bytes += String(byte, radix: 16).utf8
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }
}
