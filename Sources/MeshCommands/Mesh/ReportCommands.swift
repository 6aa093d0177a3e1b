package import ArgumentParser
import MeshCore

package struct StatusCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Every service with its verdict and the reason, and every sidecar.")

    @OptionGroup var platform: PlatformOptions

    @Option(name: .shortAndLong, help: "Only this namespace.")
    var namespace: String?

    @Option(name: .shortAndLong, help: "table or json.")
    var output: ReportFormat = .table

    package init() {}

    package mutating func run() async throws {
        let only = namespace
        var report = try await platform.withClient {
            try await ControlPlaneQueries(client: $0).get("status", as: StatusReport.self)
        }
        if let only {
            report.services.removeAll { $0.namespace != only }
            report.sidecars.removeAll { $0.namespace != only }
        }
        Terminal.print(output == .json ? try report.prettyJSON() : ReportTables.status(report))
    }
}

package struct StatCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "stat", abstract: "Golden metrics of the last minute by source and destination.")

    @OptionGroup var platform: PlatformOptions

    @Option(name: .shortAndLong, help: "Only edges that begin or end in this namespace.")
    var namespace: String?

    @Option(help: "Only edges of this caller: NAMESPACE/NAME.")
    var from: String?

    @Option(help: "Only edges to this service: NAMESPACE/NAME.")
    var to: String?

    @Option(name: .shortAndLong, help: "table or json.")
    var output: ReportFormat = .table

    package init() {}

    package mutating func run() async throws {
        let query = [("namespace", namespace), ("from", from), ("to", to)].compactMap { name, value in
            value.map { (name: name, value: $0) }
        }
        let report = try await platform.withClient {
            try await ControlPlaneQueries(client: $0).get("stat", query: query, as: StatReport.self)
        }
        Terminal.print(output == .json ? try report.prettyJSON() : ReportTables.stat(report))
    }
}

package struct EdgesCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "edges", abstract: "Who talks to whom, with which identities, encrypted or not.")

    @OptionGroup var platform: PlatformOptions

    @Option(name: .shortAndLong, help: "Only edges that begin or end in this namespace.")
    var namespace: String?

    @Option(name: .shortAndLong, help: "table or json.")
    var output: ReportFormat = .table

    package init() {}

    package mutating func run() async throws {
        let only = namespace
        var report = try await platform.withClient {
            try await ControlPlaneQueries(client: $0).get("edges", as: EdgesReport.self)
        }
        if let only { report.edges.removeAll { $0.source.namespace != only && $0.destination.namespace != only } }
        Terminal.print(output == .json ? try report.prettyJSON() : ReportTables.edges(report))
    }
}
