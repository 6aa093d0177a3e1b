import Foundation
package import MeshKubernetes

/// The schema of a CustomResourceDefinition (`openAPIV3Schema` in its structural form): gives defaults, drops unknown fields,
/// and says which field is wrong. `format` and `x-kubernetes-validations` are not looked at.
package struct StructuralSchema: Hashable, Sendable {
    private let root: JSONValue
    /// How deep a document may nest.
    private static let depthLimit = 64

    package init(_ root: JSONValue) { self.root = root }

    /// The document with defaults and without unknown fields.
    func normalized(_ document: JSONValue) -> JSONValue {
        var result = Self.normalize(document, root, isRoot: true, depth: 0)
        for member in ["apiVersion", "kind", "metadata"] { result[member] = document[member] }
        return result
    }

    private static func normalize(_ value: JSONValue, _ schema: JSONValue, isRoot: Bool, depth: Int) -> JSONValue {
        guard depth < depthLimit else { return value }
        switch value {
        case .object(var members):
            let properties = schema["properties"]?.object ?? [:]
            let additional = schema["additionalProperties"]
            let keepsUnknown =
                schema["x-kubernetes-preserve-unknown-fields"]?.bool == true || additional?.bool == true
                || schema["x-kubernetes-embedded-resource"]?.bool == true
            for (name, member) in members {
                if isRoot, ["apiVersion", "kind", "metadata"].contains(name) { continue }
                if let property = properties[name] {
                    if member.isNull, property["default"] != nil, property["nullable"]?.bool != true {
                        members[name] = nil
                    } else {
                        members[name] = normalize(member, property, isRoot: false, depth: depth + 1)
                    }
                } else if let additional, additional.object != nil {
                    members[name] = normalize(member, additional, isRoot: false, depth: depth + 1)
                } else if !keepsUnknown {
                    members[name] = nil
                }
            }
            for (name, property) in properties where members[name] == nil {
                if let value = property["default"] {
                    members[name] = normalize(value, property, isRoot: false, depth: depth + 1)
                }
            }
            return .object(members)
        case .array(let elements):
            guard let items = schema["items"] else { return value }
            return .array(elements.map { normalize($0, items, isRoot: false, depth: depth + 1) })
        default:
            return value
        }
    }

    package func errors(in document: JSONValue) -> [FieldError] {
        var errors: [FieldError] = []
        for (name, property) in (root["properties"]?.object ?? [:]).sorted(by: { $0.key < $1.key })
        where !["apiVersion", "kind", "metadata"].contains(name) {
            if let value = document[name] { Self.check(value, property, name, 1, &errors) }
        }
        Self.checkRequired(document.object ?? [:], root, "", &errors)
        return errors
    }

    private static func check(
        _ value: JSONValue, _ schema: JSONValue, _ path: String, _ depth: Int, _ errors: inout [FieldError]
    ) {
        guard depth < depthLimit, errors.count < 32 else { return }
        if value.isNull, schema["nullable"]?.bool == true { return }
        if schema["x-kubernetes-int-or-string"]?.bool == true {
            if value.int == nil, value.string == nil {
                errors.append(.invalid(path, value, "must be an integer or a string"))
            }
            return
        }
        if let type = schema["type"]?.string, !isType(value, type) {
            errors.append(.invalid(path, value, "must be of type \(type)"))
            return
        }
        if let values = schema["enum"]?.array, !values.contains(value) {
            errors.append(
                .notSupported(
                    path, value, values.compactMap { $0.string ?? String(decoding: $0.data(), as: UTF8.self) }))
        }
        checkRange(value, schema, path, &errors)
        switch value {
        case .object(let members):
            checkRequired(members, schema, path, &errors)
            let properties = schema["properties"]?.object ?? [:]
            for (name, member) in members.sorted(by: { $0.key < $1.key }) {
                if let property = properties[name] {
                    check(member, property, "\(path).\(name)", depth + 1, &errors)
                } else if let additional = schema["additionalProperties"], additional.object != nil {
                    check(member, additional, "\(path).\(name)", depth + 1, &errors)
                }
            }
        case .array(let elements):
            guard let items = schema["items"] else { return }
            for (index, element) in elements.enumerated() {
                check(element, items, "\(path)[\(index)]", depth + 1, &errors)
            }
        default:
            return
        }
    }

    private static func checkRequired(
        _ members: [String: JSONValue], _ schema: JSONValue, _ path: String, _ errors: inout [FieldError]
    ) {
        for name in schema["required"]?.array?.compactMap(\.string) ?? [] where members[name] == nil {
            errors.append(.required(path.isEmpty ? name : "\(path).\(name)"))
        }
    }

    private static func isType(_ value: JSONValue, _ type: String) -> Bool {
        switch (type, value) {
        case ("object", .object), ("array", .array), ("string", .string), ("boolean", .bool), ("number", .int),
            ("number", .double),
            ("integer", .int):
            true
        case ("integer", .double): value.int != nil
        default: false
        }
    }

    private static func checkRange(
        _ value: JSONValue, _ schema: JSONValue, _ path: String, _ errors: inout [FieldError]
    ) {
        func number(_ value: JSONValue?) -> Double? {
            switch value {
            case .int(let value): Double(value)
            case .double(let value): value
            default: nil
            }
        }
        func limit(_ name: String) -> Int? { schema[name]?.int }
        if let actual = number(value) {
            if let least = number(schema["minimum"]) {
                let excluded = schema["exclusiveMinimum"]?.bool == true
                if excluded ? actual <= least : actual < least {
                    errors.append(
                        .invalid(path, value, "must be greater than \(excluded ? "" : "or equal to ")\(shown(least))"))
                }
            }
            if let most = number(schema["maximum"]) {
                let excluded = schema["exclusiveMaximum"]?.bool == true
                if excluded ? actual >= most : actual > most {
                    errors.append(
                        .invalid(path, value, "must be less than \(excluded ? "" : "or equal to ")\(shown(most))"))
                }
            }
        }
        if let text = value.string {
            if let least = limit("minLength"), text.unicodeScalars.count < least {
                errors.append(.invalid(path, value, "must have at least \(least) characters"))
            }
            if let most = limit("maxLength"), text.unicodeScalars.count > most {
                errors.append(
                    FieldError(
                        path: path, reason: .tooLong, message: "Too long: may not be more than \(most) characters"))
            }
            if let pattern = schema["pattern"]?.string, !SchemaPattern.matches(text, pattern) {
                errors.append(.invalid(path, value, "must match the pattern \(pattern)"))
            }
        }
        if let count = value.array?.count {
            if let least = limit("minItems"), count < least {
                errors.append(.invalid(path, value, "must have at least \(least) items"))
            }
            if let most = limit("maxItems"), count > most {
                errors.append(.invalid(path, value, "must have at most \(most) items"))
            }
        }
        if let count = value.object?.count {
            if let least = limit("minProperties"), count < least {
                errors.append(.invalid(path, value, "must have at least \(least) members"))
            }
            if let most = limit("maxProperties"), count > most {
                errors.append(.invalid(path, value, "must have at most \(most) members"))
            }
        }
    }

    private static func shown(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
    }
}

/// The `pattern` of a schema.
enum SchemaPattern {
    /// Long texts and patterns that cannot be read match nothing, so that neither can hold up the server.
    static let textLimit = 16_384

    static func matches(_ text: String, _ pattern: String) -> Bool {
        guard text.utf8.count <= textLimit, let expression = try? NSRegularExpression(pattern: pattern) else {
            return false
        }
        return expression.firstMatch(in: text, range: NSRange(text.startIndex..., in: text)) != nil
    }
}
