/// A value that has an empty form, which the API treats like an absent field.
package protocol HasEmpty: Codable, Hashable {
    init()
    /// Whether a field that holds the empty form is still written: counts and flags are, texts and collections are not.
    static var isWrittenWhenEmpty: Bool { get }
}

extension HasEmpty {
    package static var isWrittenWhenEmpty: Bool { false }
}

extension String: HasEmpty {}
extension Array: HasEmpty where Element: Codable & Hashable {}
extension Dictionary: HasEmpty where Key == String, Value: Codable & Hashable {}
extension Bool: HasEmpty { package static var isWrittenWhenEmpty: Bool { true } }
extension Int: HasEmpty { package static var isWrittenWhenEmpty: Bool { true } }

/// A field that reads as its empty form when the document leaves it out or says null. A field of the wrong type still
/// fails, with its path.
@propertyWrapper
package struct OrEmpty<Value: HasEmpty>: Codable, Hashable {
    package var wrappedValue: Value

    package init() { wrappedValue = Value() }
    package init(wrappedValue: Value) { self.wrappedValue = wrappedValue }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        wrappedValue = container.decodeNil() ? Value() : try container.decode(Value.self)
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(wrappedValue)
    }
}

extension OrEmpty: Sendable where Value: Sendable {}

/// The synthesized `Codable` code of the views calls these two, because they fit better than the library's generic
/// ones.
extension KeyedDecodingContainer {
    func decode<Value>(_ type: OrEmpty<Value>.Type, forKey key: Key) throws -> OrEmpty<Value> {
        OrEmpty(wrappedValue: try decodeIfPresent(Value.self, forKey: key) ?? Value())
    }
}

extension KeyedEncodingContainer {
    mutating func encode<Value>(_ field: OrEmpty<Value>, forKey key: Key) throws {
        guard Value.isWrittenWhenEmpty || field.wrappedValue != Value() else { return }
        try encode(field.wrappedValue, forKey: key)
    }
}
