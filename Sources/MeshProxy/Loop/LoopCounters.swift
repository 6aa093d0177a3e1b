/// What a loop has counted since it started: every limit that was met and every decision that has no metric of its own.
package struct LoopCounters: Sendable, Equatable {
    package var requests: UInt64 = 0
    package var retries: UInt64 = 0
    package var retriesOverBudget: UInt64 = 0
    package var ejections: UInt64 = 0
    package var readmissions: UInt64 = 0
    package var connectionsOpened: UInt64 = 0
    package var connectFailures: UInt64 = 0
    package var identityMismatches: UInt64 = 0
    package var invalidRequests: UInt64 = 0
    package var invalidResponses: UInt64 = 0
    package var headTimeouts: UInt64 = 0
    package var idleTimeouts: UInt64 = 0
    package var byteConnections: UInt64 = 0
    package var notRedirected: UInt64 = 0
    package var loopsRefused: UInt64 = 0
    package var connectionsRefused: UInt64 = 0
    package var waitingRefused: UInt64 = 0
    package var unresolvedDestinations: UInt64 = 0
    package var unknownDenied: UInt64 = 0
    package var plaintextAccepted: UInt64 = 0
    package var plaintextRefused: UInt64 = 0
    package var handshakesFailed: UInt64 = 0
    package var handshakesWithoutIdentity: UInt64 = 0

    package init() {}

    /// By name, for the metrics page.
    package var named: [(name: String, help: String, value: UInt64)] {
        [
            ("requests", "HTTP requests received", requests),
            ("retries", "tries beyond a request's first", retries),
            ("retries_over_budget", "retries that the budget refused", retriesOverBudget),
            ("ejections", "endpoints taken out of balancing", ejections),
            ("readmissions", "endpoints taken back after a probe", readmissions),
            ("upstream_connections_opened", "connections begun to endpoints", connectionsOpened),
            ("upstream_connect_failures", "connections to endpoints that failed", connectFailures),
            ("identity_mismatches", "peers whose identity was not the one expected or accepted", identityMismatches),
            ("invalid_requests", "requests refused for their form", invalidRequests),
            ("invalid_responses", "responses refused for their form", invalidResponses),
            ("head_timeouts", "requests whose head took too long", headTimeouts),
            ("idle_timeouts", "connections closed because nothing moved", idleTimeouts),
            ("byte_connections", "connections relayed as bytes", byteConnections),
            ("not_redirected", "connections to the sidecar's own ports, refused", notRedirected),
            ("loops_refused", "connections that led back to the sidecar, refused", loopsRefused),
            ("connections_refused", "connections refused by a limit or by policy", connectionsRefused),
            ("waiting_refused", "connections for whose destination the queue had no room", waitingRefused),
            ("unresolved_destinations", "destinations that nobody answered for in time", unresolvedDestinations),
            ("unknown_destinations_denied", "connections to unknown destinations denied", unknownDenied),
            ("plaintext_accepted", "inbound connections without an identity, accepted", plaintextAccepted),
            ("plaintext_refused", "inbound connections without an identity, refused", plaintextRefused),
            ("handshakes_failed", "inbound TLS handshakes that failed", handshakesFailed),
            (
                "handshakes_without_identity", "inbound TLS refused because this sidecar has no certificate yet",
                handshakesWithoutIdentity
            ),
        ]
    }

    package static func + (left: LoopCounters, right: LoopCounters) -> LoopCounters {
        var sum = left
        sum.requests &+= right.requests
        sum.retries &+= right.retries
        sum.retriesOverBudget &+= right.retriesOverBudget
        sum.ejections &+= right.ejections
        sum.readmissions &+= right.readmissions
        sum.connectionsOpened &+= right.connectionsOpened
        sum.connectFailures &+= right.connectFailures
        sum.identityMismatches &+= right.identityMismatches
        sum.invalidRequests &+= right.invalidRequests
        sum.invalidResponses &+= right.invalidResponses
        sum.headTimeouts &+= right.headTimeouts
        sum.idleTimeouts &+= right.idleTimeouts
        sum.byteConnections &+= right.byteConnections
        sum.notRedirected &+= right.notRedirected
        sum.loopsRefused &+= right.loopsRefused
        sum.connectionsRefused &+= right.connectionsRefused
        sum.waitingRefused &+= right.waitingRefused
        sum.unresolvedDestinations &+= right.unresolvedDestinations
        sum.unknownDenied &+= right.unknownDenied
        sum.plaintextAccepted &+= right.plaintextAccepted
        sum.plaintextRefused &+= right.plaintextRefused
        sum.handshakesFailed &+= right.handshakesFailed
        sum.handshakesWithoutIdentity &+= right.handshakesWithoutIdentity
        return sum
    }
}
