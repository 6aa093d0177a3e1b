import MeshCore

/// The control plane's reports as aligned text.
enum ReportTables {
    static func status(_ report: StatusReport) -> String {
        var services = TextTable("SERVICE", "VERDICT", "ENDPOINTS", "SUCCESS", "P50", "P99", "REQ/S", "REASON")
        for service in report.services {
            services.add(
                "\(service.namespace)/\(service.name)", paint(service.verdict),
                "\(service.readyEndpoints)/\(service.endpoints)",
                Figures.percent(service.figures.successRate), Figures.milliseconds(service.figures.p50Milliseconds),
                Figures.milliseconds(service.figures.p99Milliseconds), Figures.rate(service.figures.requestsPerSecond),
                service.reasons.joined(separator: "; "))
        }
        let plane = report.controlPlane
        let summary =
            "control plane \(plane.version), trust domain \(plane.trustDomain), \(plane.isSynchronized ? "in sync" : "not yet in sync with the API"), "
            + "\(plane.serviceCount) services, \(plane.endpointCount) endpoints, \(plane.sidecarCount) sidecars\n"
        return summary + "\n" + (services.isEmpty ? "no services\n" : services.text) + "\n"
            + sidecars(report.sidecars, at: report.generatedAt)
    }

    static func sidecars(_ list: [SidecarStatus], at now: Timestamp) -> String {
        guard !list.isEmpty else { return "no sidecars\n" }
        var table = TextTable("SIDECAR", "VERSION", "CERTIFICATE", "SYNC", "REFUSED")
        for sidecar in list {
            table.add(
                "\(sidecar.namespace)/\(sidecar.pod)", sidecar.version.isEmpty ? "-" : sidecar.version,
                expiry(sidecar.certificateNotAfter, at: now), paint(sidecar.synchronization),
                sidecar.refusals.isEmpty
                    ? "-" : sidecar.refusals.map { "\($0.type) \($0.name): \($0.reason)" }.joined(separator: "; "))
        }
        return table.text
    }

    static func stat(_ report: StatReport) -> String {
        guard !report.rows.isEmpty else { return "no traffic in the last \(report.windowSeconds) s\n" }
        var table = TextTable(
            "FROM", "TO", "PROTOCOL", "SUCCESS", "REQ/S", "P50", "P95", "P99", "RETRIES/S", "OPEN", "UP/S", "DOWN/S",
            "ANSWERS")
        for row in report.rows {
            let figures = row.figures
            table.add(
                name(row.source), name(row.destination), row.applicationProtocol, Figures.percent(figures.successRate),
                Figures.rate(figures.requestsPerSecond), Figures.milliseconds(figures.p50Milliseconds),
                Figures.milliseconds(figures.p95Milliseconds), Figures.milliseconds(figures.p99Milliseconds),
                Figures.rate(figures.retriesPerSecond), "\(figures.openConnections)",
                Figures.bytes(figures.receivedBytesPerSecond), Figures.bytes(figures.sentBytesPerSecond),
                row.responses.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        }
        return table.text + overflow(report.overflowedEdges)
    }

    static func edges(_ report: EdgesReport) -> String {
        guard !report.edges.isEmpty else {
            return "nobody has talked to anybody in the last \(report.windowSeconds) s\n"
        }
        var table = TextTable("FROM", "TO", "SECURITY", "REQ/S", "OPEN", "CALLER", "CALLEE")
        for edge in report.edges {
            table.add(
                name(edge.source), name(edge.destination), paint(edge.security), Figures.rate(edge.requestsPerSecond),
                "\(edge.openConnections)", edge.source.identity.isEmpty ? "-" : edge.source.identity,
                edge.destination.identity.isEmpty ? "-" : edge.destination.identity)
        }
        return table.text + overflow(report.overflowedEdges)
    }

    static func check(_ report: CheckReport) -> String {
        var text = ""
        for area in report.findings.map(\.area).uniqued() {
            text += "\(area)\n"
            for finding in report.findings where finding.area == area {
                text += "  \(mark(finding.result)) \(finding.message)\n"
                if !finding.remedy.isEmpty { text += "    \(Terminal.paint("remedy: \(finding.remedy)", .dim))\n" }
            }
        }
        let failed = report.findings.count { $0.result == .failed }
        let warned = report.findings.count { $0.result == .warning }
        return text + "\n\(report.findings.count) checks, \(failed) failed, \(warned) warnings\n"
    }

    private static func name(_ party: TrafficParty) -> String {
        party.namespace.isEmpty ? party.name : "\(party.namespace)/\(party.name)"
    }

    private static func overflow(_ count: Int) -> String {
        count == 0 ? "" : "and \(count) edges more than the control plane keeps\n"
    }

    private static func expiry(_ notAfter: Timestamp?, at now: Timestamp) -> String {
        guard let notAfter else { return "-" }
        let seconds = notAfter.seconds(since: now)
        return seconds < 0
            ? Terminal.paint("expired \(Figures.age(seconds: Double(-seconds))) ago", .red)
            : "\(Figures.age(seconds: Double(seconds))) left"
    }

    private static func paint(_ verdict: Verdict) -> String {
        switch verdict {
        case .healthy: Terminal.paint(verdict.rawValue, .green)
        case .degraded: Terminal.paint(verdict.rawValue, .yellow)
        case .failing: Terminal.paint(verdict.rawValue, .red)
        case .idle, .unknown: Terminal.paint(verdict.rawValue, .dim)
        }
    }

    private static func paint(_ state: SidecarStatus.Synchronization) -> String {
        switch state {
        case .current: Terminal.paint("in sync", .green)
        case .pending: "pending"
        case .refused: Terminal.paint("refused", .red)
        case .disconnected: Terminal.paint("disconnected", .yellow)
        }
    }

    private static func paint(_ security: EdgeRow.Security) -> String {
        switch security {
        case .mutualTLS: Terminal.paint("mTLS", .green)
        case .plaintext: Terminal.paint("plaintext", .red)
        case .mixed: Terminal.paint("mixed", .yellow)
        }
    }

    private static func mark(_ result: CheckFinding.Result) -> String {
        switch result {
        case .passed: Terminal.paint("✔", .green)
        case .warning: Terminal.paint("!", .yellow)
        case .failed: Terminal.paint("✘", .red)
        }
    }
}

extension Sequence where Element: Hashable {
    /// Each element once, in the order of its first appearance.
    func uniqued() -> [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}
