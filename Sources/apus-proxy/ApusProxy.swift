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
        subcommands: [RunCommand.self, CaptureCommand.self])
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
                skipOutboundPorts ?? environment["APUS_SKIP_OUTBOUND_PORTS"] ?? "", setting: "APUS_SKIP_OUTBOUND_PORTS"))
        if dryRun { return print(rules.script, terminator: "") }
        try Capture.install(rules)
    }
}

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run the sidecar: by a control plane (APUS_* in the environment), or by a file.")

    @Option(help: ArgumentHelp("Believe this file instead of a control plane (docs/static-configuration.md).", valueName: "file"))
    var config: String

    func run() throws {
        let signals = TerminationSignal()
        let configuration = try StaticConfigurationFile.load(config)
        let folder = (config as NSString).deletingLastPathComponent
        let plane = try StaticSidecar.start(configuration, logger: Logger(label: "apus-proxy")) { path in
            try String(contentsOfFile: path.hasPrefix("/") || folder.isEmpty ? path : "\(folder)/\(path)", encoding: .utf8)
        }
        let lines = plane.outboundAddresses.map { "outbound \($0)\n" } + plane.inboundAddresses.map { "inbound \($0)\n" }
        FileHandle.standardOutput.write(Data(lines.joined().utf8))
        signals.wait()
        StaticSidecar.stop(plane, drainMilliseconds: 10_000)
    }
}
