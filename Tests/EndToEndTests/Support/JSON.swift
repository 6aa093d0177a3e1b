import Foundation

/// A JSON document as a test reads it: absent members are `null`.
enum JSON: Sendable, Decodable, Equatable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case list([JSON])
    case object([String: JSON])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSON].self) {
            self = .list(value)
        } else {
            self = .object(try container.decode([String: JSON].self))
        }
    }

    static func parse(_ text: String) throws -> JSON {
        do {
            return try JSONDecoder().decode(JSON.self, from: Data(text.utf8))
        } catch {
            throw Failure("this is not JSON: \(text.prefix(2000))")
        }
    }

    subscript(_ name: String) -> JSON {
        guard case .object(let members) = self else { return .null }
        return members[name] ?? .null
    }

    /// The string, or the empty one.
    var text: String {
        guard case .string(let value) = self else { return "" }
        return value
    }
    /// The number, or 0.
    var count: Int {
        guard case .number(let value) = self else { return 0 }
        return Int(exactly: value.rounded()) ?? 0
    }
    var isTrue: Bool { self == .bool(true) }
    var items: [JSON] {
        guard case .list(let values) = self else { return [] }
        return values
    }
    var members: [String: JSON] {
        guard case .object(let values) = self else { return [:] }
        return values
    }
}
