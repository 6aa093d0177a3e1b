import CApus
import Glibc
import Synchronization

/// Why a container's process did not come to run.
struct LaunchFailure: Error, Sendable, CustomStringConvertible {
    /// The step and what it was about: `mount /data`, `execute /bin/serve`.
    var step: String
    var code: Int32

    var description: String { "\(step): \(errorText(code))" }
    var isMissingProgram: Bool { step.hasPrefix("execute ") && code == ENOENT }
}

/// The connection to the spawner process (`spawn.c`). Every process it makes ends with this connection. A spawner that was
/// killed took its containers with it; it is started again for the next one.
final class ContainerSpawner: Sendable {
    private struct State {
        var socket: Int32
        var process: RecordedProcess
        var isShutDown = false
    }

    private let executable: String
    private let state: Mutex<State>
    private let onStart: @Sendable (RecordedProcess) throws -> Void

    /// Starts `executable`, which must be a program linked with this library, once more as the spawner. `onStart` is told
    /// each process that is the spawner.
    init(executable: String = "/proc/self/exe", onStart: @escaping @Sendable (RecordedProcess) throws -> Void) throws {
        self.executable = executable
        self.onStart = onStart
        state = Mutex(try ContainerSpawner.launch(executable))
        try onStart(state.withLock { $0.process })
    }

    private static func launch(_ executable: String) throws -> State {
        var id: Int32 = 0
        let socket = apus_spawner_start(executable, &id)
        guard socket >= 0 else { throw PlatformError("cannot start the spawner \(executable): \(errorText(-socket))") }
        guard let process = RecordedProcess(id: id) else {
            close(socket)
            throw PlatformError("the spawner \(executable) ended at once")
        }
        return State(socket: socket, process: process)
    }

    /// Ends the spawner, and with it every container that still runs.
    func shutDown() {
        let process = state.withLock { state in
            ContainerSpawner.end(&state)
            state.isShutDown = true
            return state.process
        }
        ContainerSpawner.reap(process)
    }

    private static func end(_ state: inout State) {
        if state.socket >= 0 { close(state.socket) }
        state.socket = -1
    }

    private static func reap(_ process: RecordedProcess) {
        var status: Int32 = 0
        while waitpid(process.id, &status, 0) < 0 && errno == EINTR {}
    }

    deinit { state.withLock { ContainerSpawner.end(&$0) } }

    /// One request, with a new spawner when the one there was is gone.
    private func request(
        _ kind: some BinaryInteger, _ descriptors: [Int32], _ id: inout Int32, _ process: inout Int32
    ) throws -> Int32 {
        try state.withLock { state in
            let number = UInt8(truncatingIfNeeded: kind)
            let count = Int32(descriptors.count)
            let result = apus_spawner_request(state.socket, number, descriptors, count, &id, &process)
            guard [-EPIPE, -ECONNRESET, -ENOTCONN].contains(result), !state.isShutDown else { return result }
            ContainerSpawner.end(&state)
            ContainerSpawner.reap(state.process)
            state = try ContainerSpawner.launch(executable)
            try onStart(state.process)
            return apus_spawner_request(state.socket, number, descriptors, count, &id, &process)
        }
    }

    /// The descriptors stay the caller's.
    func startContainer(
        _ specification: LaunchSpecification, input: Int32, output: Int32, error: Int32, networkNamespace: Int32
    ) throws -> RunningProcess {
        try start(APUS_SPAWN_CONTAINER, specification, [input, output, error, networkNamespace])
    }

    func startInContainer(
        _ specification: LaunchSpecification, input: Int32, output: Int32, error: Int32, container: RunningProcess
    ) throws -> RunningProcess {
        try container.withDescriptor { descriptor in
            try start(APUS_SPAWN_EXEC, specification, [input, output, error, descriptor])
        }
    }

    /// Makes a network namespace and keeps it under the path that the specification names.
    func makeNetworkNamespace(_ specification: LaunchSpecification) async throws {
        let process = try start(APUS_SPAWN_NAMESPACE, specification, [])
        guard case .code(0) = try await process.exit() else {
            throw LaunchFailure(step: "network namespace", code: EIO)
        }
    }

    private func start(_ kind: some BinaryInteger, _ specification: LaunchSpecification, _ descriptors: [Int32]) throws
        -> RunningProcess
    {
        let file = apus_memory_file(specification.bytes, specification.bytes.count)
        guard file >= 0 else { throw LaunchFailure(step: "specification", code: -file) }
        defer { close(file) }
        var pair: [Int32] = [-1, -1]
        let paired = apus_control_pair(&pair)
        guard paired == 0 else { throw LaunchFailure(step: "control socket", code: -paired) }
        defer { close(pair[1]) }
        var id: Int32 = 0
        var descriptor: Int32 = -1
        let all = [file, pair[1]] + descriptors
        let result = try request(kind, all, &id, &descriptor)
        guard result == 0 else {
            close(pair[0])
            throw LaunchFailure(step: "spawn", code: -result)
        }
        return RunningProcess(control: pair[0], descriptor: descriptor, id: id)
    }
}
