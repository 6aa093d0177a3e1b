/// What a loop has counted since it started: every limit that was met and every decision that has no metric of its own.
package struct LoopCounters: Sendable, Equatable {
    package var requests: UInt64 = 0
    /// Of those, and of byte connections, what came from other pods.
    package var arrivals: UInt64 = 0
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
    package var bodyTimeouts: UInt64 = 0
    package var bodiesTooLarge: UInt64 = 0
    package var upgrades: UInt64 = 0
    package var tunnels: UInt64 = 0
    package var requestsUnread: UInt64 = 0
    package var idleTimeouts: UInt64 = 0
    package var byteConnections: UInt64 = 0
    package var http2Connections: UInt64 = 0
    package var http2Violations: UInt64 = 0
    package var http2Floods: UInt64 = 0
    package var http2Stalled: UInt64 = 0
    package var withdrawals: UInt64 = 0
    package var notRedirected: UInt64 = 0
    package var loopsRefused: UInt64 = 0
    package var connectionsRefused: UInt64 = 0
    package var waitingRefused: UInt64 = 0
    package var unresolvedDestinations: UInt64 = 0
    package var unresolvedPassed: UInt64 = 0
    package var unresolvedRefused: UInt64 = 0
    package var dialledEarly: UInt64 = 0
    package var dialledInVain: UInt64 = 0
    package var learnedContradicted: UInt64 = 0
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
            ("arrivals", "requests and byte connections from other pods", arrivals),
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
            ("body_timeouts", "requests whose body came to a halt", bodyTimeouts),
            ("bodies_too_large", "requests refused because of their body's length", bodiesTooLarge),
            ("upgrades", "connections that left HTTP by an upgrade", upgrades),
            ("tunnels", "connections that left HTTP by CONNECT", tunnels),
            ("requests_unread", "tries lost on a connection that its endpoint had just closed", requestsUnread),
            ("idle_timeouts", "connections closed because nothing moved", idleTimeouts),
            ("byte_connections", "connections relayed as bytes", byteConnections),
            ("http2_connections", "HTTP/2 connections from clients", http2Connections),
            ("http2_violations", "HTTP/2 connections ended because the peer broke the protocol", http2Violations),
            ("http2_floods", "HTTP/2 connections ended because of a flood of control frames", http2Floods),
            (
                "http2_streams_stalled", "HTTP/2 streams ended because their reader took nothing for too long",
                http2Stalled
            ),
            ("withdrawals", "sidecars of endpoints that said they are about to stop", withdrawals),
            ("not_redirected", "connections to the sidecar's own ports, refused", notRedirected),
            ("loops_refused", "connections that led back to the sidecar, refused", loopsRefused),
            ("connections_refused", "connections refused by a limit or by policy", connectionsRefused),
            ("waiting_refused", "connections for whose destination the queue had no room", waitingRefused),
            ("unresolved_destinations", "destinations that nobody answered for in time", unresolvedDestinations),
            (
                "unresolved_destinations_passed",
                "unresolved destinations dialled in plaintext, as the policy for unknown ones allows", unresolvedPassed
            ),
            (
                "unresolved_destinations_refused",
                "unresolved destinations refused because they may be in the mesh, which is strict", unresolvedRefused
            ),
            ("dialled_early", "endpoints dialled before the client had spoken", dialledEarly),
            ("dialled_in_vain", "such connections given up because the client spoke HTTP", dialledInVain),
            ("learned_contradicted", "ports that spoke otherwise than was learned", learnedContradicted),
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
        sum.arrivals &+= right.arrivals
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
        sum.bodyTimeouts &+= right.bodyTimeouts
        sum.bodiesTooLarge &+= right.bodiesTooLarge
        sum.upgrades &+= right.upgrades
        sum.tunnels &+= right.tunnels
        sum.requestsUnread &+= right.requestsUnread
        sum.idleTimeouts &+= right.idleTimeouts
        sum.byteConnections &+= right.byteConnections
        sum.http2Connections &+= right.http2Connections
        sum.http2Violations &+= right.http2Violations
        sum.http2Floods &+= right.http2Floods
        sum.http2Stalled &+= right.http2Stalled
        sum.withdrawals &+= right.withdrawals
        sum.notRedirected &+= right.notRedirected
        sum.loopsRefused &+= right.loopsRefused
        sum.connectionsRefused &+= right.connectionsRefused
        sum.waitingRefused &+= right.waitingRefused
        sum.unresolvedDestinations &+= right.unresolvedDestinations
        sum.unresolvedPassed &+= right.unresolvedPassed
        sum.unresolvedRefused &+= right.unresolvedRefused
        sum.dialledEarly &+= right.dialledEarly
        sum.dialledInVain &+= right.dialledInVain
        sum.learnedContradicted &+= right.learnedContradicted
        sum.unknownDenied &+= right.unknownDenied
        sum.plaintextAccepted &+= right.plaintextAccepted
        sum.plaintextRefused &+= right.plaintextRefused
        sum.handshakesFailed &+= right.handshakesFailed
        sum.handshakesWithoutIdentity &+= right.handshakesWithoutIdentity
        return sum
    }
}
