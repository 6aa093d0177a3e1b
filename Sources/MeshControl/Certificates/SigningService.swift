internal import Logging
package import MeshCore
package import MeshIdentity
internal import Synchronization

/// Certifies sidecars: has the token reviewed by the platform, and signs for the identity that the platform vouches
/// for.
package final class SigningService: Sendable {
    package struct Limits: Sendable, Hashable {
        /// Reviews and signatures under way at once.
        package var concurrency = 32
        /// Requests that wait for their turn; more are told to come again.
        package var queue = 1024

        package init() {}
    }

    /// What a request could end as, for the counters.
    package enum Outcome: String, Sendable, CaseIterable {
        case issued
        case unauthenticated
        case invalidRequest = "invalid_request"
        case unavailable
        case busy
    }

    package struct Refusal: Error, Hashable, Sendable, CustomStringConvertible {
        package let outcome: Outcome
        package let description: String
    }

    package struct Signed: Sendable {
        package let certificate: IssuedCertificate
        package let trustBundle: TrustBundle
        package let pod: ObjectName?
    }

    package static let audience = "apus"
    /// A projected token has about 1 KiB.
    static let tokenLimit = 16_384

    private let authority: AuthorityKeeper
    private let reviewer: any TokenReviewer
    private let gate: AdmissionGate
    private let now: @Sendable () -> Timestamp
    private let counts = Mutex<[Outcome: UInt64]>([:])
    private let logger: Logger

    package init(
        authority: AuthorityKeeper, reviewer: any TokenReviewer, limits: Limits = Limits(),
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.authority = authority
        self.reviewer = reviewer
        self.gate = AdmissionGate(concurrency: limits.concurrency, queueLimit: limits.queue)
        self.now = now
        self.logger = Logger(label: "apus.control.signing")
    }

    package func count(of outcome: Outcome) -> UInt64 { counts.withLock { $0[outcome] ?? 0 } }
    package var queued: Int { gate.queued }

    /// - Parameter lifetimeSeconds: 0 leaves it to the authority.
    package func sign(requestDER: [UInt8], token: String, lifetimeSeconds: Int64) async -> Result<Signed, Refusal> {
        let result =
            await gate.pass {
                await self.review(requestDER: requestDER, token: token, lifetimeSeconds: lifetimeSeconds)
            }
            ?? .failure(
                Refusal(outcome: .busy, description: "too many certificate requests wait here; try again in a moment"))
        switch result {
        case .success(let signed):
            counts.withLock { $0[.issued, default: 0] &+= 1 }
            logger.info(
                "issued a certificate",
                metadata: [
                    "identity": "\(signed.certificate.identity)", "serial": "\(signed.certificate.serial)",
                    "not_after": "\(signed.certificate.notAfter)",
                ])
        case .failure(let refusal):
            counts.withLock { $0[refusal.outcome, default: 0] &+= 1 }
            logger.warning("refused a certificate: \(refusal.description)")
        }
        return result
    }

    private func review(requestDER: [UInt8], token: String, lifetimeSeconds: Int64) async -> Result<Signed, Refusal> {
        func refuse(_ outcome: Outcome, _ reason: String) -> Result<Signed, Refusal> {
            .failure(Refusal(outcome: outcome, description: reason))
        }
        guard !token.isEmpty, token.utf8.count <= Self.tokenLimit else {
            return refuse(.unauthenticated, "the token has \(token.utf8.count) bytes, expected 1 to \(Self.tokenLimit)")
        }
        guard let current = authority.current else {
            return refuse(.unavailable, "the certificate authority is not loaded yet; try again in a moment")
        }
        let username: String
        let pod: ObjectName?
        do {
            switch try await reviewer.review(token: token, audience: Self.audience) {
            case .rejected(let reason):
                return refuse(.unauthenticated, "the platform does not vouch for the token: \(reason)")
            case .authenticated(let name, let bound): (username, pod) = (name, bound)
            }
        } catch {
            return refuse(.unavailable, "the platform could not be asked about the token: \(error)")
        }
        guard let identity = ReviewedIdentity.identity(username: username, trustDomain: current.authority.trustDomain)
        else {
            return refuse(
                .unauthenticated,
                "the token is of '\(username)', expected a service account (system:serviceaccount:<namespace>:<name>)")
        }
        do {
            let certificate = try current.authority.sign(
                requestDER: requestDER, identity: identity, lifetimeSeconds: lifetimeSeconds, now: now())
            return .success(Signed(certificate: certificate, trustBundle: current.trusted, pod: pod))
        } catch {
            switch error.reason {
            case .malformedRequest, .unsupportedKey, .invalidSignature, .unexpectedContent:
                return refuse(.invalidRequest, error.description)
            case .rootExpired, .signingFailed:
                return refuse(.unavailable, error.description)
            }
        }
    }
}
