import MeshKubernetes

/// Probes and hooks of a running container.
extension PodWorker {
    private func isCurrent(_ index: Int, _ process: RunningProcess) -> Bool {
        runs[index].process === process && !process.hasEnded
    }

    /// Probes one run of a container until it ends.
    func probe(_ index: Int, _ process: RunningProcess) async {
        let container = model.containers[index].spec
        let start = ContinuousClock.now
        if let startup = container.startupProbe {
            await probe(.startup, startup, index, process, start)
            guard isCurrent(index, process), model.containers[index].isStarted else { return }
        }
        await withDiscardingTaskGroup { group in
            if let readiness = container.readinessProbe {
                group.addTask { await self.probe(.readiness, readiness, index, process, start) }
            }
            if let liveness = container.livenessProbe {
                group.addTask { await self.probe(.liveness, liveness, index, process, start) }
            }
        }
    }

    /// A startup probe ends with its verdict; the others go on with the run.
    private func probe(
        _ kind: ProbeCounter.Kind, _ probe: Kubernetes.Probe, _ index: Int, _ process: RunningProcess,
        _ start: ContinuousClock.Instant
    ) async {
        let schedule = ProbeSchedule(probe)
        try? await Task.sleep(until: start.advanced(by: .milliseconds(schedule.initialDelayMilliseconds)))
        var counter = ProbeCounter(probe)
        var isEarlySuccess = false
        if kind != .liveness && probe.exec == nil && counter.successThreshold == 1 {
            for pause in schedule.earlyPausesMilliseconds where !isEarlySuccess {
                guard isCurrent(index, process), !Task.isCancelled else { return }
                isEarlySuccess = await attempt(probe, index, process, schedule.timeoutMilliseconds).isSuccess
                if !isEarlySuccess { try? await Task.sleep(for: .milliseconds(pause)) }
            }
        }
        while isCurrent(index, process) && !Task.isCancelled {
            let result = isEarlySuccess ? .success : await attempt(probe, index, process, schedule.timeoutMilliseconds)
            isEarlySuccess = false
            guard isCurrent(index, process), !Task.isCancelled else { return }
            if case .failure(let problem) = result {
                let name = model.containers[index].spec.name
                event("Unhealthy", "\(kind.title) probe failed: \(problem)", container: name, isWarning: true)
            }
            if let verdict = counter.record(isSuccess: result.isSuccess) {
                await apply(verdict, kind, probe, index, process)
                if kind == .startup { return }
            }
            try? await Task.sleep(for: .milliseconds(schedule.periodMilliseconds))
        }
    }

    private func apply(
        _ verdict: Bool, _ kind: ProbeCounter.Kind, _ probe: Kubernetes.Probe, _ index: Int, _ process: RunningProcess
    ) async {
        let name = model.containers[index].spec.name
        switch (kind, verdict) {
        case (.startup, true):
            model.containers[index].isStarted = true
            model.containers[index].isReady = model.containers[index].spec.readinessProbe == nil
            publish()
        case (.readiness, _):
            guard model.containers[index].isReady != verdict else { return }
            model.containers[index].isReady = verdict
            publish()
        case (.liveness, true): break
        case (.startup, false), (.liveness, false):
            guard !isStopping, !runs[index].isStopping else { return }
            event("Killing", "Container \(name) failed \(kind.rawValue) probe, will be restarted", container: name)
            runs[index].stopMessage = "the \(kind.rawValue) probe failed"
            let grace = probe.terminationGracePeriodSeconds.map(PodWorker.bounded) ?? ownGraceSeconds
            await end(index, process, until: .now.advanced(by: .seconds(grace)))
        }
    }

    private func attempt(_ probe: Kubernetes.Probe, _ index: Int, _ process: RunningProcess, _ timeout: Int) async
        -> ProbeResult
    {
        if let action = probe.exec {
            return await command(action.command, index, process, timeoutMilliseconds: timeout)
        }
        if let action = probe.grpc {
            guard let client, let port = UInt16(exactly: action.port) else { return .failure("no port \(action.port)") }
            return await client.grpc(service: action.service ?? "", port: port, timeoutMilliseconds: timeout)
        }
        return await network(probe.httpGet, probe.tcpSocket, index, timeout) ?? .failure("the probe has no action")
    }

    private var client: ProbeClient? { sandbox.map { ProbeClient(podAddress: $0.address) } }

    private func network(
        _ http: Kubernetes.HTTPGetAction?, _ tcp: Kubernetes.TCPSocketAction?, _ index: Int, _ timeout: Int
    ) async -> ProbeResult? {
        guard let wanted = http?.port ?? tcp?.port, let client else { return nil }
        guard let port = port(wanted, index) else { return .failure("the container has no port '\(wanted)'") }
        if let http { return await client.httpGet(http, port: port, timeoutMilliseconds: timeout) }
        return await client.tcpSocket(host: tcp?.host, port: port, timeoutMilliseconds: timeout)
    }

    /// A number, or the name of one of the container's ports.
    private func port(_ wanted: IntOrString, _ index: Int) -> UInt16? {
        switch wanted {
        case .int(let number): return UInt16(exactly: number)
        case .string(let name):
            let ports = model.containers[index].spec.ports
            return (ports.first { $0.name == name }?.containerPort ?? Int(name)).flatMap { UInt16(exactly: $0) }
        }
    }

    // MARK: Hooks

    /// A container whose hook fails is ended, as the API has it.
    func runPostStart(_ index: Int) async {
        guard let hook = model.containers[index].spec.lifecycle?.postStart, let process = runs[index].process else {
            return
        }
        let result = await run(hook, index, process, timeoutMilliseconds: 600_000)
        guard case .failure(let problem) = result, isCurrent(index, process), !isStopping else { return }
        let name = model.containers[index].spec.name
        event("FailedPostStartHook", "PostStartHook failed: \(problem)", container: name, isWarning: true)
        runs[index].stopMessage = "the postStart hook failed: \(problem)"
        await end(index, process, until: .now.advanced(by: .seconds(ownGraceSeconds)))
    }

    func run(_ hook: Kubernetes.LifecycleHandler, _ index: Int, _ process: RunningProcess, timeoutMilliseconds: Int)
        async -> ProbeResult
    {
        if let action = hook.sleep {
            try? await Task.sleep(
                for: .milliseconds(min(PodWorker.bounded(action.seconds) * 1000, timeoutMilliseconds)))
            return .success
        }
        if let action = hook.exec {
            return await command(action.command, index, process, timeoutMilliseconds: timeoutMilliseconds)
        }
        return await network(hook.httpGet, hook.tcpSocket, index, timeoutMilliseconds) ?? .success
    }

    /// Runs a command in the container; what it wrote explains its failure.
    private func command(_ command: [String], _ index: Int, _ process: RunningProcess, timeoutMilliseconds: Int) async
        -> ProbeResult
    {
        guard let surroundings = runs[index].surroundings, let environment = runs[index].environment else {
            return .failure("not running")
        }
        let container = model.containers[index].spec
        var launch = surroundings
        launch.process(arguments: command, environment: environment.variables, directory: container.workingDir ?? "/")
        do {
            let session = try ExecSession(launch, in: process, spawner: platform.spawner)
            let timer = Task {
                try await Task.sleep(for: .milliseconds(timeoutMilliseconds))
                session.process.signal(9)
            }
            defer { timer.cancel() }
            let (exit, output) = try await session.collect(limit: 1024)
            if exit.exitCode == 0 { return .success }
            let text = String(decoding: output, as: UTF8.self).split(separator: "\n").joined(separator: " ")
            if case .signal(9) = exit {
                return .failure("command timed out or was killed: \(command.joined(separator: " ")) \(text)")
            }
            return .failure("command exited with \(exit.exitCode): \(text)")
        } catch {
            return .failure("\(error)")
        }
    }
}
