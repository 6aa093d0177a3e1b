import Logging
import MeshKubernetes

/// Removes objects whose owners are gone, and carries out what a deletion asked for its dependents.
///
/// It follows every kind at once and remembers who exists and who depends on whom; after a restart it reads all of it anew.
actor GarbageCollector {
    private let api: LocalAPI
    private let logger: Logger
    /// The objects that exist, by uid.
    private var living: [String: ObjectKey] = [:]
    /// Objects by the uid of an owner.
    private var dependents: [String: Set<ObjectKey>] = [:]
    private var owners: [ObjectKey: Set<String>] = [:]

    init(api: LocalAPI, logger: Logger) {
        self.api = api
        self.logger = logger
    }

    func run() async throws {
        while !Task.isCancelled {
            let watch = api.store.watchEverything()
            living = [:]
            dependents = [:]
            owners = [:]
            // Who exists has to be known completely before anybody is found to have no owner.
            for event in watch.backlog { remember(event) }
            for event in watch.backlog { await act(event) }
            let cursor = WatchCursor(StoreWatch(backlog: [], live: watch.live, end: watch.end))
            do {
                while let event = try await cursor.next() {
                    remember(event)
                    await act(event)
                }
            } catch let error as StatusError where error.code == 410 {
                logger.warning("the garbage collector fell behind and starts over")
            }
            try Task.checkCancellation()
        }
    }

    private func remember(_ event: StoreEvent) {
        let object = event.stored.object
        let key = event.stored.key
        for uid in owners.removeValue(forKey: key) ?? [] {
            dependents[uid]?.remove(key)
            if dependents[uid]?.isEmpty == true { dependents[uid] = nil }
        }
        guard event.change != .deleted else {
            if living[object.uid] == key { living[object.uid] = nil }
            return
        }
        living[object.uid] = key
        let uids = Set(references(object).compactMap { $0["uid"]?.string })
        guard !uids.isEmpty else { return }
        owners[key] = uids
        for uid in uids { dependents[uid, default: []].insert(key) }
    }

    private func act(_ event: StoreEvent) async {
        let object = event.stored.object
        if event.change == .deleted {
            for key in dependents[object.uid] ?? [] { await collect(key) }
            // An owner that waits for its dependents may be free now.
            for uid in Set(references(object).compactMap({ $0["uid"]?.string })) {
                if let key = living[uid] { await finalize(key) }
            }
            return
        }
        if object.isTerminating { await finalize(event.stored.key) }
        if !references(object).isEmpty { await collect(event.stored.key) }
    }

    private func references(_ object: KubernetesObject) -> [JSONValue] {
        object.json[path: "metadata", "ownerReferences"]?.array ?? []
    }

    /// Deletes an object that has owners but none that exists.
    private func collect(_ key: ObjectKey) async {
        guard let object = api.store.object(key)?.object, !object.isTerminating else { return }
        let all = references(object)
        let present = all.filter { reference in
            // An owner of a kind that is not served here cannot be looked for: it counts as present.
            let group =
                (reference["apiVersion"]?.string ?? "").split(separator: "/").dropLast().first.map(String.init) ?? ""
            guard api.registry.served(group: group, kindName: reference["kind"]?.string ?? "") != nil else {
                return true
            }
            return exists(reference["uid"]?.string ?? "", key, reference)
        }
        guard !all.isEmpty, present.count < all.count, let served = api.registry.served(storageName: key.resource)
        else { return }
        do {
            if present.isEmpty {
                try await api.delete(
                    served.kind, namespace: key.namespace, name: key.name, gracePeriodSeconds: nil, uid: object.uid)
            } else {
                _ = try await api.patch(
                    served.kind, namespace: key.namespace, name: key.name, subresource: nil,
                    .merge(["metadata": ["ownerReferences": .array(present), "uid": .string(object.uid)]]))
            }
        } catch {
            report(key, error)
        }
    }

    /// What was written a moment ago may not have been told yet: the storage has the last word.
    private func exists(_ uid: String, _ dependent: ObjectKey, _ reference: JSONValue) -> Bool {
        if let key = living[uid] { return api.store.object(key)?.object.uid == uid }
        let group =
            (reference["apiVersion"]?.string ?? "").split(separator: "/").dropLast().first.map(String.init) ?? ""
        guard let served = api.registry.served(group: group, kindName: reference["kind"]?.string ?? "") else {
            return true
        }
        let key = ObjectKey(served.kind, namespace: dependent.namespace, name: reference["name"]?.string ?? "")
        return api.store.object(key)?.object.uid == uid
    }

    /// Foreground deletion waits for the dependents, orphaning lets them live on without their owner.
    private func finalize(_ key: ObjectKey) async {
        guard let object = api.store.object(key)?.object, object.isTerminating,
            let served = api.registry.served(storageName: key.resource)
        else { return }
        let finalizers = object.json[path: "metadata", "finalizers"]?.array ?? []
        do {
            if finalizers.contains(.string(DeleteOptions.orphanFinalizer)) {
                for dependent in dependents[object.uid] ?? [] { try await release(dependent, from: object.uid) }
                try await remove(DeleteOptions.orphanFinalizer, finalizers, key, served)
            } else if finalizers.contains(.string(DeleteOptions.foregroundFinalizer)) {
                let remaining = (dependents[object.uid] ?? []).filter { api.store.object($0) != nil }
                for dependent in remaining {
                    guard let current = api.store.object(dependent)?.object, !current.isTerminating,
                        let kind = api.registry.served(storageName: dependent.resource)?.kind
                    else { continue }
                    _ = try? await api.delete(
                        kind, namespace: dependent.namespace, name: dependent.name,
                        DeleteOptions(uid: current.uid, propagation: .foreground))
                }
                if (dependents[object.uid] ?? []).allSatisfy({ api.store.object($0) == nil }) {
                    try await remove(DeleteOptions.foregroundFinalizer, finalizers, key, served)
                }
            }
        } catch {
            report(key, error)
        }
    }

    private func release(_ key: ObjectKey, from owner: String) async throws {
        guard let object = api.store.object(key)?.object, let served = api.registry.served(storageName: key.resource)
        else { return }
        let kept = references(object).filter { $0["uid"]?.string != owner }
        _ = try await api.patch(
            served.kind, namespace: key.namespace, name: key.name, subresource: nil,
            .merge(["metadata": ["ownerReferences": kept.isEmpty ? .null : .array(kept), "uid": .string(object.uid)]]))
    }

    private func remove(_ finalizer: String, _ finalizers: [JSONValue], _ key: ObjectKey, _ served: ServedKind)
        async throws
    {
        _ = try await api.patch(
            served.kind, namespace: key.namespace, name: key.name, subresource: nil,
            .merge(["metadata": ["finalizers": .array(finalizers.filter { $0 != .string(finalizer) })]]))
    }

    private func report(_ key: ObjectKey, _ error: any Error) {
        guard (error as? StatusError)?.code != 404 else { return }
        logger.warning("the garbage collector could not act", metadata: ["object": "\(key)", "error": "\(error)"])
    }
}
