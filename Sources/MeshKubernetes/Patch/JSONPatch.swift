/// A list of changes to a document (RFC 6902).
package struct JSONPatch: Hashable, Sendable {
    package enum Operation: Hashable, Sendable {
        case add(JSONPointer, JSONValue)
        case remove(JSONPointer)
        case replace(JSONPointer, JSONValue)
        case move(from: JSONPointer, to: JSONPointer)
        case copy(from: JSONPointer, to: JSONPointer)
        case test(JSONPointer, JSONValue)
    }

    package var operations: [Operation]

    package init(_ operations: [Operation] = []) { self.operations = operations }

    package var isEmpty: Bool { operations.isEmpty }

    /// The most operations that a patch from a peer may have.
    package static let operationLimit = 10_000
}

/// Why a patch cannot be read or applied, in words for its author.
package struct PatchError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

// MARK: - Text

extension JSONPatch {
    package init(json: JSONValue) throws(PatchError) {
        guard let list = json.array else { throw PatchError("a JSON Patch is an array of operations") }
        guard list.count <= JSONPatch.operationLimit else {
            throw PatchError("a JSON Patch has at most \(JSONPatch.operationLimit) operations, not \(list.count)")
        }
        operations = []
        operations.reserveCapacity(list.count)
        for (index, entry) in list.enumerated() { operations.append(try Operation(json: entry, index: index)) }
    }

    package var json: JSONValue { .array(operations.map(\.json)) }
}

extension JSONPatch.Operation {
    fileprivate init(json: JSONValue, index: Int) throws(PatchError) {
        func pointer(_ field: String) throws(PatchError) -> JSONPointer {
            guard let text = json[field]?.string else { throw PatchError("operation \(index) has no '\(field)'") }
            guard let pointer = JSONPointer(parsing: text) else {
                throw PatchError(
                    "operation \(index): '\(field)' is '\(text)', expected a JSON pointer such as /spec/replicas")
            }
            return pointer
        }
        func value() throws(PatchError) -> JSONValue {
            guard let value = json["value"] else { throw PatchError("operation \(index) has no 'value'") }
            return value
        }
        switch json["op"]?.string {
        case "add": self = .add(try pointer("path"), try value())
        case "remove": self = .remove(try pointer("path"))
        case "replace": self = .replace(try pointer("path"), try value())
        case "move": self = .move(from: try pointer("from"), to: try pointer("path"))
        case "copy": self = .copy(from: try pointer("from"), to: try pointer("path"))
        case "test": self = .test(try pointer("path"), try value())
        case let other:
            throw PatchError(
                "operation \(index): 'op' is '\(other ?? "absent")', expected add, remove, replace, move, copy or test")
        }
    }

    package var json: JSONValue {
        func text(_ pointer: JSONPointer) -> JSONValue { .string(pointer.description) }
        return switch self {
        case .add(let path, let value): ["op": "add", "path": text(path), "value": value]
        case .remove(let path): ["op": "remove", "path": text(path)]
        case .replace(let path, let value): ["op": "replace", "path": text(path), "value": value]
        case .move(let from, let to): ["op": "move", "from": text(from), "path": text(to)]
        case .copy(let from, let to): ["op": "copy", "from": text(from), "path": text(to)]
        case .test(let path, let value): ["op": "test", "path": text(path), "value": value]
        }
    }
}

// MARK: - Applying

extension JSONPatch {
    /// The document after all operations; fails as a whole when one of them does (RFC 6902 §5).
    package func applied(to document: JSONValue) throws(PatchError) -> JSONValue {
        var result = document
        for operation in operations { try JSONPatch.apply(operation, to: &result) }
        return result
    }

    private static func apply(_ operation: Operation, to document: inout JSONValue) throws(PatchError) {
        switch operation {
        case .add(let path, let value):
            try document.edit(path.tokens[...], .add(value), path)
        case .remove(let path):
            try document.edit(path.tokens[...], .remove, path)
        case .replace(let path, let value):
            try document.edit(path.tokens[...], .replace(value), path)
        case .move(let from, let to):
            guard !from.isProperPrefix(of: to) else {
                throw PatchError("'\(from)' cannot be moved into itself at '\(to)'")
            }
            let value = try document.existing(from)
            guard from != to else { return }
            try document.edit(from.tokens[...], .remove, from)
            try document.edit(to.tokens[...], .add(value), to)
        case .copy(let from, let to):
            try document.edit(to.tokens[...], .add(try document.existing(from)), to)
        case .test(let path, let value):
            guard document[path] == value else {
                throw PatchError("test failed: the value at '\(path)' is not the expected one")
            }
        }
    }
}

private enum Edit {
    case add(JSONValue)
    case remove
    case replace(JSONValue)
}

extension JSONValue {
    fileprivate func existing(_ path: JSONPointer) throws(PatchError) -> JSONValue {
        guard let value = self[path] else { throw PatchError("nothing is at '\(path)'") }
        return value
    }

    fileprivate mutating func edit(_ tokens: ArraySlice<String>, _ edit: Edit, _ path: JSONPointer) throws(PatchError) {
        guard let token = tokens.first else {
            switch edit {
            case .add(let value), .replace(let value): self = value
            case .remove: throw PatchError("the whole document cannot be removed")
            }
            return
        }
        let rest = tokens.dropFirst()
        switch self {
        case .object(var members):
            self = .null
            defer { self = .object(members) }
            if rest.isEmpty {
                switch edit {
                case .add(let value):
                    members[token] = value
                case .replace(let value):
                    guard members[token] != nil else { throw PatchError("nothing is at '\(path)'") }
                    members[token] = value
                case .remove:
                    guard members.removeValue(forKey: token) != nil else { throw PatchError("nothing is at '\(path)'") }
                }
            } else {
                guard var child = members.removeValue(forKey: token) else {
                    throw PatchError("'\(path)' has no parent: '\(token)' does not exist")
                }
                try child.edit(rest, edit, path)
                members[token] = child
            }
        case .array(var elements):
            self = .null
            defer { self = .array(elements) }
            if rest.isEmpty, case .add(let value) = edit {
                guard let index = token == "-" ? elements.count : JSONValue.index(token), index <= elements.count else {
                    throw PatchError("'\(path)': '\(token)' is not a place in an array of \(elements.count)")
                }
                elements.insert(value, at: index)
                return
            }
            guard let index = JSONValue.index(token), index < elements.count else {
                throw PatchError("'\(path)': '\(token)' is not an element of an array of \(elements.count)")
            }
            if !rest.isEmpty {
                try elements[index].edit(rest, edit, path)
            } else if case .replace(let value) = edit {
                elements[index] = value
            } else {
                elements.remove(at: index)
            }
        default:
            throw PatchError("'\(path)': '\(token)' is looked for in a value that is neither an object nor an array")
        }
    }
}

// MARK: - Comparing

extension JSONPatch {
    /// The operations that make `new` of `old`: members in the order of their names, arrays compared from both ends, so
    /// that an insertion or removal in an array is one operation.
    package static func difference(from old: JSONValue, to new: JSONValue) -> JSONPatch {
        var operations: [Operation] = []
        compare(old, new, at: JSONPointer(), into: &operations)
        return JSONPatch(operations)
    }

    private static func compare(
        _ old: JSONValue, _ new: JSONValue, at path: JSONPointer, into operations: inout [Operation]
    ) {
        guard old != new else { return }
        switch (old, new) {
        case (.object(let oldMembers), .object(let newMembers)):
            for name in oldMembers.keys.sorted() where newMembers[name] == nil {
                operations.append(.remove(path.appending(name)))
            }
            for (name, value) in newMembers.sorted(by: { $0.key < $1.key }) {
                if let before = oldMembers[name] {
                    compare(before, value, at: path.appending(name), into: &operations)
                } else {
                    operations.append(.add(path.appending(name), value))
                }
            }
        case (.array(let oldElements), .array(let newElements)):
            compare(oldElements, newElements, at: path, into: &operations)
        default:
            operations.append(.replace(path, new))
        }
    }

    private static func compare(
        _ old: [JSONValue], _ new: [JSONValue], at path: JSONPointer, into operations: inout [Operation]
    ) {
        let common = min(old.count, new.count)
        var head = 0
        while head < common, old[head] == new[head] { head += 1 }
        var tail = 0
        while tail < common - head, old[old.count - 1 - tail] == new[new.count - 1 - tail] { tail += 1 }
        let oldMiddle = old.count - head - tail
        let newMiddle = new.count - head - tail
        let replaced = min(oldMiddle, newMiddle)
        for offset in 0..<replaced {
            compare(old[head + offset], new[head + offset], at: path.appending("\(head + offset)"), into: &operations)
        }
        for index in stride(from: head + oldMiddle - 1, through: head + replaced, by: -1) {
            operations.append(.remove(path.appending("\(index)")))
        }
        for index in stride(from: head + replaced, to: head + newMiddle, by: 1) {
            operations.append(.add(path.appending("\(index)"), new[index]))
        }
    }
}
