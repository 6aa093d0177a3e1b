/// What an informer knows of its objects, and what each answer of the API changes in it. Pure: it owns no connection or
/// clock.
struct InformerStore<Value: Sendable>: Sendable {
    private struct Entry: Sendable {
        var uid: String
        var value: Value
    }

    private var entries: [ObjectKey: Entry] = [:]

    var count: Int { entries.count }
    var values: [Value] { entries.values.map(\.value) }

    /// A whole list takes the place of what was known: what is missing from it was removed while nobody looked.
    mutating func replace(
        with items: [KubernetesObject], transform: (KubernetesObject) -> Value?
    ) -> [InformerChange<Value>] {
        var changes: [InformerChange<Value>] = []
        var listed: Set<ObjectKey> = []
        listed.reserveCapacity(items.count)
        for item in items {
            listed.insert(ObjectKey(item))
            changes += set(item, transform: transform)
        }
        for (key, entry) in entries where !listed.contains(key) {
            entries[key] = nil
            changes.append(.removed(entry.value))
        }
        return changes
    }

    mutating func apply(_ event: WatchEvent, transform: (KubernetesObject) -> Value?) -> [InformerChange<Value>] {
        switch event.change {
        case .added, .modified: return set(event.object, transform: transform)
        case .deleted: return remove(ObjectKey(event.object))
        case .bookmark, .error: return []
        }
    }

    private mutating func set(_ object: KubernetesObject, transform: (KubernetesObject) -> Value?) -> [InformerChange<
        Value
    >] {
        let key = ObjectKey(object)
        var changes: [InformerChange<Value>] = []
        // Another object by the same name: the first one's removal was missed, or came together with this one.
        if let known = entries[key], known.uid != object.uid { changes += remove(key) }
        guard let value = transform(object) else { return changes + remove(key) }
        changes.append(.changed(old: entries[key]?.value, new: value))
        entries[key] = Entry(uid: object.uid, value: value)
        return changes
    }

    private mutating func remove(_ key: ObjectKey) -> [InformerChange<Value>] {
        entries.removeValue(forKey: key).map { [.removed($0.value)] } ?? []
    }
}

private struct ObjectKey: Hashable, Sendable {
    let namespace: String
    let name: String

    init(_ object: KubernetesObject) {
        namespace = object.namespace ?? ""
        name = object.name
    }
}

/// One change of what an informer knows.
package enum InformerChange<Value: Sendable>: Sendable {
    case changed(old: Value?, new: Value)
    case removed(Value)
}
