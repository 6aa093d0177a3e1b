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
        /// What has changed and has not been delivered.
        var pending: Set<Key> = []
        /// The kinds of which everything is known.
        var listed: Set<String> = []
    }

    private let state = Mutex(State())
    private let changed: @Sendable (Key, Entry?) async -> Void
    private let log: Logger

    /// `changed` is called after each change, by one task, with what is known then; with nil once nothing is left of a Service.
    init(log: Logger, changed: @escaping @Sendable (Key, Entry?) async -> Void) {
        self.log = log
        self.changed = changed
    }

    /// Follows the API until cancelled. `synchronized` is called once everything that exists has been delivered.
    func run(_ api: any KubernetesAPI, synchronized: @escaping @Sendable () -> Void) async {
        let (wakes, wake) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        await withDiscardingTaskGroup { group in
            group.addTask { await self.follow(api, .service, self.services, wake) }
            group.addTask { await self.follow(api, .endpointSlice, self.slices, wake) }
            group.addTask { await self.deliver(wakes, synchronized) }
        }
    }

    private func follow(
        _ api: any KubernetesAPI, _ kind: ResourceKind,
        _ take: @escaping @Sendable (ResourceFollower.Event) -> Set<Key>,
        _ wake: AsyncStream<Void>.Continuation
    ) async {
        await ResourceFollower(api: api, kind: kind, log: log).run { event in
            let keys = take(event)
            self.state.withLock { state in
                state.pending.formUnion(keys)
                if case .all = event { state.listed.insert(kind.kind) }
            }
            wake.yield()
        }
    }

    /// Two watches change one Service's entry, so what is delivered is read when it is delivered: the last delivery tells the
    /// last state.
    private func deliver(_ wakes: AsyncStream<Void>, _ synchronized: @Sendable () -> Void) async {
        var isSynchronized = false
        for await _ in wakes {
            let (keys, isListed) = state.withLock { state in
                defer { state.pending = [] }
                return (state.pending, state.listed.count == 2)
            }
            for key in keys { await changed(key, state.withLock { $0.entries[key] }) }
            if isListed && !isSynchronized {
                isSynchronized = true
                synchronized()
            }
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
