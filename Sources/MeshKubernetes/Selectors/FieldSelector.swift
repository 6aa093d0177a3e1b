/// Which fields an object must have: `metadata.name=a,status.phase!=Running`.
package struct FieldSelector: Hashable, Sendable {
    package struct Requirement: Hashable, Sendable {
        /// Member names joined by dots.
        package var path: String
        package var value: String
        package var isEqual: Bool

        package init(path: String, value: String, isEqual: Bool) {
            self.path = path
            self.value = value
            self.isEqual = isEqual
        }
    }

    package var requirements: [Requirement]

    package init(requirements: [Requirement] = []) { self.requirements = requirements }

    package static let requirementLimit = 64

    /// From the `fieldSelector` query, with `=`, `==` and `!=`; `\` escapes `,`, `=` and itself. An empty text matches
    /// everything.
    package init(parsing text: String) throws(SelectorError) {
        var parts: [(path: String, operation: String, value: String)] = []
        var path = ""
        var operation = ""
        var value = ""
        var characters = text.makeIterator()
        var next = characters.next()
        func finish() throws(SelectorError) {
            if path.isEmpty && operation.isEmpty && parts.isEmpty && next == nil { return }
            guard !path.isEmpty, !operation.isEmpty else {
                throw SelectorError(
                    selector: text, reason: "expected '<field>=<value>' or '<field>!=<value>' in each part")
            }
            parts.append((path, operation, value))
            guard parts.count <= FieldSelector.requirementLimit else {
                throw SelectorError(
                    selector: "\(text.prefix(64))…", reason: "more than \(FieldSelector.requirementLimit) parts")
            }
            (path, operation, value) = ("", "", "")
        }
        while let character = next {
            next = characters.next()
            if character == "," {
                try finish()
                guard next != nil else { throw SelectorError(selector: text, reason: "it ends with ','") }
            } else if operation.isEmpty, character == "=" || character == "!" {
                guard character == "=" || next == "=" else {
                    throw SelectorError(selector: text, reason: "expected '=' after '!'")
                }
                operation = String(character)
                if next == "=" { next = characters.next() }
            } else if character == "\\" {
                guard let escaped = next, !operation.isEmpty else {
                    throw SelectorError(selector: text, reason: "'\\' escapes a character of a value")
                }
                value.append(escaped)
                next = characters.next()
            } else if operation.isEmpty {
                if !character.isWhitespace { path.append(character) }
            } else {
                value.append(character)
            }
        }
        try finish()
        requirements = parts.map { Requirement(path: $0.path, value: $0.value, isEqual: $0.operation == "=") }
    }

    package func matches(_ object: JSONValue) -> Bool {
        requirements.allSatisfy { (FieldSelector.text(at: $0.path, in: object) == $0.value) == $0.isEqual }
    }

    package func matches(_ object: KubernetesObject) -> Bool { matches(object.json) }

    /// The field as text; an absent one is empty.
    private static func text(at path: String, in object: JSONValue) -> String {
        var value: JSONValue? = object
        for name in path.split(separator: ".") { value = value?[String(name)] }
        return switch value {
        case .string(let text): text
        case .int(let number): "\(number)"
        case .bool(let flag): "\(flag)"
        default: ""
        }
    }
}
