import Dispatch
import Foundation
import Glibc
import MeshKubernetes
import Synchronization

/// What one run of a container wrote to its standard output and error: at most two files of `fileBytes` each; the older
/// one goes when the newer one is full.
final class ContainerLog: Sendable {
    static let fileBytes = 10 << 20

    private struct State {
        var file: Int32
        var size = 0
        var generation = 0
        var hasEnded = false
        var openStreams = 0
        var readers: [Int: AsyncStream<Void>.Continuation] = [:]
        var nextReader = 0
    }

    let path: String
    private let fileBytes: Int
    private let state: Mutex<State>
    private static let queue = DispatchQueue(label: "apus.logs")

    init(path: String, fileBytes: Int = ContainerLog.fileBytes) throws {
        self.path = path
        self.fileBytes = fileBytes
        let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw PlatformError("cannot write the log \(path): \(lastError())") }
        state = Mutex(State(file: file, size: Int(lseek(file, 0, SEEK_END))))
    }

    deinit { state.withLock { if $0.file >= 0 { close($0.file) } } }

    // MARK: Writing

    /// Keeps what arrives on a pipe until its end; the descriptor becomes the log's own.
    func take(_ pipe: Int32, stream: String) {
        _ = fcntl(pipe, F_SETFL, fcntl(pipe, F_GETFL) | O_NONBLOCK)
        state.withLock { $0.openStreams += 1 }
        let intake = Intake(pipe: pipe, stream: stream, log: self)
        let registration = DescriptorWatch.shared.register(pipe, isForReading: true) {
            ContainerLog.queue.async { intake.read() }
        }
        intake.begin(registration)
    }

    /// One of the two pipes of a container. Its work is done on the queue of the logs.
    private final class Intake: Sendable {
        private let pipe: Int32
        private let stream: String
        private let log: ContainerLog
        private let state = Mutex((cutter: LineCutter(), registration: DescriptorWatch.Registration?.none))

        init(pipe: Int32, stream: String, log: ContainerLog) {
            self.pipe = pipe
            self.stream = stream
            self.log = log
        }

        func begin(_ registration: DescriptorWatch.Registration) {
            state.withLock { $0.registration = registration }
            DescriptorWatch.shared.arm(registration)
        }

        func read() {
            state.withLock { state in
                guard let registration = state.registration else { return }
                var buffer = [UInt8](repeating: 0, count: 65_536)
                let count = Glibc.read(pipe, &buffer, buffer.count)
                if count < 0 && (errno == EAGAIN || errno == EINTR) {
                    DescriptorWatch.shared.arm(registration)
                    return
                }
                let time = KubernetesTime.now.microText
                var lines: [UInt8] = []
                let collect: ([UInt8], Bool) -> Void = { text, isWhole in
                    lines += StoredLogLine.encode(time: time, stream: self.stream, isWhole: isWhole, text)
                }
                if count > 0 { state.cutter.append(buffer[..<count], collect) } else { state.cutter.finish(collect) }
                if !lines.isEmpty { log.append(lines) }
                guard count <= 0 else {
                    DescriptorWatch.shared.arm(registration)
                    return
                }
                DescriptorWatch.shared.remove(registration)
                state.registration = nil
                close(pipe)
                log.streamEnded()
            }
        }
    }

    private func append(_ lines: [UInt8]) {
        state.withLock { state in
            if state.size > 0 && state.size + lines.count > fileBytes { rotate(&state) }
            guard state.file >= 0 else { return }
            // A full disk loses lines of the log; the container goes on.
            _ = write(state.file, lines, lines.count)
            state.size += lines.count
            for reader in state.readers.values { reader.yield() }
        }
    }

    private func rotate(_ state: inout State) {
        close(state.file)
        rename(path, path + ".1")
        state.file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0o600)
        state.size = 0
        state.generation += 1
    }

    private func streamEnded() {
        state.withLock { state in
            state.openStreams -= 1
            guard state.openStreams == 0 else { return }
            state.hasEnded = true
            for reader in state.readers.values { reader.yield() }
        }
    }

    /// Nobody will write any more.
    fileprivate func end() { state.withLock { $0.hasEnded = true } }

    // MARK: Reading

    /// The log in pieces that are read when they are asked for.
    func read(_ request: PodLogRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        let reader = Reader(self, request)
        return AsyncThrowingStream { await reader.next() }
    }

    fileprivate func openFiles() -> (older: Int32, current: Int32, generation: Int) {
        state.withLock { state in
            (open(path + ".1", O_RDONLY | O_CLOEXEC), open(path, O_RDONLY | O_CLOEXEC), state.generation)
        }
    }

    /// The files after `generation`; nil when that is still the current one.
    fileprivate func successor(of generation: Int) -> (file: Int32, generation: Int)? {
        state.withLock { state in
            guard state.generation != generation else { return nil }
            // Two turns since then have removed what was between.
            let isNext = state.generation == generation &+ 1
            return (
                open(isNext ? path : path + ".1", O_RDONLY | O_CLOEXEC),
                isNext ? state.generation : state.generation &- 1
            )
        }
    }

    fileprivate var hasEnded: Bool { state.withLock { $0.hasEnded } }

    fileprivate func subscribe() -> (id: Int, changes: AsyncStream<Void>) {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        return state.withLock { state in
            state.nextReader += 1
            state.readers[state.nextReader] = continuation
            return (state.nextReader, stream)
        }
    }

    fileprivate func unsubscribe(_ id: Int) { state.withLock { state in _ = state.readers.removeValue(forKey: id) } }

    /// One reader's place in the log.
    private actor Reader {
        private let log: ContainerLog
        private let request: PodLogRequest
        private let since: String?
        private let subscription: (id: Int, changes: AsyncStream<Void>)
        private var files: [Int32]
        private var generation: Int
        private var rest: [UInt8] = []
        private var isContinuation = false
        private var isTailDone = false

        init(_ log: ContainerLog, _ request: PodLogRequest) {
            self.log = log
            self.request = request
            since = request.sinceSeconds.map {
                KubernetesTime(seconds: KubernetesTime.now.seconds - Int64(PodWorker.bounded($0))).microText
            }
            subscription = log.subscribe()
            let opened = log.openFiles()
            files = [opened.older, opened.current].filter { $0 >= 0 }
            generation = opened.generation
        }

        deinit {
            files.forEach { _ = close($0) }
            log.unsubscribe(subscription.id)
        }

        func next() async -> [UInt8]? {
            while true {
                // Asked before reading: what is written after the last read is then noticed.
                let hadEnded = log.hasEnded
                let bytes = isTailDone ? readSome() : readTail()
                if !bytes.isEmpty { return bytes }
                if files.count > 1 {
                    close(files.removeFirst())
                } else if let (file, next) = log.successor(of: generation) {
                    files.forEach { _ = close($0) }
                    files = file >= 0 ? [file] : []
                    generation = next
                } else if !request.follow || hadEnded {
                    return nil
                } else {
                    var hasChanged = false
                    for await _ in subscription.changes {
                        hasChanged = true
                        break
                    }
                    // The reader has gone away.
                    if !hasChanged { return nil }
                }
            }
        }

        private func chunk() -> ArraySlice<UInt8> {
            guard let file = files.first else { return [] }
            var buffer = [UInt8](repeating: 0, count: 65_536)
            let count = Glibc.read(file, &buffer, buffer.count)
            return buffer[..<max(0, count)]
        }

        private func readSome() -> [UInt8] {
            while true {
                let chunk = chunk()
                if chunk.isEmpty { return [] }
                rest += chunk
                guard let end = rest.lastIndex(of: UInt8(ascii: "\n")) else { continue }
                let result = decode(rest[..<end])
                rest.removeSubrange(...end)
                if !result.isEmpty { return result }
            }
        }

        private func decode(_ lines: ArraySlice<UInt8>) -> [UInt8] {
            var result: [UInt8] = []
            for line in lines.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
                guard
                    let (bytes, goesOn) = StoredLogLine.decode(
                        line, timestamps: request.timestamps, since: since, isContinuation: isContinuation)
                else { continue }
                result += bytes
                isContinuation = goesOn
            }
            return result
        }

        /// The last lines of all that is kept: at most two files, so bounded.
        private func readTail() -> [UInt8] {
            isTailDone = true
            guard let count = request.tailLines else { return readSome() }
            var all: [UInt8] = []
            while true {
                let chunk = chunk()
                if !chunk.isEmpty {
                    all += chunk
                } else if files.count > 1 {
                    close(files.removeFirst())
                } else {
                    break
                }
            }
            guard let end = all.lastIndex(of: UInt8(ascii: "\n")) else { return [] }
            rest = Array(all[(end + 1)...])
            let lines = all[..<end].split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            // A line in pieces counts once.
            var start = lines.endIndex
            var wanted = max(0, count)
            while start > lines.startIndex {
                let line = lines[start - 1]
                let mark =
                    line.count > StoredLogLine.timeWidth + 8 ? line[line.startIndex + StoredLogLine.timeWidth + 8] : 0
                if mark != UInt8(ascii: "P") {
                    if wanted == 0 { break }
                    wanted -= 1
                }
                start -= 1
            }
            guard start < lines.endIndex else { return [] }
            return decode(all[lines[start].startIndex..<end])
        }
    }
}

/// The logs of a pod's containers: of each the current run and the one before it.
struct PodLogDirectory: Sendable {
    let path: String

    /// The log of the container's next run, and its number. Numbers go on over restarts of the platform.
    func makeLog(container: String) throws -> (log: ContainerLog, run: Int) {
        let directory = "\(path)/\(container)"
        try makeDirectory(directory, mode: 0o700)
        let run = (lastRun(container: container) ?? 0) + 1
        for name in directoryEntries(directory) {
            guard let number = PodLogDirectory.run(name), number < run - 1 else { continue }
            unlink("\(directory)/\(name)")
        }
        return (try ContainerLog(path: "\(directory)/\(run).log"), run)
    }

    /// The number of the last run that has a log.
    func lastRun(container: String) -> Int? {
        directoryEntries("\(path)/\(container)").compactMap(PodLogDirectory.run).max()
    }

    /// `3.log` and `3.log.1` are of the third run.
    private static func run(_ name: String) -> Int? { name.split(separator: ".").first.flatMap { Int($0) } }

    /// A log that nobody writes any more; nil when there is none.
    func finishedLog(container: String, run: Int) -> ContainerLog? {
        let file = "\(path)/\(container)/\(run).log"
        guard access(file, R_OK) == 0 else { return nil }
        let log = try? ContainerLog(path: file)
        log?.end()
        return log
    }
}
