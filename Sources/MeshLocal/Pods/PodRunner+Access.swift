import MeshAddress
import MeshKubernetes

/// Logs, commands and addresses for the API server.
extension PodRunner: PodAccess {
    package func address(of pod: PodReference) async throws -> IPAddress? {
        try await worker(pod).sandbox?.address
    }

    package func logs(of pod: PodReference, _ request: PodLogRequest) async throws -> AsyncThrowingStream<
        [UInt8], any Error
    > {
        try await worker(pod).logs(request)
    }

    package func exec(
        in pod: PodReference, _ request: PodExecRequest, standardInput: AsyncStream<[UInt8]>,
        output: @escaping @Sendable (PodExecOutput) async throws -> Void
    ) async throws -> Int {
        let session: ExecSession
        do {
            session = try await worker(pod).openSession(request)
        } catch let error as StatusError {
            throw error
        } catch {
            throw StatusError(
                code: 500, reason: "InternalError", message: "error executing command in container: \(error)")
        }
        defer { session.close() }
        return try await withTaskCancellationHandler {
            try await PodRunner.relay(session, standardInput, output)
        } onCancel: {
            session.process.signal(9)
            session.close()
        }
    }

    private static func relay(
        _ session: ExecSession, _ standardInput: AsyncStream<[UInt8]>,
        _ output: @escaping @Sendable (PodExecOutput) async throws -> Void
    ) async throws -> Int {
        let feeding = Task {
            guard let input = session.input else { return }
            for await bytes in standardInput {
                guard await input.write(bytes) else { break }
            }
            input.close()
        }
        defer { feeding.cancel() }
        let reading = Task {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await pass(session.output) { try await output(.standardOutput($0)) } }
                if let error = session.error {
                    group.addTask { try await pass(error) { try await output(.standardError($0)) } }
                }
                try await group.waitForAll()
            }
        }
        do {
            let exit = try await session.process.exit()
            // Something the command left behind may hold its output open for ever.
            let closer = Task {
                try await Task.sleep(for: .milliseconds(500))
                session.close()
            }
            defer { closer.cancel() }
            try await reading.value
            return exit.exitCode
        } catch let failure as LaunchFailure {
            session.close()
            _ = try? await reading.value
            throw StatusError(
                code: failure.isMissingProgram ? 400 : 500,
                reason: failure.isMissingProgram ? "BadRequest" : "InternalError",
                message: "error executing command in container: \(failure)")
        } catch {
            // The reader has gone; so must the command.
            session.process.signal(9)
            session.close()
            throw error
        }
    }

    private static func pass(_ end: PipeEnd, _ give: ([UInt8]) async throws -> Void) async throws {
        while true {
            let bytes = await end.read()
            if bytes.isEmpty { return }
            try await give(bytes)
        }
    }
}

extension PodWorker {
    private func index(of container: String) throws -> Int {
        guard let index = model.containers.firstIndex(where: { $0.spec.name == container }) else {
            throw StatusError(
                code: 400, reason: "BadRequest",
                message: "container \(container) is not valid for pod \(reference.name); it has "
                    + model.containers.map(\.spec.name).joined(separator: ", "))
        }
        return index
    }

    func logs(_ request: PodLogRequest) throws -> AsyncThrowingStream<[UInt8], any Error> {
        let index = try index(of: request.container)
        let record = model.containers[index]
        let directory = platform.logDirectory(reference.uid)
        let last = runs[index].log == nil ? directory.lastRun(container: request.container) ?? 0 : runs[index].logRun
        if request.previous {
            guard let log = directory.finishedLog(container: request.container, run: last - 1) else {
                throw StatusError(
                    code: 400, reason: "BadRequest",
                    message:
                        "previous terminated container \"\(request.container)\" in pod \"\(reference.name)\" not found")
            }
            return log.read(request)
        }
        if let log = runs[index].log { return log.read(request) }
        // Of a run before this platform's.
        if let log = directory.finishedLog(container: request.container, run: last) { return log.read(request) }
        var reason = "ContainerCreating"
        if case .waiting(let why, _) = record.state { reason = why }
        throw StatusError(
            code: 400, reason: "BadRequest",
            message: "container \"\(request.container)\" in pod \"\(reference.name)\" is waiting to start: \(reason)")
    }

    func openSession(_ request: PodExecRequest) throws -> ExecSession {
        let index = try index(of: request.container)
        guard model.containers[index].isRunning, let process = runs[index].process,
            var launch = runs[index].surroundings,
            var environment = runs[index].environment
        else {
            throw StatusError(
                code: 400, reason: "BadRequest",
                message: "container \(request.container) of pod \(reference.name) is not running")
        }
        guard !request.command.isEmpty else {
            throw StatusError(
                code: 400, reason: "BadRequest", message: "you must specify at least one command for the container")
        }
        if request.hasTerminal && environment["TERM"] == nil { environment["TERM"] = "xterm" }
        let directory = model.containers[index].spec.workingDir ?? "/"
        launch.process(arguments: request.command, environment: environment.variables, directory: directory)
        return try ExecSession(
            launch, in: process, spawner: platform.spawner, hasInput: request.hasStandardInput,
            hasTerminal: request.hasTerminal)
    }
}
