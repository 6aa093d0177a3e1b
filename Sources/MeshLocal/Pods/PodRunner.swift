import Logging
import MeshKubernetes

/// Runs the pods of this machine's one node: a worker for each, from the watch of the API.
actor PodRunner {
    private struct Entry {
        let worker: PodWorker
        var task: Task<Void, Never>
        /// The API has asked for its end.
        var isDeleting = false
    }

    private let platform: PodPlatform
    private let events: PodEvents
    private let log: Logger
    private var entries: [String: Entry] = [:]
    private var isShuttingDown = false

    init(platform: PodPlatform) {
        self.platform = platform
        log = platform.log
        events = PodEvents(api: platform.api, nodeName: platform.nodeName, log: platform.log)
    }

    /// Follows the API until cancelled. `synchronized` is called once every pod that exists is known.
    func run(synchronized: @escaping @Sendable () -> Void = {}) async {
        let follower = ResourceFollower(
            api: platform.api, kind: .pod, fieldSelector: "spec.nodeName=\(platform.nodeName)", log: log)
        await follower.run { event in
            await self.take(event)
            if case .all = event { synchronized() }
        }
    }

    private func take(_ event: ResourceFollower.Event) async {
        guard !isShuttingDown else { return }
        switch event {
        case .all(let objects):
            let present = Set(objects.map(\.uid))
            for uid in entries.keys where !present.contains(uid) { await gone(uid) }
            for object in objects { await take(object) }
            removeStrangers(present)
        case .changed(let object): await take(object)
        case .deleted(let object): await gone(object.uid)
        }
    }

    private func take(_ object: KubernetesObject) async {
        let uid = object.uid
        guard !uid.isEmpty else { return }
        if entries[uid] == nil, object.isTerminating, !hasWork(object) { return await remove(object) }
        if entries[uid] == nil { start(object) }
        guard let entry = entries[uid] else { return }
        await entry.worker.update(object)
        guard object.isTerminating else { return }
        let grace = await entry.worker.gracePeriodSeconds
        await entry.worker.stop(graceSeconds: grace)
        guard entries[uid]?.isDeleting == false else { return }
        entries[uid]?.isDeleting = true
        Task {
            await entry.task.value
            await remove(object)
        }
    }

    /// Whether a pod that is to go has to be ended first; after a restart of the platform nothing of it runs.
    private func hasWork(_ object: KubernetesObject) -> Bool { entries[object.uid] != nil }

    private func start(_ object: KubernetesObject) {
        do {
            let worker = try PodWorker(object, platform: platform, events: events)
            entries[object.uid] = Entry(worker: worker, task: Task { await worker.run() })
        } catch {
            log.error(
                "a pod is not readable",
                metadata: ["pod": "\(object.namespace ?? "")/\(object.name)", "reason": "\(error)"])
        }
    }

    /// The pod has ended; the object may go.
    private func remove(_ object: KubernetesObject) async {
        var pause = Duration.milliseconds(100)
        for _ in 0..<20 {
            do {
                try await platform.api.delete(
                    .pod, namespace: object.namespace, name: object.name, gracePeriodSeconds: 0, uid: object.uid)
                break
            } catch let error as StatusError where error.code == 404 || error.code == 409 {
                break
            } catch {
                log.warning("the ended pod was not removed", metadata: ["pod": "\(object.name)", "reason": "\(error)"])
                try? await Task.sleep(for: pause)
                pause = min(pause * 2, .seconds(5))
            }
        }
        // An object with finalizers stays, and its deletion comes as an event.
    }

    /// The object no longer exists.
    private func gone(_ uid: String) async {
        guard let entry = entries.removeValue(forKey: uid) else { return }
        await entry.worker.forget()
        Task {
            await entry.task.value
            removeTree(platform.logDirectory(uid).path)
            await events.forget(pod: uid)
        }
    }

    /// What pods left that were removed while the platform was not running.
    private func removeStrangers(_ present: Set<String>) {
        for directory in ["pods", "logs"] {
            for uid in directoryEntries("\(platform.dataDirectory)/\(directory)")
            where !present.contains(uid) && entries[uid] == nil {
                removeTree("\(platform.dataDirectory)/\(directory)/\(uid)")
            }
        }
    }

    /// Ends every pod within its own grace period and at most `graceSeconds`; the objects stay, and a later run goes on
    /// with them.
    func shutDown(graceSeconds: Int) async {
        isShuttingDown = true
        await withDiscardingTaskGroup { group in
            for entry in entries.values {
                group.addTask {
                    let own = await entry.worker.gracePeriodSeconds
                    await entry.worker.stop(graceSeconds: min(own, graceSeconds), isInterruption: true)
                    await entry.task.value
                }
            }
        }
        entries = [:]
    }

    var podCount: Int { entries.count }

    func worker(_ pod: PodReference) throws -> PodWorker {
        guard let entry = entries[pod.uid] else {
            throw StatusError(
                code: 404, reason: "NotFound", message: "pod \(pod.namespace)/\(pod.name) does not run on this node")
        }
        return entry.worker
    }
}
