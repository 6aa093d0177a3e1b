import MeshControl
import MeshCore
import MeshIdentity
import Synchronization
import Testing

@Suite("Keeping the authority")
struct AuthorityKeeperTests {
    let clock = TestClock()
    let storage = MemoryStorage()

    func keeper(_ changed: @escaping @Sendable (AuthorityKeeper.Current) -> Void = { _ in }) -> AuthorityKeeper {
        var settings = AuthorityKeeper.Settings(trustDomain: "cluster.local")
        settings.rootLifetimeSeconds = 100 * 86_400
        settings.rotation = RootRotation(leadSeconds: 10 * 86_400)
        return AuthorityKeeper(
            settings: settings, storage: storage, now: { [clock] in clock.now }, everyPeerIsCurrent: { true },
            changed: changed)
    }

    @Test("The first control plane makes a root; a restarted one and a second one read it")
    func first() async throws {
        let first = keeper()
        #expect(first.current == nil)
        try await first.step()
        let second = keeper()
        try await second.step()
        #expect(first.current?.trusted == second.current?.trusted)
        #expect(storage.state.withLock { $0.writes } == 1)
        #expect(storage.state.withLock { $0.bundles.count } == 2)
    }

    @Test("Control planes that start together agree on one root")
    func race() async throws {
        let keepers = (0..<8).map { _ in keeper() }
        await withTaskGroup(of: Void.self) { group in
            for keeper in keepers { group.addTask { try? await keeper.step() } }
        }
        let roots = Set(keepers.compactMap { $0.current?.authority.rootDER })
        #expect(roots.count == 1)
        #expect(keepers.allSatisfy { $0.current != nil })
    }

    @Test(
        "A root near its end is followed: published first, signing an hour later, the old one forgotten a day after that"
    )
    func rotation() async throws {
        let changes = Mutex<[Int]>([])
        let keeper = keeper { current in changes.withLock { $0.append(current.trusted.roots.count) } }
        try await keeper.step()
        let old = try #require(keeper.current?.authority.rootDER)
        clock.advance(seconds: 91 * 86_400)
        try await keeper.step()
        #expect(keeper.current?.authority.rootDER == old)
        #expect(keeper.current?.trusted.roots.count == 2)
        clock.advance(seconds: 3601)
        try await keeper.step()
        #expect(keeper.current?.authority.rootDER != old)
        #expect(keeper.current?.trusted.roots.contains(old) == true)
        clock.advance(seconds: 86_701)
        try await keeper.step()
        #expect(keeper.current?.trusted.roots.count == 1)
        #expect(changes.withLock { $0 } == [1, 2, 2, 1])
    }

    @Test("A storage that cannot be reached is an error, not a new root")
    func unreachable() async throws {
        storage.state.withLock { $0.isReachable = false }
        let keeper = keeper()
        await #expect(throws: MemoryStorage.Unreachable.self) { try await keeper.step() }
        #expect(keeper.current == nil)
        storage.state.withLock { $0.isReachable = true }
        try await keeper.step()
        #expect(keeper.current != nil)
    }

    @Test("What is stored and cannot be used is told by its field, and never overwritten")
    func unusable() async throws {
        let garbage = Array("{\"roots\": 3}".utf8)
        storage.state.withLock { $0.stored = StoredAuthority(document: garbage, version: "7") }
        let keeper = keeper()
        await #expect(throws: AuthorityKeeper.Unusable.self) { try await keeper.step() }
        #expect(storage.state.withLock { $0.stored?.document } == garbage)
    }

    @Test("The control plane's own certificate is there as soon as the authority is, and follows time and root")
    func serving() async throws {
        let issued = Mutex<[ServingIdentity]>([])
        let keeper = keeper()
        let serving = ServingCertificate(
            identity: SPIFFEID(trustDomain: "cluster.local", namespace: "apus-system", serviceAccount: "apus-control"),
            dnsNames: ["apus-control.apus-system.svc"], authority: keeper, now: { [clock] in clock.now },
            changed: { identity, _ in issued.withLock { $0.append(identity) } })
        serving.step()
        #expect(serving.current == nil)
        try await keeper.step()
        serving.step()
        serving.step()
        #expect(issued.withLock { $0.count } == 1)
        clock.advance(seconds: 15 * 3600)
        serving.step()
        #expect(issued.withLock { $0.count } == 2)
        clock.advance(seconds: 91 * 86_400)
        try await keeper.step()
        clock.advance(seconds: 3601)
        try await keeper.step()
        serving.step()
        let root = try #require(keeper.current?.authority.rootDER)
        let leaf = try #require(serving.current?.certificate.chain.first)
        let found = try SVIDVerifier.verify(
            leafDER: leaf, roots: [root], allowedTrustDomains: ["cluster.local"], now: clock.now)
        #expect(found.identity.serviceAccount?.name == "apus-control")
    }
}

@Suite("Signing for sidecars")
struct SigningServiceTests {
    let clock = TestClock()

    func service(limits: SigningService.Limits = .init(), loaded: Bool = true) async throws -> SigningService {
        let keeper = AuthorityKeeper(
            settings: AuthorityKeeper.Settings(trustDomain: "cluster.local"), storage: MemoryStorage(),
            now: { [clock] in clock.now }, everyPeerIsCurrent: { true }, changed: { _ in })
        if loaded { try await keeper.step() }
        return SigningService(
            authority: keeper, reviewer: FakeReviewer(), limits: limits, now: { [clock] in clock.now })
    }

    @Test("The identity is the reviewed service account's, whoever asks")
    func signs() async throws {
        let service = try await service()
        let request = try CertificateRequest().requestDER
        let signed = try await service.sign(
            requestDER: request, token: "system:serviceaccount:shop:cart", lifetimeSeconds: 3600
        )
        .get()
        #expect(signed.certificate.identity.description == "spiffe://cluster.local/ns/shop/sa/cart")
        #expect(signed.certificate.notAfter.seconds(since: clock.now) == 3600)
        let leaf = try #require(signed.certificate.chain.first)
        let found = try SVIDVerifier.verify(
            leafDER: leaf, roots: signed.trustBundle.roots, allowedTrustDomains: ["cluster.local"], now: clock.now)
        #expect(found.identity == signed.certificate.identity)
        #expect(service.count(of: .issued) == 1)
    }

    @Test(
        "Each refusal has its outcome and its reason",
        arguments: [
            ("rejected:expired", SigningService.Outcome.unauthenticated, "expired"), ("", .unauthenticated, "0 bytes"),
            (String(repeating: "a", count: 20_000), .unauthenticated, "20000 bytes"),
            ("away", .unavailable, "could not be asked"),
            ("alice", .unauthenticated, "expected a service account"),
            ("system:serviceaccount:shop", .unauthenticated, "expected a service account"),
            ("system:serviceaccount:shop:cart:x", .unauthenticated, "expected a service account"),
            ("system:serviceaccount:shop:a/../b", .unauthenticated, "expected a service account"),
            ("system:serviceaccount::cart", .unauthenticated, "expected a service account"),
        ])
    func refuses(token: String, outcome: SigningService.Outcome, reason: String) async throws {
        let service = try await service()
        let result = await service.sign(
            requestDER: try CertificateRequest().requestDER, token: token, lifetimeSeconds: 0)
        guard case .failure(let refusal) = result else {
            Issue.record("it was signed")
            return
        }
        #expect(refusal.outcome == outcome)
        #expect(refusal.description.contains(reason))
        #expect(service.count(of: outcome) == 1)
    }

    @Test("A request that is not one is the requester's fault; an authority that is not loaded is not")
    func faults() async throws {
        let good = "system:serviceaccount:shop:cart"
        let bad = await (try service()).sign(requestDER: [1, 2, 3], token: good, lifetimeSeconds: 0)
        #expect(throws: SigningService.Refusal.self) { try bad.get() }
        if case .failure(let refusal) = bad { #expect(refusal.outcome == .invalidRequest) }
        let early = await (try service(loaded: false)).sign(
            requestDER: try CertificateRequest().requestDER, token: good, lifetimeSeconds: 0)
        if case .failure(let refusal) = early {
            #expect(refusal.outcome == .unavailable)
        } else {
            Issue.record("signed")
        }
    }

    @Test("The gate lets through what it may, keeps the rest in order, turns away beyond its queue, and forgets nobody")
    func gate() async {
        let gate = AdmissionGate(concurrency: 3, queueLimit: 10)
        let meter = Meter()
        let results = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<200 {
                group.addTask {
                    await gate.pass {
                        meter.enter()
                        for _ in 0..<20 { await Task.yield() }
                        meter.leave()
                        return true
                    } ?? false
                }
            }
            return await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
        #expect(meter.most <= 3)
        #expect(results + Int(gate.turnedAway) == 200)
        #expect(results >= 3)
        #expect(gate.queued == 0)
    }
}

/// How many are somewhere at once, at most.
private final class Meter: Sendable {
    private let counts = Mutex((now: 0, most: 0))

    var most: Int { counts.withLock { $0.most } }

    func enter() { counts.withLock { $0 = ($0.now + 1, max($0.most, $0.now + 1)) } }

    func leave() { counts.withLock { $0.now -= 1 } }
}
