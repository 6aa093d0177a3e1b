package import MeshAddress
package import MeshCore

/// A service's traffic over the last 60 seconds, and over the last 10 where it says «recent».
package struct TrafficObservation: Sendable, Hashable {
    /// Whether any sidecar has reported of this service within ten minutes.
    package var isReported = false
    package var figures = TrafficFigures()
    package var requests: UInt64 = 0
    package var failures: UInt64 = 0
    package var recentRequests: UInt64 = 0
    package var recentFailures: UInt64 = 0
    package var connectionsOpened: UInt64 = 0
    package var connectionsFailed: UInt64 = 0
    package var usual: Usual?

    package init() {}

    init(
        isReported: Bool, figures: TrafficFigures, totals: TrafficWindow.Totals,
        recent: (requests: UInt64, failures: UInt64),
        usual: Usual?
    ) {
        self.isReported = isReported
        self.figures = figures
        self.requests = totals.requests
        self.failures = totals.failures
        self.recentRequests = recent.requests
        self.recentFailures = recent.failures
        self.connectionsOpened = totals.connectionsOpened
        self.connectionsFailed = totals.connectionsFailed
        self.usual = usual
    }
}

/// One caller's ejection of one endpoint.
package struct EndpointEjection: Sendable, Hashable {
    package var address: IPAddress
    /// `namespace/owner`.
    package var caller: String
    package var since: Timestamp
    package var why: String

    package init(address: IPAddress, caller: String, since: Timestamp, why: String) {
        self.address = address
        self.caller = caller
        self.since = since
        self.why = why
    }
}

/// What a verdict is made of besides traffic.
package struct ServiceObservation: Sendable, Hashable {
    package struct Certificate: Sendable, Hashable {
        package var pod: ObjectName
        package var notAfter: Timestamp

        package init(pod: ObjectName, notAfter: Timestamp) {
            self.pod = pod
            self.notAfter = notAfter
        }
    }

    package var isSynchronized = true
    package var readyEndpoints: Set<IPAddress> = []
    package var endpoints = 0
    package var meshedEndpoints = 0
    package var traffic = TrafficObservation()
    package var ejections: [EndpointEjection] = []
    /// Of the endpoints' sidecars that are known to end within `VerdictRule.certificateWarningSeconds`.
    package var endingCertificates: [Certificate] = []

    package init() {}
}

/// From what was observed to a verdict with its reasons: a pure table.
package enum VerdictRule {
    /// Below this success rate over 60 seconds a service is degraded.
    static let degradedSuccess = 0.99
    /// Below this success rate over 10 seconds it is failing.
    static let failingSuccess = 0.5
    static let leastFailures: UInt64 = 2
    static let leastRecentRequests: UInt64 = 5
    static let leastRequestsForLatency: UInt64 = 30
    /// A sidecar renews at half of a certificate's life; what ends within half an hour has failed to.
    package static let certificateWarningSeconds: Int64 = 1800

    package static func judge(_ service: ServiceObservation, now: Timestamp) -> (verdict: Verdict, reasons: [String]) {
        guard service.isSynchronized else {
            return (.unknown, ["the control plane has not read everything that runs yet"])
        }
        let traffic = service.traffic
        let isBusy =
            traffic.requests > 0 || traffic.connectionsOpened > 0 || traffic.connectionsFailed > 0
            || traffic.figures.openConnections > 0
        var failing: [String] = []
        var degraded: [String] = []

        if service.readyEndpoints.isEmpty {
            if service.endpoints > 0 {
                failing.append("no ready endpoint (0 of \(service.endpoints))")
            } else if isBusy {
                failing.append("no endpoint at all, and it is being called")
            }
        }
        let ejected = ejectedEndpoints(service)
        if !ejected.isEmpty {
            let sentence = sentence(of: ejected, ready: service.readyEndpoints.count)
            if ejected.count >= service.readyEndpoints.count {
                failing.append(sentence)
            } else {
                degraded.append(sentence)
            }
        }
        if traffic.recentRequests >= leastRecentRequests {
            let recent = 1 - Double(traffic.recentFailures) / Double(traffic.recentRequests)
            if recent < failingSuccess { failing.append("success \(percent(recent)) over the last 10 s") }
        }
        if traffic.requests > 0, traffic.failures >= leastFailures {
            let success = 1 - Double(min(traffic.failures, traffic.requests)) / Double(traffic.requests)
            let usual = traffic.usual.map { " (usual \(percent($0.successRate)))" } ?? ""
            if success < degradedSuccess { degraded.append("success \(percent(success)) over the last 60 s\(usual)") }
        }
        if traffic.connectionsFailed >= leastFailures,
            Double(traffic.connectionsFailed) > Double(traffic.connectionsOpened) * (1 - degradedSuccess)
        {
            let sentence =
                "\(traffic.connectionsFailed) connections failed over the last 60 s, \(traffic.connectionsOpened) succeeded"
            if traffic.connectionsOpened == 0 && traffic.requests == 0 {
                failing.append(sentence)
            } else {
                degraded.append(sentence)
            }
        }
        if traffic.requests >= leastRequestsForLatency, let usual = traffic.usual, let usualP99 = usual.p99Milliseconds,
            let p99 = traffic.figures.p99Milliseconds, usual.isSlow(p99)
        {
            degraded.append("p99 \(milliseconds(p99)) against its usual \(milliseconds(usualP99))")
        }
        for certificate in service.endingCertificates.sorted(by: { $0.notAfter < $1.notAfter }).prefix(3) {
            let left = certificate.notAfter.seconds(since: now)
            if left <= 0 {
                degraded.append("the certificate of \(certificate.pod) ended at \(clock(certificate.notAfter))")
            } else {
                degraded.append(
                    "the certificate of \(certificate.pod) ends in \((left + 59) / 60) min and has not been renewed")
            }
        }

        if !failing.isEmpty { return (.failing, failing + degraded) }
        if !degraded.isEmpty { return (.degraded, degraded) }
        if isBusy { return (.healthy, [healthySentence(traffic)]) }
        if service.endpoints == 0 { return (.idle, ["it has no endpoint, and nobody called it within 60 s"]) }
        if service.meshedEndpoints == 0 && !traffic.isReported {
            return (.unknown, ["none of its endpoints has a sidecar, and no caller reported"])
        }
        return (.idle, ["no traffic within 60 s"])
    }

    /// Which ready endpoints are ejected, by whom, and since when at the longest.
    private static func ejectedEndpoints(
        _ service: ServiceObservation
    ) -> [IPAddress: (callers: Set<String>, since: Timestamp)] {
        var result: [IPAddress: (callers: Set<String>, since: Timestamp)] = [:]
        for ejection in service.ejections where service.readyEndpoints.contains(ejection.address) {
            let old = result[ejection.address]
            result[ejection.address] = (
                (old?.callers ?? []).union([ejection.caller]), min(old?.since ?? ejection.since, ejection.since)
            )
        }
        return result
    }

    private static func sentence(
        of ejected: [IPAddress: (callers: Set<String>, since: Timestamp)], ready: Int
    ) -> String {
        let callers = ejected.values.reduce(into: Set<String>()) { $0.formUnion($1.callers) }.sorted()
        let named =
            callers.prefix(3).joined(separator: ", ")
            + (callers.count > 3 ? " and \(callers.count - 3) more" : "")
        let since = ejected.values.map(\.since).min().map { " since \(clock($0))" } ?? ""
        return "\(ejected.count) of \(ready) endpoints ejected by \(named)\(since)"
    }

    private static func healthySentence(_ traffic: TrafficObservation) -> String {
        guard traffic.requests > 0 else { return "its connections succeed" }
        let success = 1 - Double(min(traffic.failures, traffic.requests)) / Double(traffic.requests)
        return "success \(percent(success)) over the last 60 s"
    }

    /// Never rounded up to a success that was not there: 99.96 % is «99.9 %».
    static func percent(_ fraction: Double) -> String {
        let tenths = Int((min(max(fraction, 0), 1) * 1000 + 1e-9).rounded(.down))
        return tenths % 10 == 0 ? "\(tenths / 10) %" : "\(tenths / 10).\(tenths % 10) %"
    }

    static func milliseconds(_ value: Double) -> String {
        let tenths = Int((min(max(value, 0), 1e9) * 10).rounded())
        return tenths >= 1000 || tenths % 10 == 0
            ? "\((tenths + (tenths >= 1000 ? 5 : 0)) / 10) ms" : "\(tenths / 10).\(tenths % 10) ms"
    }

    /// Hours and minutes, UTC.
    private static func clock(_ moment: Timestamp) -> String { "\(moment.description.dropFirst(11).prefix(5)) UTC" }
}
