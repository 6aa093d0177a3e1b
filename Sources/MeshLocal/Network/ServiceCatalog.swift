import Logging
import MeshKubernetes
import Synchronization

/// What Services and EndpointSlices say, kept for the translation of addresses and for DNS.
///
/// Watches deliver a change of one object; what depends on it is one Service, and only that one is worked out anew.
final class ServiceCatalog: Sendable {
    /// A Service and its slices, whichever exist.
    struct Entry: Sendable {
        var service: Kubernetes.Service?
        var slices: [String: Kubernetes.EndpointSlice] = [:]
    }

    struct Key: Hashable, Sendable {
        var namespace: String
        var name: String
    }

    private struct State {
        var entries: [Key: Entry] = [:]
        /// Which Service a slice belonged to when it was last seen.
        var owners: [Key: Key] = [:]
    }

    private let state = Mutex(State())
    private let changed: @Sendable (Key, Entry?) async -> Void
    private let log: Logger

    /// `changed` is called after each change, with nil once nothing is left of a Service.
    init(log: Logger, changed: @escaping @Sendable (Key, Entry?) async -> Void) {
        self.log = log
        self.changed = changed
    }

    func entry(_ key: Key) -> Entry? { state.withLock { $0.entries[key] } }

    /// Follows the API until cancelled. `synchronized` is called once everything that exists is known.
    func run(_ api: any KubernetesAPI, synchronized: @escaping @Sendable () -> Void) async {
        let remaining = Mutex(2)
        let listed: @Sendable () -> Void = {
            if remaining.withLock({ $0 -= 1; return $0 == 0 }) { synchronized() }
        }
        await withDiscardingTaskGroup { group in
            group.addTask { await self.follow(api, .service, self.services, listed) }
            group.addTask { await self.follow(api, .endpointSlice, self.slices, listed) }
        }
    }

    private func follow(
        _ api: any KubernetesAPI, _ kind: ResourceKind, _ take: @escaping @Sendable (ResourceFollower.Event) -> Set<Key>,
        _ listed: @escaping @Sendable () -> Void
    ) async {
        let isFirst = Mutex(true)
        await ResourceFollower(api: api, kind: kind, log: log).run { event in
            for key in take(event) { await self.changed(key, self.entry(key)) }
            if case .all = event, isFirst.withLock({ first in defer { first = false }; return first }) { listed() }
        }
    }

    private func services(_ event: ResourceFollower.Event) -> Set<Key> {
        state.withLock { state in
            switch event {
            case .all(let objects):
                let present = Set(objects.map(Key.init))
                var changed = present
                for (key, entry) in state.entries where entry.service != nil && !present.contains(key) {
                    set(nil, key, &state)
                    changed.insert(key)
                }
                for object in objects { set(object, Key(object), &state) }
                return changed
            case .changed(let object):
                set(object, Key(object), &state)
                return [Key(object)]
            case .deleted(let object):
                set(nil, Key(object), &state)
                return [Key(object)]
            }
        }
    }

    private func set(_ object: KubernetesObject?, _ key: Key, _ state: inout State) {
        var entry = state.entries[key] ?? Entry()
        entry.service = object.flatMap { object in
            do {
                return try object.view(Kubernetes.Service.self)
            } catch {
                log.warning("a Service is not readable", metadata: ["name": "\(object.name)", "reason": "\(error)"])
                return nil
            }
        }
        state.entries[key] = entry.service == nil && entry.slices.isEmpty ? nil : entry
    }

    private func slices(_ event: ResourceFollower.Event) -> Set<Key> {
        state.withLock { state in
            var changed: Set<Key> = []
            switch event {
            case .all(let objects):
                let present = Set(objects.map(Key.init))
                for slice in state.owners.keys where !present.contains(slice) { removeSlice(slice, &state, &changed) }
                for object in objects { setSlice(object, &state, &changed) }
            case .changed(let object): setSlice(object, &state, &changed)
            case .deleted(let object): removeSlice(Key(object), &state, &changed)
            }
            return changed
        }
    }

    private func setSlice(_ object: KubernetesObject, _ state: inout State, _ changed: inout Set<Key>) {
        let key = Key(object)
        guard let name = object.labels[Kubernetes.EndpointSlice.serviceLabel],
            let slice = try? object.view(Kubernetes.EndpointSlice.self)
        else { return removeSlice(key, &state, &changed) }
        let owner = Key(namespace: key.namespace, name: name)
        if state.owners[key] != owner { removeSlice(key, &state, &changed) }
        state.owners[key] = owner
        state.entries[owner, default: Entry()].slices[key.name] = slice
        changed.insert(owner)
    }

    private func removeSlice(_ key: Key, _ state: inout State, _ changed: inout Set<Key>) {
        guard let owner = state.owners.removeValue(forKey: key), var entry = state.entries[owner] else { return }
        entry.slices[key.name] = nil
        state.entries[owner] = entry.service == nil && entry.slices.isEmpty ? nil : entry
        changed.insert(owner)
    }
}

extension ServiceCatalog.Key {
    init(_ object: KubernetesObject) {
        self.init(namespace: object.namespace ?? "", name: object.name)
    }
}
