package import Foundation

/// Any JSON document. Integers stay integers: a `resourceVersion` or a port never passes through a floating-point
/// number.
package enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case int(Int64)
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])
}

// MARK: - Reading and changing

extension JSONValue {
    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    package var object: [String: JSONValue]? { if case .object(let value) = self { value } else { nil } }

    package var int: Int? {
        switch self {
        case .int(let value): Int(value)
        case .double(let value) where value == value.rounded() && abs(value) < 9e15: Int(value)
        default: nil
        }
    }

    package var isNull: Bool { self == .null }

    /// The member of an object; setting nil removes it, and setting on anything but an object makes it one.
    package subscript(key: String) -> JSONValue? {
        get { object?[key] }
        set {
            var members = object ?? [:]
            members[key] = newValue
            self = .object(members)
        }
    }

    /// The element of an array; nil outside it.
    package subscript(index: Int) -> JSONValue? {
        guard let array, array.indices.contains(index) else { return nil }
        return array[index]
    }

    /// The value at a path of member names; setting makes the objects on the way.
    package subscript(path path: String...) -> JSONValue? {
        get { path.reduce(self) { $0?[$1] } }
        set { set(newValue, at: path[...]) }
    }

    private mutating func set(_ value: JSONValue?, at path: ArraySlice<String>) {
        guard let first = path.first else { return self = value ?? .null }
        if path.count == 1 { return self[first] = value }
        var child = self[first] ?? .object([:])
        child.set(value, at: path.dropFirst())
        self[first] = child
    }
}

// MARK: - Text

extension JSONValue {
    /// How many arrays and objects may be within each other in a text that is parsed.
    package static let depthLimit = 256
}

extension JSONValue: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .int(value)
        } else if let value = try? container.decode(Double.self) {
            self = .double(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .int(let value): try container.encode(value)
        case .double(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }

    /// Parses one JSON document (RFC 8259); fails with a `JSONError` that has the position of what is wrong. Numbers
    /// without a fraction become integers as long as they fit.
    package init(parsing data: Data) throws {
        try self.init(parsing: Array(data))
    }

    package init(parsing bytes: [UInt8]) throws(JSONError) {
        var parser = JSONParser(bytes)
        self = try parser.document()
    }

    /// The document in UTF-8, members sorted by name, so that equal values have equal bytes.
    package func data(pretty: Bool = false) -> Data { Data(bytes(pretty: pretty)) }

    package func bytes(pretty: Bool = false) -> [UInt8] {
        var writer = JSONWriter(pretty: pretty)
        writer.write(self)
        return writer.bytes
    }

    /// A typed view of this value: a `Codable` struct with the field names of the Kubernetes API. Fails with a
    /// `DecodingError` that has the field's path.
    package func decoded<T: Decodable>(as type: T.Type = T.self) throws -> T { try JSONValueDecoder(self).unbox(type) }

    package init(encoding value: some Encodable) throws {
        try self.init(parsing: JSONEncoder().encode(value))
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .int(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(Dictionary(elements, uniquingKeysWith: { $1 }))
    }
    package init(nilLiteral: ()) { self = .null }
}
