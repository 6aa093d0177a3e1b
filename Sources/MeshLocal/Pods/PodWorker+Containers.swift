import CApus
import Foundation
import MeshAddress
import MeshKubernetes

/// Starting a container, and starting it again.
extension PodWorker {
    /// Runs a container until it shall not run again.
    func supervise(_ index: Int) async {
        let record = model.containers[index]
        if record.end != nil, !shouldRestart(index) { return }
        while !isStopping {
            guard await awaitTurn(index) else { break }
            do {
                try await launch(index)
            } catch is CancellationError {
                break
            } catch {
                await launchFailed(index, error)
                if !shouldRestart(index) { return publish() }
                continue
            }
            await superviseRun(index)
            guard shouldRestart(index) else { break }
        }
        publish()
    }

    /// Whether a container that has ended is started again.
    private func shouldRestart(_ index: Int) -> Bool {
        guard !isStopping else { return false }
        let record = model.containers[index]
        let code = record.end?.exitCode
        switch record.role {
        case .sidecar: return true
        case .initial: return code != 0 && spec.restartPolicy != "Never"
        case .application:
            switch spec.restartPolicy ?? "Always" {
            case "Never": return code == nil && !record.hasRun
            case "OnFailure": return code != 0
            default: return true
            }
        }
    }

    /// Waits out the back-off. False when the pod is ending.
    private func awaitTurn(_ index: Int) async -> Bool {
        guard let end = model.containers[index].end else { return !isStopping }
        let delays = platform.restartDelays
        if let began = runs[index].began {
            let ran = ContinuousClock.now - began
            if delays.isLongRun(milliseconds: Int(clamping: ran.components.seconds) * 1000) {
                runs[index].consecutiveRestarts = 0
            }
        }
        let delay = delays.delayMilliseconds(consecutive: runs[index].consecutiveRestarts)
        runs[index].consecutiveRestarts += 1
        guard delay > 0 else { return countRestart(index) }
        let name = model.containers[index].spec.name
        let text = delay >= 1000 ? "\(delay / 1000)s" : "\(delay)ms"
        let message =
            "back-off \(text) restarting failed container=\(name) pod=\(reference.name)_\(reference.namespace)"
        // A completed application that is started again did not crash, but it waits all the same.
        model.containers[index].waitAgain(reason: "CrashLoopBackOff", message: message)
        event(
            "BackOff", "Back-off restarting container \(name), which ended with exit code \(end.exitCode)",
            container: name, isWarning: true)
        publish()
        try? await Task.sleep(for: .milliseconds(delay))
        return countRestart(index)
    }

    private func countRestart(_ index: Int) -> Bool {
        guard !isStopping else { return false }
        model.containers[index].restartCount += 1
        return true
    }

    private func launchFailed(_ index: Int, _ error: any Error) async {
        let name = model.containers[index].spec.name
        let message = "\(error)"
        if let failure = error as? LaunchFailure {
            // As Kubernetes counts it: the container was made and its process could not be.
            let code = failure.isMissingProgram ? 127 : 128
            model.containers[index].ended(.code(code), reason: "StartError", message: message, at: .now)
            event("Failed", "Error: \(message)", container: name, isWarning: true)
            return publish()
        }
        let reason = (error as? ContainerConfigError)?.reason ?? "CreateContainerError"
        model.containers[index].waitAgain(reason: reason, message: message)
        event("Failed", "Error: \(message)", container: name, isWarning: true)
        publish()
        // The cause is outside: a missing ConfigMap may come.
        try? await Task.sleep(for: .seconds(2))
    }

    /// From the start of a process to its end.
    private func superviseRun(_ index: Int) async {
        guard let process = runs[index].process else { return }
        let name = model.containers[index].spec.name
        runs[index].probes = Task { await probe(index, process) }
        publish()
        event("Started", "Started container \(name)", container: name)
        await runPostStart(index)
        let exit = (try? await process.exit()) ?? .lost
        runs[index].probes?.cancel()
        runs[index].probes = nil
        runs[index].process = nil
        model.containers[index].ended(exit, reason: nil, message: runs[index].stopMessage, at: .now)
        runs[index].isStopping = false
        runs[index].stopMessage = ""
        publish()
    }

    /// Makes the container's process. Fails with what is wrong with its specification or its command.
    private func launch(_ index: Int) async throws {
        guard let volumes, let fields, let sandbox else { throw CancellationError() }
        let container = model.containers[index].spec
        if model.containers[index].end != nil {
            model.containers[index].waitAgain(reason: "ContainerCreating", message: "")
        }
        let image = try ContainerImage(container, platform: platform)
        let environment = try await ContainerEnvironment(
            container, defaults: defaultVariables(container), fields: fields, node: platform.capacity,
            objects: PodObjects(api: platform.api, namespace: reference.namespace))
        let mounts = try await volumes.mounts(container, environment) + etcMounts(container) + image.mounts
        let identity = try ContainerIdentity(container, spec)

        var surroundings = LaunchSpecification()
        identity.append(to: &surroundings)
        var launch = LaunchSpecification()
        RootFileSystem(
            stage: platform.stageDirectory, hiddenDirectories: [platform.dataDirectory], mounts: mounts,
            isReadOnly: container.securityContext?.readOnlyRootFilesystem == true,
            workingDirectory: container.workingDir ?? "/",
            writableBytes: Int(container.resources.limits["ephemeral-storage"]?.wholeUnits ?? 1 << 30)
        ).append(to: &launch, hostMounts: HostMounts.visible(hiding: [platform.dataDirectory]))
        launch.setHostname(PodFiles(fields: fields, platform: platform).hostname)
        launch.append(surroundings)
        let command = container.command.isEmpty ? image.entrypoint : container.command.map(environment.expand)
        launch.process(
            arguments: command + container.args.map(environment.expand), environment: environment.variables,
            directory: container.workingDir ?? "/")

        let (containerLog, logRun) = try platform.logDirectory(reference.uid).makeLog(container: container.name)
        let pipes = try LogPipes()
        var isHanded = false
        defer {
            pipes.closeFarEnds()
            if !isHanded { pipes.closeNearEnds() }
        }
        let namespace = open(sandbox.path, O_RDONLY | O_CLOEXEC)
        guard namespace >= 0 else {
            throw PlatformError("the pod's network namespace \(sandbox.path) is gone: \(lastError())")
        }
        defer { close(namespace) }
        // From here to the record of the process nothing suspends: a stop either prevents it or finds it.
        guard !isStopping else { throw CancellationError() }
        let process = try platform.spawner.startContainer(
            launch, input: pipes.input, output: pipes.output[1], error: pipes.error[1], networkNamespace: namespace)
        runs[index].process = process
        runs[index].log = containerLog
        runs[index].logRun = logRun
        runs[index].surroundings = surroundings
        runs[index].environment = environment
        runs[index].began = .now
        pipes.hand(to: containerLog)
        isHanded = true
        do {
            try await process.started()
        } catch {
            runs[index].process = nil
            throw error
        }
        let id = "apus://" + (0..<4).map { _ in String(UInt64.random(in: 1 << 63 ... .max), radix: 16) }.joined()
        model.containers[index].began(at: .now, containerID: id)
    }

    private func defaultVariables(_ container: Kubernetes.Container) -> [(String, String)] {
        let api = platform.apiAddress
        return [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOSTNAME", fields?.metadata.name ?? ""),
            (
                "HOME",
                (container.securityContext?.runAsUser ?? spec.securityContext?.runAsUser ?? 0) == 0 ? "/root" : "/"
            ),
            ("KUBERNETES_SERVICE_HOST", "\(api.ip)"), ("KUBERNETES_SERVICE_PORT", "\(api.port)"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "\(api.port)"), ("KUBERNETES_PORT", "tcp://\(api)"),
        ]
    }

    /// Not where the container mounts something of its own.
    private func etcMounts(_ container: Kubernetes.Container) -> [ContainerMount] {
        ["hosts", "hostname", "resolv.conf"].compactMap { name in
            guard !container.volumeMounts.contains(where: { $0.mountPath == "/etc/\(name)" }) else { return nil }
            return ContainerMount(
                source: "\(platform.podDirectory(reference.uid))/\(name)", target: "/etc/\(name)", isFile: true,
                isReadOnly: false)
        }
    }
}

extension ContainerRecord {
    /// Whether any run of it ever began.
    var hasRun: Bool { end != nil || lastEnd != nil }
}

/// The pipes of a container's output, and nothing for its input.
private struct LogPipes {
    let input: Int32
    var output: [Int32] = [-1, -1]
    var error: [Int32] = [-1, -1]

    init() throws {
        input = open("/dev/null", O_RDONLY | O_CLOEXEC)
        guard input >= 0, apus_spawn_pipe(&output) == 0 else {
            close(input)
            throw PlatformError("no pipe for the container's output: \(lastError())")
        }
        guard apus_spawn_pipe(&error) == 0 else {
            ([input] + output).forEach { _ = close($0) }
            throw PlatformError("no pipe for the container's output: \(lastError())")
        }
    }

    func closeFarEnds() { [input, output[1], error[1]].forEach { _ = close($0) } }

    func closeNearEnds() { [output[0], error[0]].forEach { _ = close($0) } }

    func hand(to log: ContainerLog) {
        log.take(output[0], stream: "stdout")
        log.take(error[0], stream: "stderr")
    }
}
