import ArgumentParser
import Foundation
import Logging
import MeshProxy
import Yams

@main
struct ApusProxy: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus-proxy",
        abstract: "The sidecar of Apus.",
        version: AgentSettings.version,
        subcommands: [RunCommand.self, CaptureCommand.self, AdminCommand.self, VersionCommand.self])
}

struct CaptureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "capture",
        abstract: "Redirect this network namespace's TCP connections to the sidecar (nftables), or undo it.")

    @Flag(help: "Remove the redirection.")
    var remove = false

    @Flag(help: "Print the rules and change nothing.")
    var dryRun = false

    @Option(help: "The sidecar's user ID: its own connections are never redirected.")
    var proxyUserID: UInt32 = 1337

    @Option(help: "Inbound ports that bypass the sidecar, separated by commas (or APUS_SKIP_INBOUND_PORTS).")
    var skipInboundPorts: String?

    @Option(help: "Outbound ports that bypass the sidecar, separated by commas (or APUS_SKIP_OUTBOUND_PORTS).")
    var skipOutboundPorts: String?

    func run() throws {
        if remove { return try Capture.remove() }
        let environment = ProcessEnvironment()
        let rules = CaptureRules(
            proxyUserID: proxyUserID,
            skippedInboundPorts: try parsePortList(
                skipInboundPorts ?? environment["APUS_SKIP_INBOUND_PORTS"] ?? "", setting: "APUS_SKIP_INBOUND_PORTS"),
            skippedOutboundPorts: try parsePortList(
                skipOutboundPorts ?? environment["APUS_SKIP_OUTBOUND_PORTS"] ?? "", setting: "APUS_SKIP_OUTBOUND_PORTS")
        )
        if dryRun { return print(rules.script, terminator: "") }
        try Capture.install(rules)
    }
}

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run the sidecar: by a control plane (APUS_* in the environment), or by a file.")

    @Option(
        help: ArgumentHelp(
            "Believe this file instead of a control plane (docs/static-configuration.md).", valueName: "file"))
    var config: String?

    func run() throws {
        let signals = TerminationSignal()
        LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
        let logger = Logger(label: "apus-proxy")
        if let config {
            let sidecar = try start(config, logger)
            signals.wait()
            return sidecar.stop(drainMilliseconds: 10_000)
        }
        let environment = ProcessEnvironment()
        let agent = try Agent(settings: AgentSettings { environment[$0] }, logger: logger)
        signals.wait()
        agent.stop()
    }

    private func start(_ config: String, _ logger: Logger) throws -> StaticSidecar {
        let configuration = try StaticConfigurationFile.load(config)
        let folder = (config as NSString).deletingLastPathComponent
        let sidecar = try StaticSidecar.start(configuration, logger: logger) { path in
            try String(
                contentsOfFile: path.hasPrefix("/") || folder.isEmpty ? path : "\(folder)/\(path)", encoding: .utf8)
        }
        let lines =
            sidecar.plane.outboundAddresses.map { "outbound \($0)\n" }
            + sidecar.plane.inboundAddresses.map { "inbound \($0)\n" }
        FileHandle.standardOutput.write(Data(lines.joined().utf8))
        StartupPages.release()
        return sidecar
    }
}

struct AdminCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "admin", abstract: "Ask the admin port of the sidecar in this network namespace.")

    @Flag(help: "Send a POST.")
    var post = false

    @Argument(help: "/ready, /metrics, /config, /certs, /logging?level=debug or /drain.")
    var path = "/"

    func run() throws {
        let answer = try AdminClient.ask(path, method: post ? "POST" : "GET")
        FileHandle.standardOutput.write(Data(answer.body))
        guard answer.status < 300 else { throw ExitCode(1) }
    }
}

struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Print the version of this program.")

    func run() { print("apus-proxy \(AgentSettings.version)") }
}
