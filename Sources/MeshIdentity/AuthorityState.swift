package import MeshCore

/// The roots of a trust domain and what each is for: what the control plane stores, so that a restart, or another
/// replica, goes on where the last one was.
///
/// A root is published before it signs, so that every peer trusts it by the time it meets a certificate of it, and
/// stays trusted after it has stopped signing until its last certificate has ended.
package struct AuthorityState: Sendable, Hashable, Codable {
    package enum Phase: String, Sendable, Hashable, Codable, CaseIterable {
        /// Trusted; does not sign yet.
        case published
        /// Trusted; signs. Exactly one root is in this phase.
        case signing
        /// Trusted until its last certificate has ended; its key is gone.
        case retired
    }

    package struct Root: Sendable, Hashable, Codable {
        /// PEM.
        package var certificate: String
        /// PKCS#8 in PEM; nil once retired.
        package var privateKey: String?
        package var phase: Phase
        /// When it entered the phase.
        package var since: Timestamp
        package var notAfter: Timestamp

        package var certificateDER: [UInt8]? { try? PEM.certificates(in: certificate).first }

        package var signingRoot: SigningRoot? {
            guard let privateKey, let certificateDER, let key = try? PEM.privateKey(in: privateKey) else { return nil }
            return SigningRoot(certificateDER: certificateDER, privateKeyDER: key)
        }
    }

    package var trustDomain: String
    /// The oldest first.
    package var roots: [Root]
    /// Somebody asked for a new root before the old one's time.
    package var rotationRequested = false

    package struct InvalidState: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    /// The first state of a new mesh: one root that signs at once, because nobody has to learn about it first.
    package init(trustDomain: String, root: SigningRoot, now: Timestamp) throws {
        self.trustDomain = trustDomain
        self.roots = [try Self.entry(root, phase: .signing, now: now)]
    }

    /// Whether a state that was read can be worked with; the reason names the field.
    package func validate(trustDomain expected: String) throws(InvalidState) {
        guard trustDomain == expected else {
            throw InvalidState(
                description:
                    "trustDomain is '\(trustDomain)', expected '\(expected)': a mesh keeps its trust domain; delete the "
                    + "stored authority to begin a new one")
        }
        guard roots.filter({ $0.phase == .signing }).count == 1 else {
            throw InvalidState(
                description: "roots has \(roots.filter { $0.phase == .signing }.count) that sign, expected one")
        }
        for (index, root) in roots.enumerated() {
            guard root.certificateDER != nil else {
                throw InvalidState(description: "roots[\(index)].certificate is not a certificate in PEM")
            }
            guard root.phase == .retired || root.signingRoot != nil else {
                throw InvalidState(description: "roots[\(index)].privateKey is not a PKCS#8 key in PEM")
            }
        }
    }

    /// The root that signs now.
    package var signing: SigningRoot? { roots.first { $0.phase == .signing }?.signingRoot }

    /// Every root that peers have to trust now, the one that signs first.
    package var trusted: TrustBundle {
        let ordered = roots.filter { $0.phase == .signing } + roots.filter { $0.phase != .signing }
        return TrustBundle(trustDomain: trustDomain, roots: ordered.compactMap(\.certificateDER))
    }

    /// Does what `RootRotation` decided.
    package mutating func apply(_ step: RootRotation.Step, now: Timestamp, makeRoot: () throws -> SigningRoot) throws {
        switch step {
        case .wait:
            return
        case .publish:
            roots.append(try Self.entry(try makeRoot(), phase: .published, now: now))
            rotationRequested = false
        case .activate:
            guard let next = roots.firstIndex(where: { $0.phase == .published }) else { return }
            for index in roots.indices where roots[index].phase == .signing {
                roots[index].phase = .retired
                roots[index].since = now
                roots[index].privateKey = nil
            }
            roots[next].phase = .signing
            roots[next].since = now
        case .forget(let index):
            guard roots.indices.contains(index), roots[index].phase == .retired else { return }
            roots.remove(at: index)
        }
    }

    private static func entry(_ root: SigningRoot, phase: Phase, now: Timestamp) throws -> Root {
        guard let notAfter = root.notAfter else { throw InvalidState(description: "the new root is not a certificate") }
        return Root(
            certificate: PEM.bundle([root.certificateDER]), privateKey: PEM.privateKey(root.privateKeyDER),
            phase: phase,
            since: now, notAfter: notAfter)
    }
}

/// When which root does what.
package struct RootRotation: Sendable, Hashable {
    package enum Step: Sendable, Hashable {
        /// Nothing before this moment, unless somebody asks.
        case wait(until: Timestamp)
        /// Make a root and let every peer know it.
        case publish
        /// The published root signs from now on, the one before it no longer.
        case activate
        /// The retired root at this index has no living certificate left.
        case forget(Int)
    }

    /// A new root is published when the one that signs has less than this left.
    package var leadSeconds: Int64
    /// How long a published root waits at least until it signs: peers that are away for shorter miss nothing.
    package var propagationSeconds: Int64
    /// How long a retired root stays trusted: the longest life of a leaf, and a clock's error.
    package var retentionSeconds: Int64

    package init(
        leadSeconds: Int64 = 365 * 86_400, propagationSeconds: Int64 = 3600,
        retentionSeconds: Int64 = CertificateAuthority.Limits.maximumLeafLifetimeSeconds + 300
    ) {
        self.leadSeconds = leadSeconds
        self.propagationSeconds = propagationSeconds
        self.retentionSeconds = retentionSeconds
    }

    /// - Parameter everyPeerTrusts: whether every connected sidecar has acknowledged a bundle with this root (DER).
    package func next(_ state: AuthorityState, now: Timestamp, everyPeerTrusts: ([UInt8]) -> Bool) -> Step {
        for (index, root) in state.roots.enumerated() where root.phase == .retired {
            if now >= root.since.advanced(bySeconds: retentionSeconds) { return .forget(index) }
        }
        guard let signing = state.roots.first(where: { $0.phase == .signing }) else { return .publish }
        if let published = state.roots.first(where: { $0.phase == .published }) {
            let ready = published.since.advanced(bySeconds: propagationSeconds)
            guard now >= ready else { return .wait(until: ready) }
            // A peer that never acknowledges may not keep the mesh on a root that is about to end.
            let mustSign = signing.notAfter.advanced(bySeconds: -retentionSeconds)
            if now >= mustSign || published.certificateDER.map(everyPeerTrusts) ?? false { return .activate }
            return .wait(until: min(mustSign, now.advanced(bySeconds: 60)))
        }
        let due = signing.notAfter.advanced(bySeconds: -leadSeconds)
        if state.rotationRequested || now >= due { return .publish }
        let forgetting = state.roots.filter { $0.phase == .retired }.map {
            $0.since.advanced(bySeconds: retentionSeconds)
        }
        return .wait(until: ([due] + forgetting).min() ?? due)
    }
}
