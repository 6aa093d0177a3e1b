import Logging
import MeshAddress
import MeshKubernetes

/// One pod's life on this machine, from its network namespace to its last status.
///
/// `run` reads top to bottom: prepare, init containers and sidecars in their order, application containers, the end.
/// Whoever wants the pod gone calls `stop`, which lets `run` come to its end.
actor PodWorker {
    /// What runs a container, beside what its status tells.
    struct Run {
        var process: RunningProcess?
        var log: ContainerLog?
        /// The number of the log.
        var logRun = 0
        var probes: Task<Void, Never>?
        /// How a command is started in the same surroundings.
        var surroundings: LaunchSpecification?
        var environment: ContainerEnvironment?
        var isStopping = false
        /// Why the platform ends it, for its status.
        var stopMessage = ""
        var consecutiveRestarts = 0
        var began: ContinuousClock.Instant?
    }

    let platform: PodPlatform
    let reference: PodReference
    let events: PodEvents
    let spec: Kubernetes.PodSpec
    let log: Logger
    private(set) var metadata: Kubernetes.ObjectMeta
    var model: PodStatusModel
    var runs: [Run]
    private(set) var sandbox: PodSandbox?
    private(set) var volumes: PodVolumes?
    private var formerStatus: JSONValue?
    /// It has succeeded or failed in an earlier run of the platform.
    private let wasTerminal: Bool

    /// Nothing is started any more.
    private(set) var isStopping = false
    private var stopDeadline: ContinuousClock.Instant?
    private var life: Task<Void, Never>?
    private var stopTask: Task<Void, Never>?
    private var changeWaiters: [CheckedContinuation<Void, Never>] = []
    private var isPublishNeeded = false
    private var publishing: Task<Void, Never>?
    /// The object is gone: there is no status to write.
    private var isForgotten = false

    init(_ object: KubernetesObject, platform: PodPlatform, events: PodEvents) throws {
        let pod = try object.view(Kubernetes.Pod.self)
        self.platform = platform
        self.events = events
        reference = PodReference(namespace: pod.metadata.namespace, name: pod.metadata.name, uid: pod.metadata.uid)
        metadata = pod.metadata
        spec = pod.spec
        var log = platform.log
        log[metadataKey: "pod"] = "\(pod.metadata.namespace)/\(pod.metadata.name)"
        self.log = log
        var records = spec.initContainers.map { ContainerRecord($0, $0.isNativeSidecar ? .sidecar : .initial) }
        records += spec.containers.map { ContainerRecord($0, .application) }
        PodWorker.resume(&records, from: pod.status)
        model = PodStatusModel(
            startTime: pod.status.startTime ?? .now, podAddress: nil, hostAddress: "\(platform.network.gateway)",
            restartPolicy: spec.restartPolicy ?? "Always", containers: records)
        runs = records.map { _ in Run() }
        formerStatus = object.json["status"]
        wasTerminal = pod.status.phase == "Succeeded" || pod.status.phase == "Failed"
    }

    /// What an earlier run of the platform left in the status: counts go on, and what ran is a run that ended unseen.
    private static func resume(_ records: inout [ContainerRecord], from status: Kubernetes.PodStatus) {
        for index in records.indices {
            let known = (status.initContainerStatuses + status.containerStatuses).first {
                $0.name == records[index].spec.name
            }
            guard let known, known.restartCount > 0 || known.state != Kubernetes.ContainerState() else { continue }
            let ended = known.state.terminated ?? known.lastState.terminated
            records[index].restartCount = PodWorker.bounded(known.restartCount)
            if known.state.running != nil {
                records[index].restartCount += 1
                records[index].lastEnd = ContainerRecord.End(
                    exitCode: 137, signal: nil, reason: "ContainerStatusUnknown",
                    message: "the platform was not running",
                    started: known.state.running?.startedAt, finished: .now, containerID: known.containerID)
            } else if let ended {
                let end = ContainerRecord.End(
                    exitCode: ended.exitCode, signal: ended.signal, reason: ended.reason, message: ended.message,
                    started: ended.startedAt, finished: ended.finishedAt ?? .now, containerID: ended.containerID)
                records[index].lastEnd = end
                // What has completed is not done again.
                if records[index].role == .application, known.state.terminated != nil {
                    records[index].state = .ended(end)
                }
            }
        }
    }

    // MARK: - From outside

    /// Labels, annotations and the deletion mark are what changes in a pod's lifetime.
    func update(_ object: KubernetesObject) async {
        guard let meta = try? object.meta else { return }
        metadata = meta
        if let fields, let volumes { await volumes.update(fields) }
    }

    /// Begins; returns when the pod has ended and nothing of it is left but its object and its logs.
    func run() async {
        guard !wasTerminal, life == nil else { return }
        let life = Task { await live() }
        self.life = life
        await life.value
        await stopTask?.value
        model.isStopped = true
        await tearDown()
        await flush()
    }

    /// Ends the pod within the grace period. A later call can only shorten it.
    func stop(graceSeconds: Int, isInterruption: Bool = false) {
        let deadline = ContinuousClock.now.advanced(by: .seconds(PodWorker.bounded(graceSeconds)))
        if let stopDeadline, stopDeadline <= deadline { return }
        stopDeadline = deadline
        if isInterruption { model.isInterrupted = true }
        if stopTask == nil {
            isStopping = true
            life?.cancel()
            stopTask = Task { await stopContainers() }
        }
        // Whatever still runs then is killed, whichever step of ending it is at.
        Task {
            try? await Task.sleep(
                until: deadline.advanced(by: .seconds(graceSeconds > 0 ? PodWorker.leastGraceSeconds : 0)))
            guard self.stopDeadline == deadline else { return }
            for run in runs { run.process?.signal(9) }
            stateChanged()
        }
        stateChanged()
    }

    /// The object is gone already; nothing is written any more.
    func forget() {
        isForgotten = true
        stop(graceSeconds: 0)
    }

    var gracePeriodSeconds: Int { PodWorker.bounded(metadata.deletionGracePeriodSeconds ?? ownGraceSeconds) }
    /// As the specification has it.
    var ownGraceSeconds: Int { PodWorker.bounded(spec.terminationGracePeriodSeconds ?? 30) }

    /// A number of seconds from a document, within what clocks can be advanced by: a generation at most.
    static func bounded(_ seconds: Int) -> Int { min(max(seconds, 0), 1 << 30) }

    /// What a container gets even when its time was used up waiting for others.
    static let leastGraceSeconds = 2

    // MARK: - The life of a pod

    private func live() async {
        publish()
        guard failIfInterruptedForGood() == false, await prepare() else { return }
        let refreshing = Task { await refreshVolumes() }
        let deadline = Task { await enforceDeadline() }
        await withDiscardingTaskGroup { group in
            for index in model.containers.indices where model.containers[index].role != .application {
                guard await begin(index, &group) else { break }
            }
            if !isStopping {
                model.isInitialized = true
                publish()
                await withDiscardingTaskGroup { applications in
                    for index in model.containers.indices where model.containers[index].role == .application {
                        applications.addTask { await self.supervise(index) }
                    }
                }
            }
            // The application has ended; what served it may go.
            if !isStopping { stop(graceSeconds: ownGraceSeconds) }
        }
        refreshing.cancel()
        deadline.cancel()
    }

    /// A pod that may not restart has lost what ran when the platform went away.
    private func failIfInterruptedForGood() -> Bool {
        let lost = model.containers.contains {
            $0.lastEnd?.reason == "ContainerStatusUnknown" && $0.role == .application
        }
        guard lost, spec.restartPolicy == "Never" else { return false }
        for index in model.containers.indices where model.containers[index].end == nil {
            if let end = model.containers[index].lastEnd { model.containers[index].state = .ended(end) }
        }
        model.failure = ("Terminated", "the platform stopped while the pod ran, and its restartPolicy is Never")
        isStopping = true
        return true
    }

    /// Runs an init container to its success, or starts a sidecar and waits until it has started. False ends the pod's start.
    private func begin(_ index: Int, _ group: inout DiscardingTaskGroup) async -> Bool {
        if model.containers[index].role == .initial {
            await supervise(index)
            guard !isStopping else { return false }
            if model.containers[index].end?.exitCode == 0 { return true }
            stop(graceSeconds: ownGraceSeconds)
            return false
        }
        group.addTask { await self.supervise(index) }
        while !isStopping && !model.containers[index].isStarted { await change() }
        return !isStopping
    }

    private func prepare() async -> Bool {
        var pause = Duration.milliseconds(200)
        while !isStopping {
            do {
                if sandbox == nil {
                    let made = try await platform.network.attach()
                    sandbox = made
                    model.podAddress = "\(made.address)"
                    publish()
                }
                if volumes == nil { volumes = try await makeVolumes() }
                try await volumes?.prepare()
                return !isStopping
            } catch {
                event("FailedMount", "\(error)", isWarning: true)
                log.warning("the pod cannot be prepared", metadata: ["reason": "\(error)"])
                try? await Task.sleep(for: pause)
                pause = min(pause * 2, .seconds(10))
            }
        }
        return false
    }

    private func makeVolumes() async throws -> PodVolumes? {
        guard let fields else { return nil }
        let directory = platform.podDirectory(reference.uid)
        try makeDirectory(directory)
        try makeDirectory(platform.stageDirectory)
        let files = PodFiles(fields: fields, platform: platform)
        try writeFile(directory + "/hosts", Array(files.hosts.utf8), mode: 0o644)
        try writeFile(directory + "/hostname", Array((files.hostname + "\n").utf8), mode: 0o644)
        try writeFile(directory + "/resolv.conf", Array(files.resolvers.utf8), mode: 0o644)
        var wantsToken = spec.automountServiceAccountToken
        if wantsToken == nil {
            let account = try? await platform.api.get(
                .serviceAccount, namespace: reference.namespace, name: spec.serviceAccountName ?? "default")
            wantsToken = account?.json["automountServiceAccountToken"]?.bool
        }
        return PodVolumes(
            directory: directory, pod: reference, fields: fields,
            objects: PodObjects(api: platform.api, namespace: reference.namespace), platform: platform,
            hasServiceAccountVolume: wantsToken ?? true)
    }

    var fields: DownwardFields? {
        sandbox.map {
            DownwardFields(
                metadata: metadata, spec: spec, podAddress: $0.address, hostAddress: platform.network.gateway,
                nodeName: platform.nodeName)
        }
    }

    private func refreshVolumes() async {
        while !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(platform.volumeRefresh.periodMilliseconds))
            guard !Task.isCancelled else { return }
            do {
                try await volumes?.refresh()
            } catch {
                log.warning("a volume was not refreshed", metadata: ["reason": "\(error)"])
            }
        }
    }

    private func enforceDeadline() async {
        guard let seconds = spec.activeDeadlineSeconds else { return }
        let elapsed = KubernetesTime.now.seconds - model.startTime.seconds
        try? await Task.sleep(for: .seconds(max(0, Int64(PodWorker.bounded(seconds)) - elapsed)))
        guard !Task.isCancelled, !isStopping else { return }
        model.failure = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        event(
            "DeadlineExceeded", "the pod was active for longer than activeDeadlineSeconds (\(seconds))", isWarning: true
        )
        stop(graceSeconds: ownGraceSeconds)
    }

    private func tearDown() async {
        await volumes?.remove()
        volumes = nil
        if let sandbox { await platform.network.detach(sandbox) }
        sandbox = nil
        if model.isInterrupted { model.podAddress = nil }
        publish()
    }

    // MARK: - Changes and status

    /// Suspends until something about the pod changes.
    func change() async {
        await withCheckedContinuation { changeWaiters.append($0) }
    }

    func stateChanged() {
        let waiters = changeWaiters
        changeWaiters = []
        waiters.forEach { $0.resume() }
    }

    func event(_ reason: String, _ message: String, container: String? = nil, isWarning: Bool = false) {
        events.record(reference, container: container, isWarning: isWarning, reason, message)
    }

    /// Writes the status soon. Changes that arrive while one is being written are written together.
    func publish() {
        stateChanged()
        isPublishNeeded = true
        guard publishing == nil, !isForgotten else { return }
        publishing = Task {
            var pause = Duration.milliseconds(50)
            while isPublishNeeded && !isForgotten {
                isPublishNeeded = false
                let status = model.status(former: formerStatus, now: .now)
                guard status != formerStatus else { continue }
                do {
                    let change: JSONValue = ["metadata": ["uid": .string(reference.uid)], "status": status]
                    _ = try await platform.api.patch(
                        .pod, namespace: reference.namespace, name: reference.name, subresource: "status",
                        .merge(change))
                    formerStatus = status
                } catch let error as StatusError
                    where error.code == 404 || error.code == 409 && error.reason == "Conflict"
                {
                    isForgotten = true
                } catch {
                    log.warning("the status was not written", metadata: ["reason": "\(error)"])
                    try? await Task.sleep(for: pause)
                    pause = min(pause * 2, .seconds(5))
                    isPublishNeeded = true
                }
            }
            publishing = nil
        }
    }

    /// Returns when the last status has been written.
    private func flush() async {
        publish()
        while let publishing { await publishing.value }
    }

    /// The deadline of the pod's end; nil while it is not ending.
    var deadline: ContinuousClock.Instant? { stopDeadline }
}
