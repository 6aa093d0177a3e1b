import Dispatch
package import Foundation
package import MeshKubernetes
import Synchronization

/// The written limits of the storage.
package struct ObjectStoreLimits: Sendable, Hashable {
    /// Changes remembered for each kind; a watch from before them ends with 410.
    package var windowEvents = 10_000
    /// The size of the remembered changes of each kind, as JSON.
    package var windowBytes = 16 << 20
    /// Changes that wait for one watcher; a watcher slower than that is ended with 410.
    package var watcherEvents = 2_000
    package var watchers = 4_000

    package init() {}
}

/// What the storage has done since it was opened.
package struct ObjectStoreStatistics: Sendable, Hashable {
    package var objects = 0
    package var watchers = 0
    package var writes = 0
    /// Transactions: fewer than writes when they come in bursts.
    package var commits = 0
    package var failedCommits = 0
    /// Watchers that were ended because they did not keep up.
    package var slowWatchers = 0
}

/// The objects of the API: in memory for reading, in SQLite for keeping, with one version counter for all kinds.
///
/// A write changes the memory at once, under a lock; a committer then keeps all writes that have gathered in one transaction,
/// tells the watchers, and only then lets the writers go on. So a watcher never sees what a crash could undo.
package final class ObjectStore: Sendable {
    private struct Pending {
        var event: StoreEvent
        var continuation: CheckedContinuation<StoredObject, any Error>
    }

    private struct State {
        var index = ObjectIndex()
        var version: Int64
        /// Everything up to here is committed and told to the watchers.
        var published: Int64
        /// Kinds without a window have had no change since the storage was opened.
        let opened: Int64
        var windows: [String: WatchWindow] = [:]
        var watchers: [String: [UInt64: StoreWatcher]] = [:]
        var watcherCount = 0
        var nextWatcher: UInt64 = 0
        var pending: [Pending] = []
        var isCommitting = false
        var statistics = ObjectStoreStatistics()
    }

    private let database: ObjectDatabase
    private let limits: ObjectStoreLimits
    private let state: Mutex<State>
    private let committer = DispatchQueue(label: "apus.storage")

    /// Opens the storage in a directory, which is made when it is missing.
    package init(directory: String, limits: ObjectStoreLimits = ObjectStoreLimits()) throws {
        database = try ObjectDatabase(directory: directory)
        self.limits = limits
        var index = ObjectIndex()
        var last = try database.setting("version").flatMap { Int64(String(decoding: $0, as: UTF8.self)) } ?? 0
        for (key, version, data) in try database.objects() {
            let object = KubernetesObject(try JSONValue(parsing: data))
            index[key] = StoredObject(key: key, version: version, object: object, data: data)
            last = max(last, version)
        }
        // A power failure can lose the last commits although somebody saw their versions: those numbers are not used again.
        let version = last + 100_000
        state = Mutex(State(index: index, version: version, published: version, opened: version))
    }

    // MARK: - Reading

    package func object(_ key: ObjectKey) -> StoredObject? {
        state.withLock { $0.index[key] }
    }

    /// The objects by namespace and name, and the version at which the list is complete.
    package func objects(of resource: String, namespace: String? = nil) -> (objects: [StoredObject], version: Int64) {
        state.withLock { ($0.index.objects(of: resource, namespace: namespace), $0.version) }
    }

    /// The kinds that have objects in a namespace.
    package func resourceNames(in namespace: String) -> [String] {
        state.withLock { $0.index.resourceNames(in: namespace) }
    }

    package var statistics: ObjectStoreStatistics {
        state.withLock { state in
            var result = state.statistics
            result.objects = state.index.count
            result.watchers = state.watcherCount
            return result
        }
    }

    // MARK: - Writing

    /// Keeps an object, with its new version in `metadata.resourceVersion`. `check` runs when nothing else can change and sees
    /// any other object.
    package func write(
        _ key: ObjectKey, _ object: KubernetesObject, expecting expectation: WriteExpectation,
        check: @Sendable (_ lookup: (ObjectKey) -> StoredObject?) throws -> Void = { _ in }
    ) async throws -> StoredObject {
        try await enqueue { state in
            let previous = state.index[key]
            try Self.verify(previous, expectation)
            try check { state.index[$0] }
            state.version += 1
            let stored = Self.stored(key, object, version: state.version)
            state.index[key] = stored
            return StoreEvent(change: previous == nil ? .added : .modified, stored: stored, previous: previous)
        }
    }

    /// Removes an object; its last state, as `object` says, goes to the watchers.
    package func remove(
        _ key: ObjectKey, last object: KubernetesObject, expecting version: Int64
    ) async throws -> StoredObject {
        try await enqueue { state in
            let previous = state.index[key]
            try Self.verify(previous, .version(version))
            state.version += 1
            let stored = Self.stored(key, object, version: state.version)
            state.index[key] = nil
            return StoreEvent(change: .deleted, stored: stored, previous: previous)
        }
    }

    private static func verify(_ previous: StoredObject?, _ expectation: WriteExpectation) throws {
        switch (expectation, previous) {
        case (.absent, .some): throw StoreError.exists
        case (.version, nil): throw StoreError.missing
        case (.version(let expected), .some(let previous)) where previous.version != expected:
            throw StoreError.conflict(current: previous.version)
        default: return
        }
    }

    private static func stored(_ key: ObjectKey, _ object: KubernetesObject, version: Int64) -> StoredObject {
        var object = object
        object.json[path: "metadata", "resourceVersion"] = .string(String(version))
        return StoredObject(key: key, version: version, object: object)
    }

    private func enqueue(_ change: (inout State) throws -> StoreEvent) async throws -> StoredObject {
        try await withCheckedThrowingContinuation { continuation in
            do {
                let mustStart = try state.withLock { state in
                    let event = try change(&state)
                    state.pending.append(Pending(event: event, continuation: continuation))
                    state.statistics.writes += 1
                    defer { state.isCommitting = true }
                    return !state.isCommitting
                }
                if mustStart { committer.async { self.commit() } }
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    /// Commits until nothing is left: what arrives during one transaction is the next one.
    private func commit() {
        while true {
            let batch: [Pending] = state.withLock { state in
                defer { state.pending = [] }
                if state.pending.isEmpty { state.isCommitting = false }
                return state.pending
            }
            guard !batch.isEmpty else { return }
            do {
                try database.commit(batch.map(\.event))
                let ended = state.withLock { publish(batch.map(\.event), &$0) }
                for watcher in ended { watcher.finish(limits: limits) }
                for pending in batch { pending.continuation.resume(returning: pending.event.stored) }
            } catch {
                for pending in undo(batch) {
                    pending.continuation.resume(throwing: StoreError.database(String(describing: error)))
                }
            }
        }
    }

    private func publish(_ events: [StoreEvent], _ state: inout State) -> [StoreWatcher] {
        var ended: [StoreWatcher] = []
        for event in events {
            let resource = event.stored.key.resource
            state.windows[resource, default: WatchWindow(floor: state.opened, limits: limits)].append(event)
            for list in [resource, Self.everything] {
                for (id, watcher) in state.watchers[list] ?? [:] where !watcher.deliver(event) {
                    state.watchers[list]?[id] = nil
                    state.watcherCount -= 1
                    state.statistics.slowWatchers += 1
                    ended.append(watcher)
                }
            }
            state.published = event.stored.version
        }
        state.statistics.commits += 1
        return ended
    }

    /// Takes back a batch that could not be kept, and all that was written on top of it meanwhile.
    private func undo(_ batch: [Pending]) -> [Pending] {
        state.withLock { state in
            let all = batch + state.pending
            state.pending = []
            for pending in all.reversed() { state.index[pending.event.stored.key] = pending.event.previous }
            state.statistics.failedCommits += 1
            return all
        }
    }

    // MARK: - Watching

    /// The place of watchers of all kinds; no kind has such a name.
    private static let everything = "*"

    /// All objects of all kinds as additions, then every change.
    func watchEverything() -> StoreWatch {
        let (stream, continuation) = AsyncThrowingStream.makeStream(
            of: StoreEvent.self, bufferingPolicy: .bufferingOldest(limits.watcherEvents * 10))
        let objects = state.withLock { state in
            let watcher = StoreWatcher(
                namespace: nil, after: state.version, wantsBookmarks: false, filter: nil, continuation: continuation)
            let id = state.nextWatcher
            state.nextWatcher += 1
            state.watchers[Self.everything, default: [:]][id] = watcher
            state.watcherCount += 1
            continuation.onTermination = { [weak self] _ in self?.watchEnded(Self.everything, id) }
            return state.index.all
        }
        return StoreWatch(
            backlog: objects.map { StoreEvent(change: .added, stored: $0) }, live: stream,
            end: { continuation.finish() })
    }

    /// The changes of a kind after a version. Throws `expired` when they are no longer known.
    package func watch(
        _ resource: String, namespace: String?, after version: Int64, wantsBookmarks: Bool,
        matching filter: (@Sendable (KubernetesObject) -> Bool)?
    ) throws -> StoreWatch {
        let (stream, continuation) = AsyncThrowingStream.makeStream(
            of: StoreEvent.self, bufferingPolicy: .bufferingOldest(limits.watcherEvents))
        let watcher = StoreWatcher(
            namespace: namespace, after: version, wantsBookmarks: wantsBookmarks, filter: filter,
            continuation: continuation)
        let backlog = try state.withLock { state in
            let floor = state.windows[resource]?.floor ?? state.opened
            guard version >= floor, version <= state.version else {
                throw StoreError.expired(oldest: floor, current: state.version)
            }
            guard state.watcherCount < limits.watchers else {
                throw StatusError(
                    code: 429, reason: "TooManyRequests",
                    message: "\(limits.watchers) watches are open, the most there may be")
            }
            let id = state.nextWatcher
            state.nextWatcher += 1
            state.watchers[resource, default: [:]][id] = watcher
            state.watcherCount += 1
            continuation.onTermination = { [weak self] _ in self?.watchEnded(resource, id) }
            return (state.windows[resource]?.events(after: version) ?? []).compactMap(watcher.view)
        }
        return StoreWatch(backlog: backlog, live: stream, end: { continuation.finish() })
    }

    /// Forgets the watcher, but not at once: a task that is being cancelled calls this with the runtime's lock of its own state held, and whoever
    /// delivers to it has the lock of this storage and needs that one.
    private func watchEnded(_ resource: String, _ id: UInt64) {
        committer.async { [weak self] in
            self?.state.withLock { state in
                if state.watchers[resource]?.removeValue(forKey: id) != nil { state.watcherCount -= 1 }
            }
        }
    }

    /// Tells every watcher that asked for bookmarks how far it is, so that it can resume there.
    package func sendBookmarks() {
        state.withLock { state in
            for (resource, watchers) in state.watchers {
                let mark = StoredObject(
                    key: ObjectKey(resource: resource, namespace: "", name: ""), version: state.published,
                    object: KubernetesObject(["metadata": ["resourceVersion": .string(String(state.published))]]))
                for watcher in watchers.values where watcher.wantsBookmarks && watcher.after <= state.published {
                    watcher.bookmark(mark)
                }
            }
        }
    }

    /// Ends every watch, so that a server that stops does not wait for them.
    package func endWatches() {
        let all = state.withLock { $0.watchers.values.flatMap(\.values) }
        for watcher in all { watcher.continuation.finish() }
    }

    // MARK: - Values

    /// A value that is made once and kept: a key, a certificate.
    package func setting(_ name: String, make: () throws -> Data) throws -> Data {
        if let kept = try database.setting(name) { return kept }
        let made = try make()
        try database.set(name, made)
        return made
    }

    package func replaceSetting(_ name: String, with value: Data) throws {
        try database.set(name, value)
    }
}

/// A watch of the storage: what happened before it was opened, then what happens.
package struct StoreWatch: Sendable {
    package let backlog: [StoreEvent]
    package let live: AsyncThrowingStream<StoreEvent, any Error>
    /// Ends the watch; its reader gets what has already happened.
    package let end: @Sendable () -> Void
}

/// One watcher. Called under the storage's lock, so its events are in order.
final class StoreWatcher: Sendable {
    let namespace: String?
    let after: Int64
    let wantsBookmarks: Bool
    let filter: (@Sendable (KubernetesObject) -> Bool)?
    let continuation: AsyncThrowingStream<StoreEvent, any Error>.Continuation

    init(
        namespace: String?, after: Int64, wantsBookmarks: Bool, filter: (@Sendable (KubernetesObject) -> Bool)?,
        continuation: AsyncThrowingStream<StoreEvent, any Error>.Continuation
    ) {
        self.namespace = namespace
        self.after = after
        self.wantsBookmarks = wantsBookmarks
        self.filter = filter
        self.continuation = continuation
    }

    /// What this watcher is told of a change: an object that begins to match its selector is new to it, one that no longer
    /// does is gone. Nil when the change is not its concern.
    func view(_ event: StoreEvent) -> StoreEvent? {
        guard event.stored.version > after, namespace == nil || namespace == event.stored.key.namespace else {
            return nil
        }
        guard let filter else { return event }
        let matched = event.previous.map { filter($0.object) } ?? false
        let matches = event.change != .deleted && filter(event.stored.object)
        let change: WatchEvent.Change
        switch (matched, matches) {
        case (false, true): change = .added
        case (true, true): change = .modified
        case (true, false): change = .deleted
        case (false, false): return nil
        }
        return StoreEvent(change: change, stored: event.stored, previous: event.previous)
    }

    /// False when it has not taken the earlier ones and must be ended.
    func deliver(_ event: StoreEvent) -> Bool {
        guard let event = view(event) else { return true }
        if case .dropped = continuation.yield(event) { return false }
        return true
    }

    /// A bookmark that finds no room is left out: the next one says more.
    func bookmark(_ mark: StoredObject) {
        continuation.yield(StoreEvent(change: .bookmark, stored: mark))
    }

    func finish(limits: ObjectStoreLimits) {
        continuation.finish(
            throwing: StatusError(
                code: 410, reason: "Expired",
                message: "the watch was more than \(limits.watcherEvents) changes behind and was ended; list again"))
    }
}
