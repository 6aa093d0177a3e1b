import DequeModule
import MeshKubernetes

/// The objects in memory, by kind, namespace and name.
struct ObjectIndex {
    private var resources: [String: [String: [String: StoredObject]]] = [:]
    private(set) var count = 0

    subscript(key: ObjectKey) -> StoredObject? {
        get { resources[key.resource]?[key.namespace]?[key.name] }
        set {
            let old = resources[key.resource, default: [:]][key.namespace, default: [:]].updateOrRemove(
                newValue, key.name)
            count += (newValue == nil ? 0 : 1) - (old == nil ? 0 : 1)
            if newValue == nil, resources[key.resource]?[key.namespace]?.isEmpty == true {
                resources[key.resource]?[key.namespace] = nil
            }
        }
    }

    /// In the order of namespace and name.
    func objects(of resource: String, namespace: String?) -> [StoredObject] {
        guard let namespaces = resources[resource] else { return [] }
        if let namespace { return (namespaces[namespace] ?? [:]).sorted { $0.key < $1.key }.map(\.value) }
        return namespaces.sorted { $0.key < $1.key }.flatMap { $0.value.sorted { $0.key < $1.key }.map(\.value) }
    }

    var all: [StoredObject] {
        resources.values.flatMap { $0.values.flatMap(\.values) }
    }

    func resourceNames(in namespace: String) -> [String] {
        resources.filter { $0.value[namespace]?.isEmpty == false }.map(\.key)
    }
}

extension Dictionary {
    fileprivate mutating func updateOrRemove(_ value: Value?, _ key: Key) -> Value? {
        if let value { updateValue(value, forKey: key) } else { removeValue(forKey: key) }
    }
}

/// The last changes of one kind: what a watcher that was away can still catch up with.
struct WatchWindow {
    /// Changes up to this version are forgotten.
    private(set) var floor: Int64
    private var events: Deque<StoreEvent> = []
    private var bytes = 0
    let limits: ObjectStoreLimits

    init(floor: Int64, limits: ObjectStoreLimits) {
        self.floor = floor
        self.limits = limits
    }

    mutating func append(_ event: StoreEvent) {
        events.append(event)
        bytes += event.stored.data.count
        while events.count > limits.windowEvents || (bytes > limits.windowBytes && events.count > 1) {
            let dropped = events.removeFirst()
            bytes -= dropped.stored.data.count
            floor = dropped.stored.version
        }
    }

    /// The changes after a version.
    func events(after version: Int64) -> [StoreEvent] {
        let start = events.firstIndex { $0.stored.version > version } ?? events.endIndex
        return Array(events[start...])
    }
}
