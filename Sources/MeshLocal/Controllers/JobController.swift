import Logging
import MeshKubernetes

/// Runs the pods of a Job until enough of them have succeeded.
struct JobController: Sendable {
    var api: LocalAPI
    var logger: Logger
    /// The wait after the first failure; it doubles with each.
    var backoffMilliseconds: Int64
    private var owned: OwnedObjects { OwnedObjects(store: api.store) }

    init(api: LocalAPI, logger: Logger, backoffMilliseconds: Int64) {
        self.api = api
        self.logger = logger
        self.backoffMilliseconds = backoffMilliseconds
    }

    func run() async throws {
        try await ControlLoop(
            name: "job", api: api, logger: logger, triggers: [.itself(.job), .controller(of: .pod, is: .job)],
            reconcile: reconcile
        ).run()
    }

    private func reconcile(_ key: ObjectKey) async throws -> Int? {
        guard let job = owned.object(key), !job.isTerminating else { return nil }
        if let finished = finishedSeconds(job) { return try await expire(job, finished) }
        let now = KubernetesTime.now
        let spec = job.json["spec"]
        let pods = owned.objects(.pod, namespace: key.namespace, controlledBy: job.uid)
        let states = pods.map(PodState.init)
        let active = states.filter(\.isActive)
        let old = job.json["status"]
        let isSuspended = spec?["suspend"]?.bool == true
        let start = old?["startTime"]?.string.flatMap { KubernetesTime($0) } ?? now
        // A pod that ended and was removed has still been counted.
        func counted(_ phase: String, _ field: String) -> Int {
            max(states.count { $0.phase == phase }, min(old?[field]?.int ?? 0, Int(Int32.max)))
        }
        let succeeded = counted("Succeeded", "succeeded")
        let failed = counted("Failed", "failed")
        var input = JobPlan.Input()
        input.parallelism = spec?["parallelism"]?.int ?? 1
        input.completions = spec?["completions"]?.int
        input.backoffLimit = spec?["backoffLimit"]?.int ?? 6
        input.activeDeadlineSeconds = spec?["activeDeadlineSeconds"]?.int
        input.isSuspended = isSuspended
        input.restartsInPlace = spec?[path: "template", "spec", "restartPolicy"] == "OnFailure"
        input.active = active.count
        input.succeeded = succeeded
        input.failed = failed
        input.restarts = active.reduce(0) { $0 &+ $1.restarts }
        input.secondsSinceStart = now.seconds - start.seconds
        input.millisecondsSinceFailure = Self.lastFailure(pods).map { (now.seconds - $0) * 1_000 }
        input.backoffMilliseconds = backoffMilliseconds
        let plan = JobPlan(input)
        for pod in active.sorted(by: PodState.isDeletedBefore).prefix(plan.delete) {
            _ = try? await api.delete(
                .pod, namespace: key.namespace, name: pod.name, gracePeriodSeconds: nil, uid: pod.uid)
        }
        let template = spec?["template"]
        for _ in 0..<plan.create {
            _ = try await api.create(
                .pod,
                OwnedObjects.pod(from: template, generateName: job.name + "-", namespace: key.namespace, owner: job))
        }
        let remaining = active.count - plan.delete + plan.create
        var status: JSONValue = [
            "active": .int(Int64(remaining)), "succeeded": .int(Int64(succeeded)), "failed": .int(Int64(failed)),
            "ready": .int(Int64(plan.ending == nil ? active.count(where: \.isReady) : 0)),
        ]
        if !isSuspended { status["startTime"] = .string(start.description) }
        status["conditions"] = conditions(old, plan, isSuspended, now)
        if plan.ending == .complete { status["completionTime"] = .string(now.description) }
        if old != status {
            var changed = job
            changed.json["status"] = status
            changed.json[path: "metadata", "resourceVersion"] = nil
            _ = try await api.update(.job, changed, subresource: "status")
        }
        await report(job, plan)
        return plan.waitMilliseconds
    }

    private func conditions(_ old: JSONValue?, _ plan: JobPlan, _ isSuspended: Bool, _ now: KubernetesTime)
        -> JSONValue?
    {
        func condition(_ type: String, _ isTrue: Bool, _ reason: String, _ message: String) -> JSONValue {
            [
                "type": .string(type), "status": isTrue ? "True" : "False", "reason": .string(reason),
                "message": .string(message),
                "lastProbeTime": .string(now.description), "lastTransitionTime": .string(now.description),
            ]
        }
        switch plan.ending {
        case .complete:
            return [condition("Complete", true, "CompletionsReached", "Reached expected number of succeeded pods")]
        case .failed(let reason, let message): return [condition("Failed", true, reason, message)]
        case nil:
            let present = old?["conditions"]?.array?.first { $0["type"] == "Suspended" }
            if (present?["status"] == "True") == isSuspended { return old?["conditions"] }
            return [
                condition(
                    "Suspended", isSuspended, isSuspended ? "JobSuspended" : "JobResumed",
                    isSuspended ? "Job suspended" : "Job resumed")
            ]
        }
    }

    private func report(_ job: KubernetesObject, _ plan: JobPlan) async {
        let recorder = EventRecorder(api: api, component: "job-controller")
        switch plan.ending {
        case .complete: await recorder.record(job, isWarning: false, reason: "Completed", "Job completed")
        case .failed(let reason, let message): await recorder.record(job, isWarning: true, reason: reason, message)
        case nil: break
        }
    }

    private func finishedSeconds(_ job: KubernetesObject) -> Int64? {
        for condition in job.json[path: "status", "conditions"]?.array ?? []
        where ["Complete", "Failed"].contains(condition["type"]?.string ?? "") && condition["status"] == "True" {
            return condition["lastTransitionTime"]?.string.flatMap { KubernetesTime($0) }?.seconds ?? 0
        }
        return nil
    }

    private func expire(_ job: KubernetesObject, _ finished: Int64) async throws -> Int? {
        // What was still running when it failed has to end too.
        let pods = owned.objects(.pod, namespace: job.namespace ?? "", controlledBy: job.uid).map(PodState.init)
        for pod in pods where pod.isActive {
            _ = try? await api.delete(
                .pod, namespace: job.namespace, name: pod.name, gracePeriodSeconds: nil, uid: pod.uid)
        }
        guard let ttl = job.json[path: "spec", "ttlSecondsAfterFinished"]?.int else { return nil }
        let left = finished + Int64(ttl) - KubernetesTime.now.seconds
        guard left <= 0 else { return Int(min(left, 3_600)) * 1_000 }
        try await api.delete(.job, namespace: job.namespace, name: job.name, gracePeriodSeconds: nil, uid: job.uid)
        return nil
    }

    /// When the last pod failed, in seconds since 1970.
    private static func lastFailure(_ pods: [KubernetesObject]) -> Int64? {
        pods.filter { $0.json[path: "status", "phase"] == "Failed" }.map { pod in
            let ends = (pod.json[path: "status", "containerStatuses"]?.array ?? []).compactMap {
                $0[path: "state", "terminated", "finishedAt"]?.string.flatMap { KubernetesTime($0) }?.seconds
            }
            return ends.max() ?? PodState(pod).createdSeconds
        }.max()
    }
}
