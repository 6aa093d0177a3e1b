/// What an informer knows of its objects, and what each answer of the API changes in it. Pure: it owns no connection or
/// clock.
struct InformerStore<Value: Sendable>: Sendable {
    /// An object as far as it is kept.
    struct Item: Sendable {
        fileprivate let key: ObjectKey
        fileprivate let uid: String
        /// Nil for an object that is left out.
        fileprivate let value: Value?

        init(_ object: KubernetesObject, transform: (KubernetesObject) -> Value?) {
            key = ObjectKey(object)
            uid = object.uid
            value = transform(object)
        }
    }

    private struct Entry: Sendable {
        var uid: String
        var value: Value
    }

    private var entries: [ObjectKey: Entry] = [:]

    var count: Int { entries.count }
    var values: [Value] { entries.values.map(\.value) }

    /// A whole list takes the place of what was known: what is missing from it was removed while nobody looked.
    mutating func replace(with items: [Item]) -> [InformerChange<Value>] {
        var changes: [InformerChange<Value>] = []
        var listed: Set<ObjectKey> = []
        listed.reserveCapacity(items.count)
        for item in items {
            listed.insert(item.key)
            changes += set(item)
        }
        for (key, entry) in entries where !listed.contains(key) {
            entries[key] = nil
            changes.append(.removed(entry.value))
        }
        return changes
    }

    mutating func apply(_ event: WatchEvent, transform: (KubernetesObject) -> Value?) -> [InformerChange<Value>] {
        switch event.change {
        case .added, .modified: return set(Item(event.object, transform: transform))
        case .deleted: return remove(ObjectKey(event.object))
        case .bookmark, .error: return []
        }
    }

    private mutating func set(_ item: Item) -> [InformerChange<Value>] {
        var changes: [InformerChange<Value>] = []
        // Another object by the same name: the first one's removal was missed, or came together with this one.
        if let known = entries[item.key], known.uid != item.uid { changes += remove(item.key) }
        guard let value = item.value else { return changes + remove(item.key) }
        changes.append(.changed(old: entries[item.key]?.value, new: value))
        entries[item.key] = Entry(uid: item.uid, value: value)
        return changes
    }

    private mutating func remove(_ key: ObjectKey) -> [InformerChange<Value>] {
        entries.removeValue(forKey: key).map { [.removed($0.value)] } ?? []
    }
}

fileprivate struct ObjectKey: Hashable, Sendable {
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
