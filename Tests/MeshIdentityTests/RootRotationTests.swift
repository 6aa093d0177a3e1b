import Foundation
import MeshCore
import MeshIdentity
import Testing

@Suite("Rotation of the root")
struct RootRotationTests {
    let start = Timestamp(unixSeconds: 1_800_000_000)
    let rotation = RootRotation(leadSeconds: 10 * 86_400, propagationSeconds: 3600, retentionSeconds: 86_700)

    func root(days: Int64 = 100) throws -> SigningRoot {
        try SigningRoot.create(trustDomain: "cluster.local", lifetimeSeconds: days * 86_400, now: start)
    }

    @Test("A leaf of either root verifies at every moment of a rotation, and each root signs only while all trust it")
    func whole() throws {
        var state = try AuthorityState(trustDomain: "cluster.local", root: root(), now: start)
        var now = start
        var steps: [RootRotation.Step] = []
        var living: [(leaf: [UInt8], end: Timestamp)] = []
        let identity = SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: "cart")
        let request = try CertificateRequest().requestDER
        var peers = state.trusted
        let end = start.advanced(bySeconds: 95 * 86_400)
        while now < end {
            let step = rotation.next(state, now: now) { peers.roots.contains($0) }
            if case .wait = step {} else { steps.append(step) }
            try state.apply(step, now: now) { try SigningRoot.create(trustDomain: "cluster.local", now: now) }
            try state.validate(trustDomain: "cluster.local")
            let signing = try #require(state.signing)
            let issued = try CertificateAuthority(trustDomain: "cluster.local", root: signing)
                .sign(requestDER: request, identity: identity, now: now)
            living.append((issued.chain[0], issued.notAfter))
            living.removeAll { $0.end <= now }
            for leaf in [living.first, living.last].compactMap({ $0 }) {
                let found = try SVIDVerifier.verify(
                    leafDER: leaf.leaf, roots: peers.roots, allowedTrustDomains: ["cluster.local"], now: now)
                #expect(found.identity == identity)
            }
            peers = state.trusted
            now = now.advanced(bySeconds: 1800)
        }
        #expect(steps == [.publish, .activate, .forget(0)])
        #expect(state.roots.count == 1)
    }

    @Test("A peer that does not know the new root holds its activation up, until the old root is about to end")
    func laggard() throws {
        var state = try AuthorityState(trustDomain: "cluster.local", root: root(days: 100), now: start)
        let due = start.advanced(bySeconds: 90 * 86_400)
        #expect(rotation.next(state, now: due) { _ in false } == .publish)
        try state.apply(.publish, now: due) { try root(days: 1000) }
        let later = due.advanced(bySeconds: 5 * 86_400)
        #expect(rotation.next(state, now: later) { _ in false } == .wait(until: later.advanced(bySeconds: 60)))
        #expect(rotation.next(state, now: later) { _ in true } == .activate)
        #expect(rotation.next(state, now: start.advanced(bySeconds: 99 * 86_400)) { _ in false } == .activate)
    }

    @Test("A rotation that is asked for begins at once; the retired root's key is gone")
    func requested() throws {
        var state = try AuthorityState(trustDomain: "cluster.local", root: root(), now: start)
        #expect(rotation.next(state, now: start) { _ in true } == .wait(until: start.advanced(bySeconds: 90 * 86_400)))
        state.rotationRequested = true
        #expect(rotation.next(state, now: start) { _ in true } == .publish)
        try state.apply(.publish, now: start) { try root() }
        #expect(!state.rotationRequested)
        #expect(state.trusted.roots.count == 2)
        try state.apply(.activate, now: start) { try root() }
        #expect(state.roots.map(\.phase) == [.retired, .signing])
        #expect(state.roots[0].privateKey == nil)
        #expect(state.trusted.roots.count == 2)
    }

    @Test("A stored state comes back, and one that cannot be used says why")
    func stored() throws {
        let state = try AuthorityState(trustDomain: "cluster.local", root: root(), now: start)
        let back = try JSONDecoder().decode(AuthorityState.self, from: JSONEncoder().encode(state))
        #expect(back == state)
        #expect(back.signing == state.signing)
        #expect(throws: AuthorityState.InvalidState.self) { try back.validate(trustDomain: "other") }
        var broken = state
        broken.roots[0].privateKey = "nothing"
        #expect(throws: AuthorityState.InvalidState.self) { try broken.validate(trustDomain: "cluster.local") }
        broken.roots = []
        #expect(throws: AuthorityState.InvalidState.self) { try broken.validate(trustDomain: "cluster.local") }
    }
}
