package import MeshAddress
package import MeshCore

/// What runs where, as discovery asks for it: every service, endpoint and pod, found by name and by address.
///
/// A value that lives on one loop. `apply` tells what a change changes for sidecars, and nothing else: an event that
/// repeats what is known changes nothing, and one endpoint's coming or going touches that endpoint alone.
package struct Catalog: Sendable {
    package private(set) var settings: MeshSettings
    package private(set) var isSynchronized = false
    package private(set) var services: [ObjectName: Service] = [:]
    package private(set) var workloads: [ObjectName: Workload] = [:]
    package private(set) var endpointCount = 0

    /// What pods' own sidecars found out of ports that nobody declares; gone with the pod.
    private var learnedByPod: [ObjectName: [UInt16: LearnedProtocol]] = [:]
    private var servicesByEndpoint: [IPAddress: [ObjectName]] = [:]
    private var endpointsByService: [ObjectName: [IPAddress: Endpoint]] = [:]
    /// Who claims a service address. There is one, but for the moment in which an address passes from one service to
    /// another.
    private var servicesByAddress: [IPAddress: [ObjectName]] = [:]
    /// Who has a pod address, the latest last: an address is given out again while its last owner's removal is still on
    /// its way.
    private var workloadsByAddress: [IPAddress: [ObjectName]] = [:]

    package init(settings: MeshSettings = MeshSettings()) {
        self.settings = settings
    }

    /// Something that sidecars may have been told and must be told anew.
    package enum Change: Sendable, Hashable {
        /// The service came, changed or went. Its endpoints are changes of their own.
        case service(ObjectName)
        /// One endpoint came, changed or went.
        case endpoint(service: ObjectName, address: IPAddress)
        /// What this address is, on any port, has another answer.
        case address(IPAddress)
        /// What the sidecar of this pod must know of itself.
        case configuration(pod: ObjectName)
        /// The same for every sidecar.
        case everyConfiguration
        /// Answers may be given from here on.
        case synchronized
    }

    // MARK: Asking

    /// What an application dialled. A service's address on a port that the service does not have is nothing.
    package func destination(for address: SocketAddress) -> Destination {
        if let names = servicesByAddress[address.ip] {
            for name in names where services[name]?.port(address.port) != nil {
                return .service(name, port: address.port)
            }
            return .unknown
        }
        if let name = workloadsByAddress[address.ip]?.last, var workload = workloads[name] {
            workload.learnedPorts = learnedByPod[name]?.filter { workload.ports[$0.key] == nil } ?? [:]
            return .workload(workload)
        }
        return .unknown
    }

    /// A service with what was learned of its ports: what most of its endpoints' own sidecars say, one voice each. Nobody
    /// is heard about another's pod, and where as many say otherwise nothing is told.
    package func serviceAsLearned(_ name: ObjectName) -> Service? {
        guard var service = services[name] else { return nil }
        for index in service.ports.indices where service.ports[index].declaredProtocol == nil {
            service.ports[index].learnedProtocol = learned(of: name, port: service.ports[index].port)
        }
        return service
    }

    private func learned(of service: ObjectName, port: UInt16) -> LearnedProtocol? {
        guard !learnedByPod.isEmpty else { return nil }
        var voices: [LearnedProtocol: Int] = [:]
        for endpoint in (endpointsByService[service] ?? [:]).values {
            guard let pod = endpoint.workload?.pod, let target = endpoint.targetPorts[port],
                let said = learnedByPod[pod]?[target]
            else { continue }
            voices[said, default: 0] += 1
        }
        guard let loudest = voices.max(by: { $0.value < $1.value }) else { return nil }
        return 2 * loudest.value > voices.values.reduce(0, +) ? loudest.key : nil
    }

    /// What a pod's sidecar has found out by now.
    package func learnedPorts(of pod: ObjectName) -> [UInt16: LearnedProtocol] { learnedByPod[pod] ?? [:] }

    /// Ordered by address, so that every reader sees the same order.
    package func endpoints(of service: ObjectName) -> [Endpoint] {
        (endpointsByService[service] ?? [:]).values.sorted { left, right in
            (left.address.high, left.address.low) < (right.address.high, right.address.low)
        }
    }

    package func endpoint(of service: ObjectName, at address: IPAddress) -> Endpoint? {
        endpointsByService[service]?[address]
    }

    package func workload(at address: IPAddress) -> Workload? {
        workloadsByAddress[address]?.last.flatMap { workloads[$0] }
    }

    package func configuration(of pod: ObjectName) -> SidecarConfiguration? {
        guard let workload = workloads[pod] else { return nil }
        return SidecarConfiguration(
            workload: workload, trustDomain: settings.trustDomain, plaintext: settings.plaintext(in: pod.namespace),
            unknownDestinations: settings.unknownDestinations)
    }

    // MARK: Changing

    /// Takes one event and returns what it changed, in the order in which sidecars have to learn it.
    package mutating func apply(_ event: CatalogEvent) -> [Change] {
        switch event {
        case .service(let service): setService(service)
        case .serviceRemoved(let name): removeService(name)
        case .endpoint(let endpoint): setEndpoint(endpoint)
        case .endpointRemoved(let service, let address): removeEndpoint(service: service, address: address)
        case .workload(let workload): setWorkload(workload)
        case .workloadRemoved(let name): removeWorkload(name)
        case .settings(let settings): setSettings(settings)
        case .synchronized: setSynchronized()
        }
    }

    /// Takes what a pod's own sidecar says of its ports, all of it; of a pod that is not known nothing is kept.
    package mutating func learn(_ ports: [UInt16: LearnedProtocol], of pod: ObjectName) -> [Change] {
        guard let workload = workloads[pod], (learnedByPod[pod] ?? [:]) != ports else { return [] }
        learnedByPod[pod] = ports.isEmpty ? nil : ports
        return services(at: workload.addresses).map(Change.service) + workload.addresses.map(Change.address)
    }

    private func services(at addresses: [IPAddress]) -> Set<ObjectName> {
        Set(addresses.flatMap { servicesByEndpoint[$0] ?? [] })
    }

    private mutating func setService(_ service: Service) -> [Change] {
        let old = services.updateValue(service, forKey: service.name)
        guard old != service else { return [] }
        let before = Set(old?.addresses ?? [])
        let after = Set(service.addresses)
        for gone in before.subtracting(after) { releaseAddress(gone, of: service.name) }
        for new in after.subtracting(before) {
            servicesByAddress[new, default: []].append(service.name)
        }
        let portsMoved = old.map { Set($0.ports.map(\.port)) } != Set(service.ports.map(\.port))
        let touched = portsMoved ? before.union(after) : before.symmetricDifference(after)
        return [.service(service.name)] + touched.map(Change.address)
    }

    private mutating func removeService(_ name: ObjectName) -> [Change] {
        guard let old = services.removeValue(forKey: name) else { return [] }
        for address in Set(old.addresses) { releaseAddress(address, of: name) }
        return Set(old.addresses).map(Change.address) + [.service(name)]
    }

    private mutating func releaseAddress(_ address: IPAddress, of name: ObjectName) {
        servicesByAddress[address]?.removeAll { $0 == name }
        if servicesByAddress[address]?.isEmpty == true { servicesByAddress[address] = nil }
    }

    private mutating func setEndpoint(_ endpoint: Endpoint) -> [Change] {
        let old = endpointsByService[endpoint.service, default: [:]].updateValue(endpoint, forKey: endpoint.address)
        if old == nil {
            endpointCount += 1
            servicesByEndpoint[endpoint.address, default: []].append(endpoint.service)
        }
        return old == endpoint ? [] : [.endpoint(service: endpoint.service, address: endpoint.address)]
    }

    private mutating func removeEndpoint(service: ObjectName, address: IPAddress) -> [Change] {
        guard endpointsByService[service]?.removeValue(forKey: address) != nil else { return [] }
        endpointCount -= 1
        servicesByEndpoint[address]?.removeAll { $0 == service }
        if servicesByEndpoint[address]?.isEmpty == true { servicesByEndpoint[address] = nil }
        if endpointsByService[service]?.isEmpty == true { endpointsByService[service] = nil }
        return [.endpoint(service: service, address: address)]
    }

    private mutating func setWorkload(_ workload: Workload) -> [Change] {
        let old = workloads.updateValue(workload, forKey: workload.pod)
        guard old != workload else { return [] }
        for gone in Set(old?.addresses ?? []).subtracting(workload.addresses) { release(gone, of: workload.pod) }
        for address in workload.addresses where workloadsByAddress[address]?.contains(workload.pod) != true {
            workloadsByAddress[address, default: []].append(workload.pod)
        }
        let touched = Set(workload.addresses).union(old?.addresses ?? [])
        return touched.map(Change.address) + [.configuration(pod: workload.pod)]
    }

    private mutating func removeWorkload(_ name: ObjectName) -> [Change] {
        guard let old = workloads.removeValue(forKey: name) else { return [] }
        let silenced = learnedByPod.removeValue(forKey: name) == nil ? [] : services(at: old.addresses)
        for address in Set(old.addresses) { release(address, of: name) }
        return Set(old.addresses).map(Change.address) + [.configuration(pod: name)] + silenced.map(Change.service)
    }

    private mutating func release(_ address: IPAddress, of pod: ObjectName) {
        workloadsByAddress[address]?.removeAll { $0 == pod }
        if workloadsByAddress[address]?.isEmpty == true { workloadsByAddress[address] = nil }
    }

    private mutating func setSettings(_ new: MeshSettings) -> [Change] {
        guard new != settings else { return [] }
        settings = new
        return [.everyConfiguration]
    }

    private mutating func setSynchronized() -> [Change] {
        guard !isSynchronized else { return [] }
        isSynchronized = true
        return [.synchronized]
    }
}
