import MeshKubernetes

/// What is known of one container of a pod, for its status. A value; the processes are elsewhere.
struct ContainerRecord: Sendable {
    enum Role: Sendable, Hashable {
        case initial
        /// A native sidecar: an init container that stays.
        case sidecar
        case application
    }

    struct End: Sendable, Hashable {
        var exitCode: Int
        var signal: Int?
        var reason: String
        var message: String
        var started: KubernetesTime?
        var finished: KubernetesTime
        var containerID: String
    }

    enum State: Sendable, Hashable {
        case waiting(reason: String, message: String)
        case running(since: KubernetesTime)
        case ended(End)
    }

    let spec: Kubernetes.Container
    let role: Role
    var state: State = .waiting(reason: "PodInitializing", message: "")
    var lastEnd: End?
    var restartCount = 0
    var containerID = ""
    /// Since the run began: the startup probe has succeeded, or there is none.
    var isStarted = false
    /// As the readiness probe says; without one, from the start.
    var isReady = false

    init(_ spec: Kubernetes.Container, _ role: Role) {
        self.spec = spec
        self.role = role
        if role == .application { state = .waiting(reason: "ContainerCreating", message: "") }
    }

    var isRunning: Bool { if case .running = state { true } else { false } }
    var end: End? { if case .ended(let end) = state { end } else { nil } }

    mutating func began(at time: KubernetesTime, containerID: String) {
        self.containerID = containerID
        state = .running(since: time)
        isStarted = spec.startupProbe == nil
        isReady = isStarted && spec.readinessProbe == nil
    }

    mutating func ended(_ exit: ProcessExit, reason: String?, message: String, at time: KubernetesTime) {
        var started: KubernetesTime?
        if case .running(let since) = state { started = since }
        var signal: Int?
        if case .signal(let number) = exit { signal = number }
        state = .ended(
            End(
                exitCode: exit.exitCode, signal: signal, reason: reason ?? (exit.exitCode == 0 ? "Completed" : "Error"),
                message: message, started: started, finished: time, containerID: containerID))
        isStarted = false
        isReady = false
    }

    /// The end becomes the last state, and the container waits to be started again.
    mutating func waitAgain(reason: String, message: String) {
        if let end { lastEnd = end }
        state = .waiting(reason: reason, message: message)
    }
}

/// A pod's status from its containers. Pure.
struct PodStatusModel: Sendable {
    var startTime: KubernetesTime
    var podAddress: String?
    var hostAddress: String
    var restartPolicy: String
    var containers: [ContainerRecord]
    /// Whether every init container has completed and every sidecar has started, once.
    var isInitialized = false
    /// Set when the pod as a whole has failed: reason and message.
    var failure: (reason: String, message: String)?
    /// Nothing will be started any more.
    var isStopped = false
    /// The platform stops; the pod goes on when it is started again.
    var isInterrupted = false

    private var applications: [ContainerRecord] { containers.filter { $0.role == .application } }

    var phase: String {
        if failure != nil && isStopped { return "Failed" }
        let ends = applications.compactMap(\.end)
        let willRestart =
            restartPolicy == "Always" || (restartPolicy == "OnFailure" && ends.contains { $0.exitCode != 0 })
        if ends.count == applications.count, !ends.isEmpty, isStopped || !willRestart, !isInterrupted {
            return ends.allSatisfy { $0.exitCode == 0 } ? "Succeeded" : "Failed"
        }
        if isStopped && !isInterrupted {
            // An init container never let the others begin, or the pod was deleted before they did.
            return "Failed"
        }
        let hasBegun = applications.contains { $0.isRunning || $0.end != nil || $0.lastEnd != nil }
        return isInitialized && hasBegun ? "Running" : "Pending"
    }

    /// The status document. `former` gives the transition times of conditions that did not change.
    func status(former: JSONValue?, now: KubernetesTime) -> JSONValue {
        let phase = phase
        let relevant = containers.filter { $0.role != .initial }
        let isDone = phase == "Succeeded" || phase == "Failed"
        let unready = relevant.filter { !$0.isReady }.map(\.spec.name)
        let isReady = unready.isEmpty && !isDone && isInitialized
        let why: (reason: String, message: String) =
            isReady
            ? ("", "")
            : isDone
                ? (phase == "Succeeded" ? "PodCompleted" : "PodFailed", "")
                : ("ContainersNotReady", "containers with unready status: [\(unready.joined(separator: " "))]")
        let incomplete = containers.filter {
            $0.role == .initial && $0.end?.exitCode != 0 || $0.role == .sidecar && !$0.isStarted
        }
        let initialization: (reason: String, message: String) =
            isInitialized || isDone
            ? (phase == "Succeeded" ? "PodCompleted" : "", "")
            : (
                "ContainersNotInitialized",
                "containers with incomplete status: [\(incomplete.map(\.spec.name).joined(separator: " "))]"
            )
        let conditions: [(String, Bool, (reason: String, message: String))] = [
            ("PodReadyToStartContainers", podAddress != nil && !isDone, ("", "")),
            ("Initialized", isInitialized || phase == "Succeeded", initialization),
            ("Ready", isReady, why),
            ("ContainersReady", isReady, why),
            ("PodScheduled", true, ("", "")),
        ]
        var status: JSONValue = [
            "phase": .string(phase), "startTime": .string("\(startTime)"), "hostIP": .string(hostAddress),
            "hostIPs": [["ip": .string(hostAddress)]], "qosClass": .string(qualityOfService),
            "conditions": .array(
                conditions.map { type, isTrue, why in condition(type, isTrue, why, former: former, now: now) }),
            "containerStatuses": .array(applications.map(containerStatus)),
            "initContainerStatuses": .array(containers.filter { $0.role != .application }.map(containerStatus)),
        ]
        // A merge patch removes a member by null.
        status["podIP"] = podAddress.map { .string($0) } ?? .null
        status["podIPs"] = podAddress.map { [["ip": .string($0)]] } ?? .null
        status["reason"] = failure.map { .string($0.reason) } ?? .null
        status["message"] = failure.map { .string($0.message) } ?? .null
        return status
    }

    private func condition(
        _ type: String, _ isTrue: Bool, _ why: (reason: String, message: String), former: JSONValue?,
        now: KubernetesTime
    ) -> JSONValue {
        let value: JSONValue = isTrue ? "True" : "False"
        let known = former?["conditions"]?.array?.first { $0["type"]?.string == type }
        var condition: JSONValue = ["type": .string(type), "status": value]
        condition["lastTransitionTime"] =
            known?["status"] == value ? known?["lastTransitionTime"] ?? .string("\(now)") : .string("\(now)")
        if !why.reason.isEmpty && !(isTrue && type != "Initialized") { condition["reason"] = .string(why.reason) }
        if !why.message.isEmpty && !isTrue { condition["message"] = .string(why.message) }
        return condition
    }

    private func containerStatus(_ record: ContainerRecord) -> JSONValue {
        var status: JSONValue = [
            "name": .string(record.spec.name), "image": .string(record.spec.image),
            "imageID": .string(record.spec.image),
            "restartCount": .int(Int64(record.restartCount)), "started": .bool(record.isStarted),
            "ready": .bool(record.role == .initial ? record.end?.exitCode == 0 : record.isReady),
            "state": state(record.state),
            "lastState": record.lastEnd.map { ["terminated": terminated($0)] } ?? [:],
        ]
        if !record.containerID.isEmpty { status["containerID"] = .string(record.containerID) }
        return status
    }

    private func state(_ state: ContainerRecord.State) -> JSONValue {
        switch state {
        case .waiting(let reason, let message):
            message.isEmpty
                ? ["waiting": ["reason": .string(reason)]]
                : ["waiting": ["reason": .string(reason), "message": .string(message)]]
        case .running(let since): ["running": ["startedAt": .string("\(since)")]]
        case .ended(let end): ["terminated": terminated(end)]
        }
    }

    private func terminated(_ end: ContainerRecord.End) -> JSONValue {
        var value: JSONValue = [
            "exitCode": .int(Int64(end.exitCode)), "reason": .string(end.reason),
            "finishedAt": .string("\(end.finished)"),
        ]
        if let signal = end.signal { value["signal"] = .int(Int64(signal)) }
        if !end.message.isEmpty { value["message"] = .string(end.message) }
        if let started = end.started { value["startedAt"] = .string("\(started)") }
        if !end.containerID.isEmpty { value["containerID"] = .string(end.containerID) }
        return value
    }

    /// `Guaranteed` when every container has limits of both kinds that equal its requests, `BestEffort` when none has any.
    private var qualityOfService: String {
        let resources = containers.map(\.spec.resources)
        if resources.allSatisfy({ $0.limits.isEmpty && $0.requests.isEmpty }) { return "BestEffort" }
        let isGuaranteed = resources.allSatisfy { resource in
            ["cpu", "memory"].allSatisfy { name in
                guard let limit = resource.limits[name] else { return false }
                return resource.requests[name].map { $0.value == limit.value } ?? true
            }
        }
        return isGuaranteed ? "Guaranteed" : "Burstable"
    }
}
