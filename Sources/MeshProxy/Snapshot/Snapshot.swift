import MeshAddress
import MeshCore

/// What one loop believes about the mesh. Only `apply` changes it, between two rounds of the loop, so that whatever reads it
/// during a round reads one state, without a lock.
final class Snapshot {
    /// More dialled addresses than this are not remembered: a caller of the next one is told so.
    static let destinationLimit = 65_536
    /// A service that has just become known and has no endpoint yet is given this long for them to follow.
    static let settlingNanoseconds: Int64 = 100_000_000
    /// An unanswered question is asked again after this long.
    private static let askAgainNanoseconds: Int64 = 500_000_000

    enum Resolution {
        case route(RouteTarget)
        /// Asked for; the answer comes as a change.
        case pending
        /// No room for another question.
        case overflow
    }

    private final class Entry {
        var destination: Destination?
        var target: RouteTarget?
        var lastUsed: Int64
        var asked = Int64.min

        init(lastUsed: Int64) {
            self.lastUsed = lastUsed
        }
    }

    private final class ServiceEntry {
        var service: Service?
        var knownSince: Int64 = 0
        var endpoints: [IPAddress: Endpoint] = [:]
        var targets: [UInt16: RouteTarget] = [:]
    }

    unowned let loop: ProxyLoop
    private(set) var own: SidecarConfiguration?
    /// Whose identities are accepted from callers.
    private(set) var trustDomains: Set<String>
    private var destinations: [SocketAddress: Entry] = [:]
    private var services: [ObjectName: ServiceEntry] = [:]
    private var controlAddresses: [IPAddress] = []
    private(set) var changesApplied: UInt64 = 0

    init(loop: ProxyLoop) {
        self.loop = loop
        trustDomains = [loop.configuration.trustDomain]
    }

    // MARK: - Reading

    func resolve(_ address: SocketAddress) -> Resolution {
        let now = loop.now
        let entry: Entry
        if let known = destinations[address] {
            entry = known
        } else {
            guard destinations.count < Snapshot.destinationLimit else { return .overflow }
            entry = Entry(lastUsed: now)
            destinations[address] = entry
        }
        entry.lastUsed = now
        if let target = target(of: entry, address) { return .route(target) }
        if now &- entry.asked >= Snapshot.askAgainNanoseconds || entry.asked == .min {
            entry.asked = now
            loop.ask(address)
        }
        return .pending
    }

    private func target(of entry: Entry, _ address: SocketAddress) -> RouteTarget? {
        switch entry.destination {
        case nil:
            return nil
        case .service(let name, let port):
            guard let known = services[name], let service = known.service else { return nil }
            if known.endpoints.isEmpty, loop.now &- known.knownSince < Snapshot.settlingNanoseconds { return nil }
            return target(of: known, service, port)
        case .workload(let workload):
            if let target = entry.target { return target }
            let target = RouteTarget(
                loop: loop, kind: .workload, port: address.port, service: workload.service, decision: .byAddress,
                declaredProtocol: workload.ports[address.port], balancing: .random)
            target.hint = workload.learnedPorts[address.port]
            target.update(address, security(workload, port: address.port), workload: workload, isReady: true)
            entry.target = target
            return target
        case .unknown:
            if let target = entry.target { return target }
            let target = passthrough(address)
            entry.target = target
            return target
        }
    }

    func passthrough(_ address: SocketAddress) -> RouteTarget {
        let target = RouteTarget(
            loop: loop, kind: .passthrough, port: address.port, service: nil, decision: .byAddress,
            declaredProtocol: nil, balancing: .random)
        target.update(address, .plaintext, workload: nil, isReady: true)
        return target
    }

    private func target(of entry: ServiceEntry, _ service: Service, _ port: UInt16) -> RouteTarget {
        if let target = entry.targets[port] { return target }
        let target = RouteTarget(
            loop: loop, kind: .service(service.name, port: port), port: port, service: service.name,
            decision: Router.route(service),
            declaredProtocol: service.port(port)?.declaredProtocol, balancing: service.loadBalancing)
        target.hint = service.port(port)?.learnedProtocol
        entry.targets[port] = target
        for endpoint in entry.endpoints.values.sorted(by: {
            ($0.address.high, $0.address.low) < ($1.address.high, $1.address.low)
        }) {
            update(target, port: port, endpoint)
        }
        return target
    }

    /// TLS wherever a sidecar answers; the pod's own address is its own application, which no sidecar stands before.
    private func security(_ workload: Workload?, port: UInt16) -> Upstream.Security {
        guard let workload, workload.isMeshed, let identity = workload.identity,
            !workload.skippedInboundPorts.contains(port)
        else { return .plaintext }
        if let own, !Set(own.workload.addresses).isDisjoint(with: workload.addresses) { return .plaintext }
        return .mesh(identity)
    }

    /// Whether an address lies where the mesh's own do: near this pod, a service or an endpoint that is known, or the control
    /// plane. A mesh takes its addresses from few networks, and is known to span at least these.
    func mayBeInMesh(_ ip: IPAddress) -> Bool {
        func isNear(_ addresses: some Sequence<IPAddress>) -> Bool { addresses.contains { $0.sharesNetwork(with: ip) } }
        if isNear(own?.workload.addresses ?? []) || isNear(controlAddresses) { return true }
        for entry in services.values {
            if isNear(entry.service?.addresses ?? []) { return true }
            if isNear(entry.endpoints.values.lazy.filter { $0.workload != nil }.map(\.address)) { return true }
        }
        return destinations.contains { address, entry in
            guard case .workload = entry.destination else { return false }
            return address.ip.sharesNetwork(with: ip)
        }
    }

    // MARK: - Changing

    func apply(_ change: SnapshotChange) {
        changesApplied &+= 1
        switch change {
        case .destination(let address, let destination):
            let entry = destinations[address] ?? Entry(lastUsed: loop.now)
            destinations[address] = entry
            guard entry.destination != destination else { return }
            if let target = entry.target, let known = entry.destination, known.isSame(as: destination) {
                entry.destination = destination
                if case .workload(let workload) = destination { target.hint = workload.learnedPorts[address.port] }
                return
            }
            entry.destination = destination
            entry.target?.removeAll()
            entry.target = nil
        case .destinationForgotten(let address):
            destinations.removeValue(forKey: address)?.target?.removeAll()
        case .service(let service):
            let entry = entry(service.name)
            if entry.service == nil { entry.knownSince = loop.now }
            entry.service = service
            for (port, target) in entry.targets { target.update(service, port: port) }
        case .serviceRemoved(let name):
            guard let entry = services.removeValue(forKey: name) else { return }
            for target in entry.targets.values { target.removeAll() }
        case .endpoint(let endpoint):
            let entry = entry(endpoint.service)
            entry.endpoints[endpoint.address] = endpoint
            for (port, target) in entry.targets { update(target, port: port, endpoint) }
        case .endpointRemoved(let service, let address):
            guard let entry = services[service] else { return }
            entry.endpoints.removeValue(forKey: address)
            for target in entry.targets.values { target.remove(address) }
        case .controlAddresses(let addresses):
            controlAddresses = addresses
        case .trustDomains(let names):
            trustDomains = names.union([own?.trustDomain ?? loop.configuration.trustDomain])
        case .own(let value):
            trustDomains.insert(value.trustDomain)
            let addressesChanged = own?.workload.addresses != value.workload.addresses
            own = value
            guard addressesChanged else { return }
            for entry in services.values {
                for (port, target) in entry.targets {
                    for endpoint in entry.endpoints.values { update(target, port: port, endpoint) }
                }
            }
        }
    }

    private func entry(_ name: ObjectName) -> ServiceEntry {
        if let entry = services[name] { return entry }
        let entry = ServiceEntry()
        services[name] = entry
        return entry
    }

    private func update(_ target: RouteTarget, port: UInt16, _ endpoint: Endpoint) {
        guard let targetPort = endpoint.targetPorts[port] else {
            target.remove(endpoint.address)
            return
        }
        target.update(
            SocketAddress(endpoint.address, targetPort), security(endpoint.workload, port: targetPort),
            workload: endpoint.workload, isReady: endpoint.isReady)
    }

    // MARK: - Housekeeping

    /// Addresses dialled since `time`.
    func destinationsUsed(since time: Int64) -> [SocketAddress] {
        destinations.filter { $0.value.lastUsed >= time }.map(\.key)
    }

    func forEachTarget(_ body: (RouteTarget) -> Void) {
        for entry in services.values { for target in entry.targets.values { body(target) } }
        for entry in destinations.values { if let target = entry.target { body(target) } }
    }

    /// What `apus proxy config` shows.
    var dump: SnapshotDump {
        SnapshotDump(
            destinations: destinations.map { address, entry in
                SnapshotDump.Destination(address: address, answer: entry.destination)
            },
            services: services.compactMap { _, entry in
                guard let service = entry.service else { return nil }
                return SnapshotDump.Service(
                    service: service, endpoints: Array(entry.endpoints.values),
                    targets: entry.targets.map { port, target in target.dump(port: port) })
            },
            learnedPorts: loop.learnedPorts)
    }
}

extension Destination {
    /// Whether nothing differs but what was learned, which is no reason to give up connections.
    fileprivate func isSame(as other: Destination) -> Bool {
        guard case .workload(var left) = self, case .workload(let right) = other else { return self == other }
        left.learnedPorts = right.learnedPorts
        return left == right
    }
}

extension IPAddress {
    /// IPv4: the same /16; IPv6: the same /64.
    fileprivate func sharesNetwork(with other: IPAddress) -> Bool {
        guard isV4 == other.isV4 else { return false }
        return isV4 ? low >> 16 == other.low >> 16 : high == other.high
    }
}
