import MeshKubernetes

/// Ending containers, in the API's order: applications first, then sidecars from the last to the first.
extension PodWorker {
    /// Ends every container within the pod's deadline; returns when none runs.
    func stopContainers() async {
        await withDiscardingTaskGroup { group in
            for index in model.containers.indices {
                guard let process = runs[index].process else { continue }
                group.addTask { await self.end(index, process, until: self.deadline ?? .now, inTurn: true) }
            }
        }
        // One that was being made when the stop came.
        for run in runs { run.process?.signal(9) }
    }

    /// Runs the hook, sends SIGTERM, and SIGKILL when the time is up; returns when the run has ended.
    func end(_ index: Int, _ process: RunningProcess, until deadline: ContinuousClock.Instant, inTurn: Bool = false)
        async
    {
        let isFirst = !runs[index].isStopping
        guard isFirst || inTurn else { return }
        runs[index].isStopping = true
        let container = model.containers[index].spec
        let name = container.name
        if inTurn { event("Killing", "Stopping container \(name)", container: name) }
        var deadline = deadline
        if isFirst, let hook = container.lifecycle?.preStop {
            let milliseconds = PodWorker.milliseconds(until: deadline)
            if milliseconds > 0 {
                let result = await run(hook, index, process, timeoutMilliseconds: milliseconds)
                if case .failure(let problem) = result {
                    event("FailedPreStopHook", "PreStopHook failed: \(problem)", container: name, isWarning: true)
                }
            }
        }
        if inTurn && model.containers[index].role == .sidecar {
            while !process.hasEnded && mustWait(index) && PodWorker.milliseconds(until: self.deadline ?? deadline) > 0 {
                await change()
            }
        }
        if container.lifecycle?.preStop != nil || model.containers[index].role == .sidecar {
            // The hook, or waiting for the others, may have used the time up.
            let least = ContinuousClock.now.advanced(by: .seconds(PodWorker.leastGraceSeconds))
            if deadline < least && PodWorker.milliseconds(until: deadline) < PodWorker.leastGraceSeconds * 1000 {
                deadline = least
            }
        }
        process.signal(PodWorker.milliseconds(until: deadline) > 0 ? 15 : 9)
        let killer = Task { [deadline] in
            try await Task.sleep(until: deadline)
            process.signal(9)
        }
        _ = try? await process.exit()
        killer.cancel()
    }

    /// Whether a container that ends before this sidecar still runs.
    private func mustWait(_ index: Int) -> Bool {
        model.containers.indices.contains { other in
            guard other != index, let process = runs[other].process, !process.hasEnded else { return false }
            return switch model.containers[other].role {
            case .application, .initial: true
            case .sidecar: other > index
            }
        }
    }

    private static func milliseconds(until deadline: ContinuousClock.Instant) -> Int {
        let (seconds, attoseconds) = (deadline - .now).components
        guard seconds < 1 << 31 else { return Int(Int32.max) }
        return Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000)
    }
}
