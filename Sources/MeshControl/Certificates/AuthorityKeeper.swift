internal import Foundation
internal import Logging
package import MeshCore
package import MeshIdentity
internal import Synchronization

/// Where the authority's state is kept: the Secret `apus-ca` in production, a variable in tests.
package protocol AuthorityStorage: Sendable {
    /// Nil when nothing was stored yet.
    func load() async throws -> StoredAuthority?
    /// Stores only when what is there now is what `version` names (nil: nothing); false when somebody else was faster.
    func store(_ document: [UInt8], replacing version: String?) async throws -> Bool
    /// Makes the trusted roots known to those who have no stream: the injector and the offline `apus inject`.
    func publish(bundle: String) async throws
}

package struct StoredAuthority: Sendable, Hashable {
    /// `AuthorityState` in JSON.
    package var document: [UInt8]
    package var version: String

    package init(document: [UInt8], version: String) {
        self.document = document
        self.version = version
    }
}

/// Keeps the certificate authority: loads or creates it, rotates its root when the time has come, and tells everybody.
///
/// Several control planes may share one storage: whoever stores first wins, the others read what was stored.
package final class AuthorityKeeper: Sendable {
    package struct Settings: Sendable, Hashable {
        package var trustDomain: String
        package var rootLifetimeSeconds = SigningRoot.defaultLifetimeSeconds
        package var limits = CertificateAuthority.Limits()
        package var rotation = RootRotation()
        /// How often it looks whether something is to be done.
        package var stepSeconds = 60.0

        package init(trustDomain: String) {
            self.trustDomain = trustDomain
        }
    }

    package struct Current: Sendable {
        package let authority: CertificateAuthority
        package let trusted: TrustBundle
    }

    /// A state that will not become right by trying again.
    package struct Unusable: Error, CustomStringConvertible {
        package let description: String
    }

    private struct State {
        var current: Current?
        var stored: AuthorityState?
        var version: String?
        var publishedBundle: String?
        var trouble: String?
    }

    private let settings: Settings
    private let storage: any AuthorityStorage
    private let now: @Sendable () -> Timestamp
    private let everyPeerIsCurrent: @Sendable () async -> Bool
    private let changed: @Sendable (Current) -> Void
    private let state = Mutex(State())
    private let logger = Logger(label: "apus.control.authority")

    /// - Parameters:
    ///   - everyPeerIsCurrent: whether every connected sidecar has acknowledged all that it was sent, the newest bundle
    ///     included.
    ///   - changed: called whenever another root signs or other roots are trusted, the first time included.
    package init(
        settings: Settings, storage: any AuthorityStorage, now: @escaping @Sendable () -> Timestamp,
        everyPeerIsCurrent: @escaping @Sendable () async -> Bool, changed: @escaping @Sendable (Current) -> Void
    ) {
        self.settings = settings
        self.storage = storage
        self.now = now
        self.everyPeerIsCurrent = everyPeerIsCurrent
        self.changed = changed
    }

    /// Nil until it is loaded.
    package var current: Current? { state.withLock { $0.current } }
    /// Why the last step failed; nil when it did not.
    package var trouble: String? { state.withLock { $0.trouble } }

    /// Works until cancelled: looks once a minute (`stepSeconds`), and after a failure again in 1 to 30 seconds.
    package func run() async {
        var failures = 0
        while !Task.isCancelled {
            var pause = settings.stepSeconds
            do {
                try await step()
                failures = 0
                state.withLock { $0.trouble = nil }
            } catch is CancellationError {
                return
            } catch {
                failures += 1
                pause = min(30, Double(1 << min(failures - 1, 5))) * Double.random(in: 0.5...1)
                state.withLock { $0.trouble = "\(error)" }
                logger.error("the certificate authority cannot be loaded or kept: \(error)")
            }
            try? await Task.sleep(for: .seconds(pause))
        }
    }

    /// Reads what is stored, makes it when there is nothing, and does the next step of a rotation that is due.
    package func step() async throws {
        var (loaded, version) = try await load()
        // A rotation may have several steps due at once after a long absence; each is stored before the next.
        for _ in 0..<4 {
            let allCurrent = await everyPeerIsCurrent()
            let next = settings.rotation.next(loaded, now: now()) { _ in allCurrent }
            if case .wait = next { break }
            var changedState = loaded
            try changedState.apply(next, now: now()) {
                try SigningRoot.create(
                    trustDomain: settings.trustDomain, lifetimeSeconds: settings.rootLifetimeSeconds, now: now())
            }
            logger.notice("rotating the root: \(next)")
            if try await storage.store(try JSONEncoder().encode(changedState).bytes, replacing: version) {
                loaded = changedState
            }
            (loaded, version) = try await load()
            // What is published now is known to nobody yet, whatever every peer has acknowledged so far.
            if case .publish = next { break }
        }
        try adopt(loaded, version: version)
        let bundle = PEM.bundle(loaded.trusted.roots)
        if state.withLock({ $0.publishedBundle != bundle }) {
            try await storage.publish(bundle: bundle)
            state.withLock { $0.publishedBundle = bundle }
        }
    }

    private func load() async throws -> (AuthorityState, String) {
        for _ in 0..<5 {
            if let stored = try await storage.load() { return (try decode(stored), stored.version) }
            let root = try SigningRoot.create(
                trustDomain: settings.trustDomain, lifetimeSeconds: settings.rootLifetimeSeconds, now: now())
            let first = try AuthorityState(trustDomain: settings.trustDomain, root: root, now: now())
            if try await storage.store(try JSONEncoder().encode(first).bytes, replacing: nil) {
                logger.notice("made a new root for the trust domain \(settings.trustDomain)")
            }
        }
        throw Unusable(description: "the authority's state was stored and is not there")
    }

    private func decode(_ stored: StoredAuthority) throws -> AuthorityState {
        let decoded: AuthorityState
        do {
            decoded = try JSONDecoder().decode(AuthorityState.self, from: Data(stored.document))
        } catch {
            throw Unusable(description: "the stored authority cannot be read: \(error)")
        }
        try decoded.validate(trustDomain: settings.trustDomain)
        return decoded
    }

    private func adopt(_ loaded: AuthorityState, version: String) throws {
        let isKnown = state.withLock { $0.stored == loaded }
        guard !isKnown else { return }
        guard let root = loaded.signing else {
            throw Unusable(description: "the stored authority has no root that signs")
        }
        let current = Current(
            authority: try CertificateAuthority(trustDomain: settings.trustDomain, root: root, limits: settings.limits),
            trusted: loaded.trusted)
        state.withLock { state in
            state.stored = loaded
            state.version = version
            state.current = current
        }
        changed(current)
    }
}

extension Data {
    var bytes: [UInt8] { Array(self) }
}
