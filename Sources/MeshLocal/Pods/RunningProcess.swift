import CApus
import Glibc
import Synchronization

/// How a process ended.
enum ProcessExit: Hashable, Sendable {
    case code(Int)
    case signal(Int)
    /// The supervisor of the process went away without telling; the kernel has ended the process with it.
    case lost

    /// As a shell and the API tell it: 128 + signal.
    var exitCode: Int {
        switch self {
        case .code(let code): code
        case .signal(let signal): 128 + signal
        case .lost: 137
        }
    }

    /// From the status of waitpid(2).
    init(waitStatus status: Int32) {
        let signal = Int(status & 0x7f)
        self = signal == 0 ? .code(Int(status >> 8 & 0xff)) : .signal(signal)
    }
}

/// A process made by the spawner, seen through its control socket.
final class RunningProcess: Sendable {
    private struct State {
        var launch: Result<Void, LaunchFailure>?
        var exit: ProcessExit?
        var launchWaiters: [CheckedContinuation<Result<Void, LaunchFailure>, Never>] = []
        var exitWaiters: [CheckedContinuation<ProcessExit, Never>] = []
        var registration: DescriptorWatch.Registration?
        var isClosed = false
    }

    /// On the host.
    let id: Int32
    private let control: Int32
    private let descriptor: Int32
    private let state = Mutex(State())

    init(control: Int32, descriptor: Int32, id: Int32) {
        self.id = id
        self.control = control
        self.descriptor = descriptor
        // The registration holds this object until the process has ended, so that its end is always seen.
        let registration = DescriptorWatch.shared.register(control, isForReading: true) { self.receive() }
        state.withLock { $0.registration = registration }
        DescriptorWatch.shared.arm(registration)
    }

    private func receive() {
        while true {
            var event = apus_child_event()
            let result = apus_control_receive(control, &event)
            if result == -EAGAIN {
                if let registration = state.withLock({ $0.registration }) { DescriptorWatch.shared.arm(registration) }
                return
            }
            guard result == 1 else { return finish(.lost) }
            switch Int(event.kind) {
            case Int(APUS_CHILD_STARTED): settle(.success(()))
            case Int(APUS_CHILD_FAILED):
                let step = withUnsafeBytes(of: event.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
                settle(.failure(LaunchFailure(step: step, code: event.value)))
                return finish(.code(127))
            default: return finish(ProcessExit(waitStatus: event.value))
            }
        }
    }

    private func settle(_ result: Result<Void, LaunchFailure>) {
        let waiters = state.withLock { state in
            guard state.launch == nil else { return [CheckedContinuation<Result<Void, LaunchFailure>, Never>]() }
            state.launch = result
            defer { state.launchWaiters = [] }
            return state.launchWaiters
        }
        waiters.forEach { $0.resume(returning: result) }
    }

    private func finish(_ exit: ProcessExit) {
        settle(exit == .lost ? .failure(LaunchFailure(step: "start", code: ECHILD)) : .success(()))
        let waiters = state.withLock { state in
            guard state.exit == nil else { return [CheckedContinuation<ProcessExit, Never>]() }
            state.exit = exit
            state.isClosed = true
            if let registration = state.registration { DescriptorWatch.shared.remove(registration) }
            state.registration = nil
            close(control)
            if descriptor >= 0 { close(descriptor) }
            defer { state.exitWaiters = [] }
            return state.exitWaiters
        }
        waiters.forEach { $0.resume(returning: exit) }
    }

    /// Returns once the program runs.
    func started() async throws(LaunchFailure) {
        let result = await withCheckedContinuation { continuation in
            let known = state.withLock { state -> Result<Void, LaunchFailure>? in
                if state.launch == nil { state.launchWaiters.append(continuation) }
                return state.launch
            }
            if let known { continuation.resume(returning: known) }
        }
        try result.get()
    }

    /// How it ended; fails when it never ran. Not ended by cancelling the waiting task: kill the process.
    func exit() async throws(LaunchFailure) -> ProcessExit {
        let exit = await withCheckedContinuation { continuation in
            let known = state.withLock { state -> ProcessExit? in
                if state.exit == nil { state.exitWaiters.append(continuation) }
                return state.exit
            }
            if let known { continuation.resume(returning: known) }
        }
        if case .failure(let failure) = state.withLock({ $0.launch }) { throw failure }
        return exit
    }

    var hasEnded: Bool { state.withLock { $0.exit != nil } }

    /// SIGKILL ends everything in the container; any other signal goes to its first process.
    func signal(_ number: Int32) {
        state.withLock { state in
            guard !state.isClosed else { return }
            let result = apus_control_signal(control, number)
            // The init is ours and answers; if it does not even take the message, the kernel ends the whole container.
            if number == SIGKILL, result != 0, descriptor >= 0 { _ = apus_process_kill(descriptor, SIGKILL) }
        }
    }

    /// The process descriptor of the container's init, while it exists.
    func withDescriptor<Value>(_ body: (Int32) throws -> Value) throws -> Value {
        try state.withLock { state in
            guard !state.isClosed, state.exit == nil, descriptor >= 0 else {
                throw LaunchFailure(step: "enter the container", code: ESRCH)
            }
            return try body(descriptor)
        }
    }
}
