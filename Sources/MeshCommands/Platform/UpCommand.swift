package import ArgumentParser
import Foundation
import Logging
import MeshCore
import MeshInjector
import MeshKubernetes
import MeshLocal
import Synchronization

package struct UpCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "up", abstract: "Run the platform and the mesh on this machine.",
        discussion:
            "Objects are kept in the data directory and are there again the next time. Ctrl-C, or 'apus down', ends it and leaves nothing behind."
    )

    @Option(help: ArgumentHelp("Where the platform keeps its state.", valueName: "directory"))
    var dataDir: String = ProcessInfo.processInfo.environment["APUS_DATA_DIR"] ?? PlatformOptions.defaultDataDirectory

    @Option(name: .shortAndLong, help: "Apply these manifests once the mesh is ready; may be repeated.")
    var filename: [String] = []

    @Flag(help: "Return once the mesh is ready, and leave it running.")
    var detach = false

    @Option(help: "The bridge that pods are joined by; several platforms on one machine have one each.")
    var bridge: String = "apus0"

    @Option(help: "Where pods get their addresses.")
    var podSubnet: String = "10.97.0.0/16"

    @Option(help: "Where Services get their addresses.")
    var serviceSubnet: String = "10.96.0.0/16"

    @Option(help: "The API server's port on loopback.")
    var apiPort: UInt16 = 6443

    @Option(help: "What becomes of inbound connections without a mesh identity: strict (refused) or permissive.")
    var plaintext: String = MeshSettings.PlaintextPolicy.strict.rawValue

    @Option(help: "What becomes of connections to addresses the mesh does not know: allow or deny.")
    var unknownDestinations: String = MeshSettings.UnknownDestinationPolicy.allow.rawValue

    @Option(help: "The mesh's trust domain.")
    var trustDomain: String = "cluster.local"

    package init() {}

    package mutating func validate() throws {
        guard MeshSettings.PlaintextPolicy(rawValue: plaintext) != nil else {
            throw ValidationError("--plaintext is '\(plaintext)': expected strict or permissive")
        }
        guard MeshSettings.UnknownDestinationPolicy(rawValue: unknownDestinations) != nil else {
            throw ValidationError("--unknown-destinations is '\(unknownDestinations)': expected allow or deny")
        }
    }

    package mutating func run() async throws {
        if detach { return try await DetachedPlatform(dataDirectory: dataDir).start(arguments: CommandLine.arguments) }
        let manifests = try Manifests.load(filename)
        let mesh = MeshSettings(
            trustDomain: trustDomain, plaintext: MeshSettings.PlaintextPolicy(rawValue: plaintext) ?? .strict,
            unknownDestinations: MeshSettings.UnknownDestinationPolicy(rawValue: unknownDestinations) ?? .allow)
        var network = NetworkSettings()
        network.bridge = bridge
        network.podSubnet = podSubnet
        network.serviceSubnet = serviceSubnet
        let options = MeshLocal.PlatformOptions(
            dataDirectory: dataDir, network: network, apiPort: apiPort,
            manifests: InstallManifests.render(InstallSettings(mesh: mesh)))
        let logger = UpCommand.logger()
        let readiness = MeshReadiness(dataDirectory: dataDir, manifests: manifests)
        let (ready, signal) = AsyncStream<Void>.makeStream()
        // A mesh that does not become ready is told, and leaves the platform up to be looked at.
        let reporting = Task {
            for await _ in ready { return await readiness.report() }
        }
        // The platform's end ends the command, also when nobody knows yet whether the mesh is ready.
        defer { reporting.cancel() }
        try await LocalPlatform.run(options, log: logger) { progress in
            if progress.step == .stopping { reporting.cancel() }
            Terminal.note(
                MeshReadiness.line(progress.step.rawValue, progress.detail, milliseconds: progress.milliseconds)
            )
            if progress.step == .ready { signal.yield() }
        }
    }
}

extension UpCommand {
    fileprivate static func logger() -> Logger {
        var logger = Logger(label: "apus", factory: { StreamLogHandler.standardError(label: $0) })
        logger.logLevel = .notice
        return logger
    }
}

/// Waits for the control plane, applies what the user gave, and says so.
struct MeshReadiness: Sendable {
    let dataDirectory: String
    let manifests: [KubernetesObject]

    /// The line by which the mesh is known to be ready.
    static let readyLine = "the mesh is ready"

    static func line(_ step: String, _ detail: String, milliseconds: Int) -> String {
        let name = step + String(repeating: " ", count: max(0, 14 - step.count))
        let time = "\(milliseconds) ms"
        return "  \(name)\(String(repeating: " ", count: max(0, 9 - time.count)))\(time)   \(detail)"
    }

    func report() async {
        var logger = Logger(label: "apus")
        logger.logLevel = .error
        do {
            let client = try KubernetesClient(try Kubeconfig.load(path: "\(dataDirectory)/kubeconfig"), logger: logger)
            await report(client)
            await client.shutdown()
        } catch {
            Terminal.note("apus: the mesh is not ready: \(error)")
        }
    }

    private func report(_ client: KubernetesClient) async {
        let began = ContinuousClock.now
        do {
            try await waitForControlPlane(client)
            let milliseconds = Int((ContinuousClock.now - began) / .milliseconds(1))
            Terminal.note(
                MeshReadiness.line("control plane", "apus-system/apus-control is ready", milliseconds: milliseconds))
            let catalog = try await ResourceCatalog.load(client)
            let applier = Applier(client: client, defaultNamespace: nil)
            for manifest in manifests {
                let outcome = try await applier.apply(manifest, kind: try catalog.kind(of: manifest))
                Terminal.note("  \(manifest.kind.lowercased())/\(manifest.name) \(outcome.rawValue)")
            }
            Terminal.note(MeshReadiness.readyLine)
        } catch {
            guard !Task.isCancelled else { return }
            Terminal.note("apus: the mesh is not ready: \(error). See 'apus check'")
        }
    }

    /// Ready means that pods can be made: the replica answers and the webhook is registered.
    private func waitForControlPlane(_ client: KubernetesClient) async throws {
        let deadline = ContinuousClock.now.advanced(by: .seconds(120))
        var findings: [CheckFinding] = []
        while ContinuousClock.now < deadline {
            findings = await PlatformCheck(client: client).findings().filter { $0.result == .failed }
            if findings.isEmpty { return }
            try await Task.sleep(for: .milliseconds(100))
        }
        throw CommandFailure(findings.map(\.message).joined(separator: "; "))
    }
}

/// `apus up --detach`: the same command in a session of its own, its output in a file, followed until the mesh is ready.
struct DetachedPlatform {
    let dataDirectory: String

    private static let timeoutSeconds = 180

    func start(arguments: [String]) async throws {
        try FileManager.default.createDirectory(atPath: dataDirectory, withIntermediateDirectories: true)
        let path = "\(dataDirectory)/platform.log"
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0o600)
        guard descriptor >= 0 else {
            throw CommandFailure("\(path) cannot be written: \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        let child = try spawn(arguments.filter { $0 != "--detach" }, output: descriptor)
        guard let log = FileHandle(forReadingAtPath: path) else { throw CommandFailure("\(path) cannot be read") }
        var text = ""
        let deadline = ContinuousClock.now.advanced(by: .seconds(DetachedPlatform.timeoutSeconds))
        while ContinuousClock.now < deadline {
            let piece = String(decoding: (try? log.readToEnd()) ?? Data(), as: UTF8.self)
            if !piece.isEmpty { Terminal.note(piece.hasSuffix("\n") ? String(piece.dropLast()) : piece) }
            text += piece
            if text.contains(MeshReadiness.readyLine) { return }
            if text.contains("the mesh is not ready") { throw ExitCode(1) }
            var status: Int32 = 0
            if waitpid(child, &status, WNOHANG) == child { throw ExitCode(1) }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw CommandFailure(
            "the mesh is not ready after \(DetachedPlatform.timeoutSeconds) s; it goes on in the background: see \(path) and 'apus check'"
        )
    }

    private func spawn(_ arguments: [String], output: Int32) throws -> pid_t {
        // Whoever waits for the end of a pipe or a socket that this command was given must not wait for the platform's.
        for name in try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd") {
            if let descriptor = Int32(name), descriptor > 2 { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // POSIX_SPAWN_SETSID of spawn.h, which glibc shows to GNU sources only.
        posix_spawnattr_setflags(&attributes, 0x80)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, output, 2)
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var child: pid_t = 0
        let result = posix_spawn(&child, "/proc/self/exe", &actions, &attributes, &words, environ)
        guard result == 0 else {
            throw CommandFailure("the platform cannot be started: \(String(cString: strerror(result)))")
        }
        return child
    }
}
