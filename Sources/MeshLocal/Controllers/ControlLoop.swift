import Logging
import MeshKubernetes

/// What one controller does, without its decisions: follows some kinds, turns each change into the keys it concerns, and
/// brings each key to where it should be. Nothing is remembered between two rounds, so a restart loses nothing.
struct ControlLoop: Sendable {
    struct Trigger: Sendable {
        var kind: ResourceKind
        /// The keys that a change concerns.
        var keys: @Sendable (_ event: StoreEvent) -> [ObjectKey]
    }

    var name: String
    var api: LocalAPI
    var logger: Logger
    var workers = 2
    var triggers: [Trigger]
    /// Returns after how many milliseconds the key has to be looked at again though nothing changes.
    var reconcile: @Sendable (_ key: ObjectKey) async throws -> Int?

    /// A failed key is tried again after 50 ms, then after twice the time before, up to this.
    static let retryLimitMilliseconds = 5_000

    func run() async throws {
        let queue = WorkQueue<ObjectKey>()
        try await withTaskCancellationHandler {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for trigger in triggers { group.addTask { try await follow(trigger, queue) } }
                for _ in 0..<workers { group.addTask { try await work(queue) } }
                defer { queue.close() }
                try await group.next()
                group.cancelAll()
            }
        } onCancel: {
            queue.close()
        }
    }

    private func follow(_ trigger: Trigger, _ queue: WorkQueue<ObjectKey>) async throws {
        let served = try api.served(trigger.kind)
        while !Task.isCancelled {
            let watch = try api.openWatch(
                served, namespace: nil, ObjectFilter(labelSelector: nil, fieldSelector: nil), resourceVersion: "",
                wantsBookmarks: false)
            let cursor = WatchCursor(watch)
            do {
                while let event = try await cursor.next() {
                    for key in trigger.keys(event) { queue.add(key) }
                }
            } catch let error as StatusError where error.code == 410 {
                logger.warning("a controller fell behind and starts over", metadata: ["controller": "\(name)"])
            }
            try Task.checkCancellation()
        }
    }

    private func work(_ queue: WorkQueue<ObjectKey>) async throws {
        try await withThrowingDiscardingTaskGroup { delays in
            while let key = await queue.next() {
                var wait: Int?
                do {
                    wait = try await reconcile(key)
                    queue.done(key, failed: false)
                } catch is CancellationError {
                    return
                } catch {
                    let failures = queue.done(key, failed: true)
                    wait = Self.retryMilliseconds(failures: failures)
                    logger.debug(
                        "a controller failed and tries again",
                        metadata: [
                            "controller": "\(name)", "object": "\(key)", "error": "\(error)", "failures": "\(failures)",
                        ])
                }
                if let wait {
                    let time = ContinuousClock.now + .milliseconds(wait)
                    guard queue.setAlarm(key, at: time) else { continue }
                    delays.addTask {
                        guard (try? await Task.sleep(until: time, clock: .continuous)) != nil else { return }
                        queue.ring(key, time)
                    }
                }
            }
            delays.cancelAll()
        }
    }

    static func retryMilliseconds(failures: Int) -> Int {
        min(50 << min(max(failures - 1, 0), 10), retryLimitMilliseconds)
    }
}

extension ControlLoop.Trigger {
    /// A change concerns the object itself.
    static func itself(_ kind: ResourceKind) -> Self {
        Self(kind: kind) { [$0.stored.key] }
    }

    /// A change concerns the object's controller, when that is of a kind.
    static func controller(of kind: ResourceKind, is owner: ResourceKind) -> Self {
        Self(kind: kind) { event in
            [event.stored.object, event.previous?.object].compactMap { (object) -> ObjectKey? in
                guard let object, let controller = object.controller, controller.kind == owner.kind else { return nil }
                return ObjectKey(owner, namespace: object.namespace, name: controller.name)
            }.uniqued
        }
    }
}

extension [ObjectKey] {
    var uniqued: [ObjectKey] { Array(Set(self)) }
}
