import Yams

/// Why a manifest cannot be read, in words for its author.
package struct ManifestError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// YAML as Kubernetes' own tools read it: plain scalars by the core schema, with `0644` as an octal number, so that
/// `yes`, `no`, `on` and `off` stay texts.
package enum YAMLReader {
    /// Values in one text, aliases counted each time they are used.
    package static let valueLimit = 500_000
    package static let depthLimit = 256

    /// Every document of a text that is not empty, in order. Fails with the position of what is wrong.
    package static func documents(_ text: String) throws(ManifestError) -> [JSONValue] {
        var remaining = valueLimit
        var documents: [JSONValue] = []
        do {
            let parser = try Parser(yaml: text)
            while let root = try parser.nextRoot() {
                let value = try value(of: root, depth: 0, remaining: &remaining)
                if !value.isNull { documents.append(value) }
            }
        } catch let error as ManifestError {
            throw error
        } catch {
            throw ManifestError("not YAML: \(error)")
        }
        return documents
    }

    private static func value(of node: Node, depth: Int, remaining: inout Int) throws(ManifestError) -> JSONValue {
        remaining -= 1
        guard remaining >= 0 else { throw ManifestError("the YAML has more than \(valueLimit) values") }
        guard depth <= depthLimit else { throw ManifestError("the YAML is nested deeper than \(depthLimit)") }
        switch node {
        case .scalar(let scalar):
            return scalar.style == .plain && node.tag != Tag(.str) ? plain(scalar.string) : .string(scalar.string)
        case .sequence(let sequence):
            var elements: [JSONValue] = []
            for element in sequence { elements.append(try value(of: element, depth: depth + 1, remaining: &remaining)) }
            return .array(elements)
        case .mapping(let mapping):
            var members: [String: JSONValue] = [:]
            var merged: [String: JSONValue] = [:]
            for (key, child) in mapping {
                guard case .scalar(let name) = key else {
                    throw ManifestError("a member's name at \(position(key)) is not a text")
                }
                let child = try value(of: child, depth: depth + 1, remaining: &remaining)
                if name.string == "<<", name.style == .plain {
                    for source in child.array ?? [child] {
                        guard let object = source.object else {
                            throw ManifestError("'<<' at \(position(key)) merges something that is not an object")
                        }
                        merged.merge(object) { first, _ in first }
                    }
                } else {
                    // Names given twice are refused by the parser.
                    members[name.string] = child
                }
            }
            return .object(members.merging(merged) { own, _ in own })
        case .alias(let alias):
            throw ManifestError("the alias '\(alias.anchor.rawValue)' has no anchor")
        }
    }

    private static func position(_ node: Node) -> String {
        node.mark.map { "line \($0.line), column \($0.column)" } ?? "an unknown position"
    }

    static func plain(_ text: String) -> JSONValue {
        switch text {
        case "", "~", "null", "Null", "NULL": return .null
        case "true", "True", "TRUE": return true
        case "false", "False", "FALSE": return false
        default: break
        }
        guard let first = text.utf8.first, (48...57).contains(first) || first == 45 || first == 43 || first == 46 else {
            return .string(text)
        }
        return number(text) ?? .string(text)
    }

    private static func number(_ text: String) -> JSONValue? {
        let negative = text.hasPrefix("-")
        let digits = negative || text.hasPrefix("+") ? text.dropFirst() : text[...]
        let isDecimal = !digits.isEmpty && digits.utf8.allSatisfy { (48...57).contains($0) }
        var magnitude: UInt64?
        if digits.hasPrefix("0x") {
            magnitude = radix(digits.dropFirst(2), 16)
        } else if digits.hasPrefix("0o") {
            magnitude = radix(digits.dropFirst(2), 8)
        } else if isDecimal {
            magnitude = digits.count > 1 && digits.hasPrefix("0") ? radix(digits.dropFirst(), 8) : UInt64(digits)
        }
        if let magnitude, let value = Int64(exactly: magnitude) { return .int(negative ? -value : value) }
        let isFloat =
            digits.utf8.contains { (48...57).contains($0) }
            && digits.utf8.allSatisfy { (48...57).contains($0) || [43, 45, 46, 69, 101].contains($0) }
        guard isFloat, !isDecimal || digits.count > 18, let value = Double(text), value.isFinite else { return nil }
        return .double(value)
    }

    private static func radix(_ digits: Substring, _ radix: Int) -> UInt64? {
        guard let first = digits.first, first != "+", first != "-" else { return nil }
        return UInt64(digits, radix: radix)
    }
}
