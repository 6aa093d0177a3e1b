import Foundation
package import Logging
import MeshAddress

/// The platform on one machine: what `apus up` runs and `apus down` removes.
package enum LocalPlatform {
    /// Runs until SIGTERM, SIGINT or cancellation, then ends the pods and removes what it made. Objects stay in the data
    /// directory. Fails with a `PlatformError` that says what to do, having removed whatever was made until then.
    package static func run(
        _ options: PlatformOptions, log: Logger, progress: @escaping @Sendable (PlatformProgress) -> Void = { _ in }
    ) async throws {
        let clock = StepClock(report: progress)
        let programs = options.programDirectory
        let problems = await PlatformCheck.problems(programDirectory: programs)
        guard problems.isEmpty else { throw PlatformError(problems.joined(separator: "\n")) }
        clock.done(.checks, "root, ip, nft, namespaces, overlay")

        // A peer that closes a pipe is an error to handle, not the end of the platform.
        signal(SIGPIPE, SIG_IGN)
        let directory = try absolute(options.dataDirectory)
        let lock = try DataDirectoryLock(dataDirectory: directory)
        defer { withExtendedLifetime(lock) {} }
        let journal = try PlatformJournal(dataDirectory: directory)
        let leftovers = PlatformCleanup.clean(journal, dataDirectory: directory)
        if !leftovers.isEmpty { clock.done(.cleanUp, "removed what an earlier run left: \(leftovers.count) things") }
        try journal.change { $0.platform = RecordedProcess(id: getpid()) }
        let spawner = try ContainerSpawner { process in try journal.change { $0.spawner = process } }
        let stop = StopSignal(handlesSignals: options.handlesSignals)
        defer { stop.release() }
        do {
            let platform = try RunningPlatform(
                options, directory: directory, programs: programs, spawner: spawner, journal: journal, log: log,
                clock: clock)
            try await withTaskCancellationHandler {
                try await platform.run(until: stop)
            } onCancel: {
                stop.request()
            }
        } catch {
            spawner.shutDown()
            _ = PlatformCleanup.clean(journal, dataDirectory: directory)
            throw error
        }
        spawner.shutDown()
        _ = PlatformCleanup.clean(journal, dataDirectory: directory)
        clock.done(.stopped, "nothing is left but \(directory)")
    }

    private static func absolute(_ path: String) throws -> String {
        let text = path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
        let parts = text.split(separator: "/")
        // Characters that separate an overlay's options, and what would make a path two.
        guard !parts.contains(".."), !text.contains(where: { ":,\\\n".contains($0) }) else {
            throw PlatformError("data directory '\(path)': expected a path without '..', ':', ',' and backslashes")
        }
        return "/" + parts.joined(separator: "/")
    }

    // MARK: - Down

    package struct Removal: Sendable {
        /// The process that was running the platform.
        package var stoppedProcess: Int32?
        /// What was removed, in words; what the platform removed itself while stopping is not listed.
        package var removed: [String]
        /// Whether there was anything at all.
        package var wasPresent: Bool
    }

    /// Stops the platform of a data directory, or removes what a killed one left. `purge` removes the data directory too.
    package static func down(
        dataDirectory: String = PlatformOptions.standardDataDirectory, purge: Bool = false, timeoutSeconds: Int = 60
    ) async throws -> Removal {
        let directory = try absolute(dataDirectory)
        var removal = Removal(stoppedProcess: nil, removed: [], wasPresent: false)
        guard access(directory, F_OK) == 0 else { return removal }
        guard geteuid() == 0 else { throw PlatformError("apus down needs root; run it with sudo") }
        if let record = try PlatformJournal.read(PlatformJournal.path(dataDirectory: directory)) {
            removal.wasPresent = true
            if let platform = record.platform, platform.isRunning {
                kill(platform.id, SIGTERM)
                removal.stoppedProcess = platform.id
                try await waitForEnd(of: platform, timeoutSeconds: timeoutSeconds)
            }
        }
        let lock = try DataDirectoryLock(dataDirectory: directory)
        defer { withExtendedLifetime(lock) {} }
        removal.removed = PlatformCleanup.clean(try PlatformJournal(dataDirectory: directory), dataDirectory: directory)
        if purge {
            removeTree(directory)
            removal.removed.append("data directory \(directory)")
            removal.wasPresent = true
        }
        return removal
    }

    private static func waitForEnd(of process: RecordedProcess, timeoutSeconds: Int) async throws {
        let deadline = ContinuousClock.now.advanced(by: .seconds(timeoutSeconds))
        while process.isRunning {
            if ContinuousClock.now >= deadline {
                // Its containers end with it, and what it made is in its record.
                kill(process.id, SIGKILL)
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}

/// Tells each step as it is done, with the time since the one before.
final class StepClock: Sendable {
    private let report: @Sendable (PlatformProgress) -> Void
    private let last = LockedInstant()

    init(report: @escaping @Sendable (PlatformProgress) -> Void) { self.report = report }

    /// The next step begins now.
    func restart() { _ = last.advance() }

    func done(_ step: PlatformProgress.Step, _ detail: String) {
        report(PlatformProgress(step: step, detail: detail, milliseconds: last.advance()))
    }
}
