import CApus
import Glibc
import Synchronization

/// A command that was started inside a running container, with its three streams.
final class ExecSession: Sendable {
    let process: RunningProcess
    let input: PipeEnd?
    let output: PipeEnd
    /// None with a terminal, whose output is all one.
    let error: PipeEnd?

    /// Commands that run in containers at a time, of probes, hooks and people; further ones are refused.
    static let limit = 256
    private static let count = Mutex(0)

    init(
        _ launch: LaunchSpecification, in container: RunningProcess, spawner: ContainerSpawner, hasInput: Bool = false,
        hasTerminal: Bool = false
    ) throws {
        let isFree = ExecSession.count.withLock { count in
            guard count < ExecSession.limit else { return false }
            count += 1
            return true
        }
        guard isFree else {
            throw PlatformError("\(ExecSession.limit) commands run in containers already; try again later")
        }
        do {
            if hasTerminal {
                var launch = launch
                launch.takeTerminal()
                let (near, terminal) = try ExecSession.openTerminal()
                defer { _ = Glibc.close(terminal) }
                do {
                    process = try spawner.startInContainer(
                        launch, input: terminal, output: terminal, error: terminal, container: container)
                } catch {
                    _ = Glibc.close(near)
                    throw error
                }
                let forInput = fcntl(near, F_DUPFD_CLOEXEC, 3)
                output = PipeEnd(near, isForReading: true)
                error = nil
                input = forInput >= 0 ? PipeEnd(forInput, isForReading: false) : nil
            } else {
                let streams = try Streams(hasInput: hasInput)
                defer { streams.closeFarEnds() }
                do {
                    process = try spawner.startInContainer(
                        launch, input: streams.input[0], output: streams.output[1], error: streams.error[1],
                        container: container)
                } catch {
                    streams.closeNearEnds()
                    throw error
                }
                input = hasInput ? PipeEnd(streams.input[1], isForReading: false) : nil
                output = PipeEnd(streams.output[0], isForReading: true)
                error = PipeEnd(streams.error[0], isForReading: true)
            }
        } catch {
            ExecSession.count.withLock { $0 -= 1 }
            throw error
        }
    }

    deinit {
        close()
        ExecSession.count.withLock { $0 -= 1 }
    }

    func close() {
        input?.close()
        output.close()
        error?.close()
    }

    /// Waits for the command's end and reads its output, of which the first bytes are kept.
    func collect(limit: Int) async throws -> (exit: ProcessExit, output: [UInt8]) {
        async let first = ExecSession.drain(output, limit: limit)
        async let second = error.drained(limit: limit)
        do {
            let exit = try await process.exit()
            // Something it left behind may hold the pipes open for ever.
            let closer = Task {
                try await Task.sleep(for: .milliseconds(200))
                close()
            }
            let text = await first + second
            closer.cancel()
            return (exit, text)
        } catch {
            close()
            _ = await (first, second)
            throw error
        }
    }

    fileprivate static func drain(_ end: PipeEnd, limit: Int) async -> [UInt8] {
        var kept: [UInt8] = []
        while true {
            let bytes = await end.read()
            if bytes.isEmpty { return kept }
            kept += bytes.prefix(limit - kept.count)
        }
    }

    private static func openTerminal() throws -> (near: Int32, terminal: Int32) {
        var pair: [Int32] = [-1, -1]
        let result = apus_terminal(&pair)
        guard result == 0 else { throw PlatformError("no pseudo-terminal: \(errorText(-result))") }
        return (pair[0], pair[1])
    }

    private struct Streams {
        var input: [Int32] = [-1, -1]
        var output: [Int32] = [-1, -1]
        var error: [Int32] = [-1, -1]

        init(hasInput: Bool) throws {
            let hasAll =
                (hasInput ? apus_spawn_pipe(&input) == 0 : true) && apus_spawn_pipe(&output) == 0
                && apus_spawn_pipe(&error) == 0
            if !hasInput { input[0] = open("/dev/null", O_RDONLY | O_CLOEXEC) }
            guard hasAll, input[0] >= 0 else {
                closeFarEnds()
                closeNearEnds()
                throw PlatformError("no pipe for the command's streams: \(lastError())")
            }
        }

        func closeFarEnds() { [input[0], output[1], error[1]].filter { $0 >= 0 }.forEach { _ = Glibc.close($0) } }
        func closeNearEnds() { [input[1], output[0], error[0]].filter { $0 >= 0 }.forEach { _ = Glibc.close($0) } }
    }
}

extension Optional where Wrapped == PipeEnd {
    fileprivate func drained(limit: Int) async -> [UInt8] {
        guard let self else { return [] }
        return await ExecSession.drain(self, limit: limit)
    }
}
