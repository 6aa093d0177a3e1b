/// A document laid over another: its members replace, null removes (RFC 7386).
package enum MergePatch {
    package static func apply(_ patch: JSONValue, to target: JSONValue) -> JSONValue {
        guard case .object(let changes) = patch else { return patch }
        var members = target.object ?? [:]
        for (name, change) in changes {
            if change.isNull {
                members[name] = nil
            } else {
                members[name] = apply(change, to: members[name] ?? .null)
            }
        }
        return .object(members)
    }

    /// The patch that makes `new` of `old`; a null inside `new` cannot be told and is left out.
    package static func difference(from old: JSONValue, to new: JSONValue) -> JSONValue {
        guard case .object(let oldMembers) = old, case .object(let newMembers) = new else { return new }
        var changes: [String: JSONValue] = [:]
        for name in oldMembers.keys where newMembers[name] == nil { changes[name] = .null }
        for (name, value) in newMembers where oldMembers[name] != value {
            changes[name] = oldMembers[name].map { difference(from: $0, to: value) } ?? value
        }
        return .object(changes)
    }
}

extension KubernetesPatch {
    /// The document after the patch.
    package func applied(to document: JSONValue) throws(PatchError) -> JSONValue {
        switch self {
        case .merge(let patch): MergePatch.apply(patch, to: document)
        case .json(let patch): try JSONPatch(json: patch).applied(to: document)
        }
    }
}
