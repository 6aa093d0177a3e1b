internal import Logging
package import MeshCore
package import MeshIdentity
internal import Synchronization

/// The control plane's own certificate: issued by its own authority, renewed at half life, and anew when another root
/// signs.
package final class ServingCertificate: Sendable {
    private struct State {
        var identity: ServingIdentity?
        var schedule: RenewalSchedule?
        var authorityRoot: [UInt8]?
    }

    private let spiffeID: SPIFFEID
    private let dnsNames: [String]
    private let authority: AuthorityKeeper
    private let now: @Sendable () -> Timestamp
    private let changed: @Sendable (ServingIdentity, TrustBundle) -> Void
    private let state = Mutex(State())
    private let logger = Logger(label: "apus.control.serving")

    /// - Parameter changed: called with every new certificate, the first included.
    package init(
        identity: SPIFFEID, dnsNames: [String], authority: AuthorityKeeper, now: @escaping @Sendable () -> Timestamp,
        changed: @escaping @Sendable (ServingIdentity, TrustBundle) -> Void
    ) {
        self.spiffeID = identity
        self.dnsNames = dnsNames
        self.authority = authority
        self.now = now
        self.changed = changed
    }

    package var current: ServingIdentity? { state.withLock { $0.identity } }

    /// Works until cancelled.
    package func run() async {
        while !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(step()))
        }
    }

    /// Issues when it is time; the answer says in how many milliseconds to ask again. Called as well whenever the
    /// authority changed, so that a first certificate waits for nothing.
    @discardableResult
    package func step() -> Int {
        guard let authority = authority.current else { return 200 }
        let moment = now()
        let decision = state.withLock { state -> RenewalSchedule.Decision in
            guard state.authorityRoot == authority.authority.rootDER else { return .renewNow }
            return state.schedule?.decide(now: moment) ?? .renewNow
        }
        if case .wait(let milliseconds) = decision { return min(milliseconds, 5000) }
        do {
            let issued = try authority.authority.issueServing(identity: spiffeID, dnsNames: dnsNames, now: moment)
            state.withLock { state in
                state.identity = issued
                state.authorityRoot = authority.authority.rootDER
                state.schedule = RenewalSchedule(
                    notBefore: issued.certificate.notBefore, notAfter: issued.certificate.notAfter,
                    random: Double.random(in: 0...1))
            }
            logger.info(
                "the control plane's own certificate is issued",
                metadata: ["not_after": "\(issued.certificate.notAfter)"])
            changed(issued, authority.trusted)
        } catch {
            logger.error("the control plane's own certificate cannot be issued: \(error)")
            state.withLock { $0.schedule?.failed(now: moment, random: Double.random(in: 0...1)) }
        }
        return 1000
    }
}
