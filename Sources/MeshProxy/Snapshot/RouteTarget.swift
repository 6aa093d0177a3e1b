import MeshAddress
import MeshCore

/// What a dialled address leads to: the endpoints of a service's port, one workload, the application in this pod, or an
/// address outside the mesh. Everything that balancing remembers about it lives here, on one loop.
final class RouteTarget {
    enum Kind: Equatable {
        case service(ObjectName, port: UInt16)
        /// A pod dialled by its own address.
        case workload
        /// The application in this pod.
        case local
        /// An address that the mesh does not know.
        case passthrough
    }

    unowned let loop: ProxyLoop
    let kind: Kind
    /// The service to name in labels, if there is one.
    let service: ObjectName?
    private(set) var decision: RouteDecision
    /// What it speaks by declaration; nil when that has to be learned.
    private(set) var declaredProtocol: ApplicationProtocol?
    /// What connections to it turned out to speak, where nothing is declared.
    private(set) var memory = ProtocolMemory()
    /// What other sidecars found out, as discovery tells.
    var hint: LearnedProtocol?
    var declaresHTTP: Bool { declaredProtocol?.isHTTP ?? false }
    private(set) var balancer: Balancer
    var budget = RetryBudget()
    /// Every endpoint that serves the port.
    private(set) var upstreams: [Upstream] = []
    /// Those that a request may go to: ready, and not ejected unless it is time to probe.
    private var candidates: [Upstream] = []
    private(set) var ejectedCount = 0
    /// When the first ejection in force runs out.
    private var nextProbe = Int64.max
    private(set) var isRemoved = false
    var lastUsed: Int64
    /// Where requests that reach no endpoint are counted.
    var edge = CachedEdge()
    /// The port dialled, for labels.
    let port: UInt16

    init(
        loop: ProxyLoop, kind: Kind, port: UInt16, service: ObjectName?, decision: RouteDecision,
        declaredProtocol: ApplicationProtocol?,
        balancing: LoadBalancing
    ) {
        self.loop = loop
        self.kind = kind
        self.port = port
        self.service = service
        self.decision = decision
        self.declaredProtocol = declaredProtocol
        balancer = Balancer(policy: balancing)
        lastUsed = loop.now
    }

    // MARK: - Protocol

    /// How a connection's protocol is to be found out.
    var detectionPlan: DetectionPlan {
        .make(declared: declaredProtocol, learned: memory.expectation(hint: hint))
    }

    /// The server has answered somebody who spoke this.
    @inline(__always)
    func prove(_ proven: LearnedProtocol) {
        guard declaredProtocol == nil, memory.learned != proven, kind != .passthrough else { return }
        learn(proven)
    }

    private func learn(_ proven: LearnedProtocol) {
        if !memory.observe(proven) { loop.counters.learnedContradicted &+= 1 }
    }

    // MARK: - Choosing

    /// An endpoint that was not tried yet; one that was, when there is no other and `tried` may be repeated.
    @inline(__always)
    func pick(excluding tried: [Upstream]) -> Upstream? {
        let now = loop.now
        if now >= nextProbe { rebuildCandidates() }
        let candidates = candidates
        if candidates.count == 1, tried.isEmpty {
            let only = candidates[0]
            if only.isHealthy { return only }
        }
        return choose(candidates, tried, now) ?? (tried.isEmpty ? nil : choose(candidates, [], now))
    }

    private func choose(_ candidates: [Upstream], _ tried: [Upstream], _ now: Int64) -> Upstream? {
        let index = balancer.pick(
            count: candidates.count, random: &loop.random,
            isExcluded: { index in
                let candidate = candidates[index]
                if !candidate.isHealthy, !candidate.mayProbe(now: now) { return true }
                return tried.contains { $0 === candidate }
            },
            load: { candidates[$0].load(now: now) },
            passedOver: { loser, winner in candidates[loser].latency.passOver(for: candidates[winner].latency) })
        guard let index else { return nil }
        let chosen = candidates[index]
        if !chosen.isHealthy, !OutlierDetector.admits(&chosen.health, now: now) { return nil }
        return chosen
    }

    /// Why `pick` found nothing.
    var emptiness: ProxyError {
        upstreams.isEmpty || !upstreams.contains { !$0.isHealthy } ? .noEndpoints : .allEndpointsEjected
    }

    func rebuildCandidates() {
        let now = loop.now
        nextProbe = .max
        ejectedCount = 0
        var ready: [Upstream] = []
        var terminating: [Upstream] = []
        var ejected: [Upstream] = []
        for upstream in upstreams {
            if case .ejected(let until) = upstream.health.state {
                ejectedCount += 1
                if until > now {
                    nextProbe = min(nextProbe, until)
                    ejected.append(upstream)
                    continue
                }
            } else if !upstream.isHealthy {
                ejectedCount += 1
            }
            if upstream.withdrawnUntil > now {
                nextProbe = min(nextProbe, upstream.withdrawnUntil)
                terminating.append(upstream)
            } else if upstream.isReady {
                ready.append(upstream)
            } else {
                terminating.append(upstream)
            }
        }
        candidates = ready.isEmpty ? terminating : ready
        if candidates.isEmpty, !ejected.isEmpty {
            // Every endpoint that is left was ejected while it had company: an ejected one is better than none.
            for upstream in ejected { upstream.health = EndpointHealth() }
            ejectedCount = 0
            nextProbe = .max
            candidates = ejected
        }
    }

    /// Judges success rates over the interval that ends.
    func endInterval() {
        guard upstreams.count > 1 else { return }
        var healths = upstreams.map(\.health)
        let ejected = OutlierDetector.endInterval(&healths, now: loop.now)
        for (upstream, health) in zip(upstreams, healths) { upstream.health = health }
        guard !ejected.isEmpty else { return }
        loop.counters.ejections &+= UInt64(ejected.count)
        rebuildCandidates()
    }

    // MARK: - Keeping up with discovery

    func update(_ service: Service, port: UInt16) {
        decision = Router.route(service)
        let known = service.port(port)
        declaredProtocol = known?.declaredProtocol
        hint = known?.learnedProtocol
        if balancer.policy != service.loadBalancing { balancer = Balancer(policy: service.loadBalancing) }
    }

    /// Takes in an endpoint, new or changed. An endpoint whose address, port and identity are what they were keeps its
    /// connections and what is known of it.
    func update(_ address: SocketAddress, _ security: Upstream.Security, workload: Workload?, isReady: Bool) {
        if let index = upstreams.firstIndex(where: { $0.address.ip == address.ip }) {
            let known = upstreams[index]
            if known.address == address, known.security == security {
                if known.workload != workload {
                    known.workload = workload
                    known.edge = CachedEdge()
                }
                known.isReady = isReady
                rebuildCandidates()
                return
            }
            upstreams.remove(at: index)
            known.retire()
        }
        upstreams.append(
            Upstream(
                loop: loop, target: self, address: address, security: security, workload: workload, isReady: isReady))
        rebuildCandidates()
    }

    func remove(_ ip: IPAddress) {
        guard let index = upstreams.firstIndex(where: { $0.address.ip == ip }) else { return }
        let upstream = upstreams.remove(at: index)
        rebuildCandidates()
        upstream.retire()
    }

    /// Nothing leads here any more. Exchanges under way end by themselves; the next request on a kept connection asks anew.
    func removeAll() {
        isRemoved = true
        let old = upstreams
        upstreams = []
        rebuildCandidates()
        for upstream in old { upstream.retire() }
    }

    var isUnused: Bool { upstreams.allSatisfy(\.isUnused) }
}

extension Upstream {
    /// Whether its ejection is over and no other request is finding out how it is.
    func mayProbe(now: Int64) -> Bool {
        switch health.state {
        case .healthy: true
        case .ejected(let until): now >= until
        case .probing(let inFlight): !inFlight
        }
    }
}
