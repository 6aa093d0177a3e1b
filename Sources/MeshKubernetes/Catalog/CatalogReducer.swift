import MeshAddress
package import MeshCore

/// Turns changes of the API's objects into changes of the catalog. Pure and incremental: a change costs what it
/// touches, not what there is. It waits for nothing and joins nothing together.
package struct CatalogReducer: Sendable {
    package enum Input: Sendable {
        case service(ServiceView)
        case serviceRemoved(ObjectName)
        case slice(EndpointSliceView)
        case sliceRemoved(ObjectName)
        case pod(PodView)
        case podRemoved(ObjectName)
    }

    private let trustDomain: String
    private var services: [ObjectName: ServiceState] = [:]
    private var slices: [ObjectName: EndpointSliceView] = [:]
    private var pods: [ObjectName: PodView] = [:]
    private var podByAddress: [IPAddress: ObjectName] = [:]
    /// Where slices name a pod, and where they give an address without one.
    private var placesOfPod: [ObjectName: Set<Place>] = [:]
    private var servicesAtAddress: [IPAddress: Set<ObjectName>] = [:]
    private var workloads: [ObjectName: Workload] = [:]

    package init(trustDomain: String) { self.trustDomain = trustDomain }

    package mutating func apply(_ input: Input) -> [CatalogEvent] {
        var events: [CatalogEvent] = []
        switch input {
        case .service(let view): set(view, &events)
        case .serviceRemoved(let name): removeService(name, &events)
        case .slice(let view): set(view, &events)
        case .sliceRemoved(let name): removeSlice(name, &events)
        case .pod(let view): set(view, &events)
        case .podRemoved(let name): removePod(name, &events)
        }
        return events
    }
}

private struct Place: Hashable, Sendable {
    let service: ObjectName
    let address: IPAddress
}

/// A service's endpoints: what its slices say of each address, and what was told of it.
private struct ServiceState: Sendable {
    enum Readiness: Int, Comparable, Sendable {
        case terminating
        case ready

        static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    }

    struct Candidate: Sendable {
        var endpoint: Endpoint
        var readiness: Readiness
    }

    var view: ServiceView?
    /// By address, then by slice.
    var entries: [IPAddress: [ObjectName: EndpointSliceView.Entry]] = [:]
    var candidates: [IPAddress: Candidate] = [:]
    var readyCount = 0
    var told: [IPAddress: Endpoint] = [:]

    /// What is true of an address now; a terminating one counts only while none is ready.
    private func desired(_ address: IPAddress) -> Endpoint? {
        guard let candidate = candidates[address], candidate.readiness == .ready || readyCount == 0 else { return nil }
        return candidate.endpoint
    }

    /// Takes over what is now known of some addresses, and tells what follows from it. What goes away is told first: a
    /// removal waits for nothing.
    mutating func settle(
        _ changes: [(address: IPAddress, candidate: Candidate?)], _ service: ObjectName, _ events: inout [CatalogEvent]
    ) {
        let hadReady = readyCount > 0
        var affected: Set<IPAddress> = []
        for (address, candidate) in changes {
            if candidates[address]?.readiness == .ready { readyCount -= 1 }
            if candidate?.readiness == .ready { readyCount += 1 }
            candidates[address] = candidate
            affected.insert(address)
        }
        if hadReady != (readyCount > 0) {
            for (address, candidate) in candidates where candidate.readiness == .terminating {
                affected.insert(address)
            }
        }
        let ordered = affected.sorted { ($0.high, $0.low) < ($1.high, $1.low) }
        for address in ordered where told[address] != nil && desired(address) == nil {
            told[address] = nil
            events.append(.endpointRemoved(service: service, address: address))
        }
        for address in ordered {
            guard let endpoint = desired(address), told[address] != endpoint else { continue }
            told[address] = endpoint
            events.append(.endpoint(endpoint))
        }
    }
}

// MARK: - Services and slices

extension CatalogReducer {
    private mutating func set(_ view: ServiceView, _ events: inout [CatalogEvent]) {
        let name = view.service.name
        var state = services[name] ?? ServiceState()
        let before = state.view
        guard before != view else { return }
        state.view = view
        services[name] = state
        if before?.service != view.service { events.append(.service(view.service)) }
        guard before?.service.ports != view.service.ports || before?.publishesNotReady != view.publishesNotReady else {
            return
        }
        refresh(podsOf(Set(state.entries.keys), in: name), &events)
        settle(name, Set(state.entries.keys), &events)
    }

    private mutating func removeService(_ name: ObjectName, _ events: inout [CatalogEvent]) {
        guard var state = services[name], state.view != nil else { return }
        state.view = nil
        services[name] = state
        settle(name, Set(state.entries.keys), &events)
        refresh(podsOf(Set(state.entries.keys), in: name), &events)
        events.append(.serviceRemoved(name))
        if state.entries.isEmpty { services[name] = nil }
    }

    private mutating func set(_ view: EndpointSliceView, _ events: inout [CatalogEvent]) {
        let before = slices[view.name]
        guard before != view else { return }
        if let before, before.service != view.service { removeSlice(view.name, &events) }
        let known = slices[view.name]
        slices[view.name] = view
        var changed: Set<IPAddress> = []
        for (address, entry) in known?.entries ?? [:] where view.entries[address] != entry { changed.insert(address) }
        for (address, entry) in view.entries where known?.entries[address] != entry || known?.ports != view.ports {
            changed.insert(address)
        }
        for address in changed { place(view, view.entries[address], at: address, before: known?.entries[address]) }
        let touched = Set(changed.flatMap { [known?.entries[$0]?.pod, view.entries[$0]?.pod].compactMap(\.self) })
        refresh(touched, &events)
        settle(view.service, changed, &events)
    }

    private mutating func removeSlice(_ name: ObjectName, _ events: inout [CatalogEvent]) {
        guard let view = slices.removeValue(forKey: name) else { return }
        for (address, entry) in view.entries { place(view, nil, at: address, before: entry) }
        refresh(Set(view.entries.values.compactMap(\.pod)), &events)
        settle(view.service, Set(view.entries.keys), &events)
        if let state = services[view.service], state.view == nil, state.entries.isEmpty { services[view.service] = nil }
    }

    /// Notes what a slice says of an address, and keeps the ways back from pods and addresses.
    private mutating func place(
        _ slice: EndpointSliceView, _ entry: EndpointSliceView.Entry?, at address: IPAddress,
        before: EndpointSliceView.Entry?
    ) {
        var bySlice = services[slice.service]?.entries[address] ?? [:]
        bySlice[slice.name] = entry
        services[slice.service, default: ServiceState()].entries[address] = bySlice.isEmpty ? nil : bySlice
        let place = Place(service: slice.service, address: address)
        if let pod = before?.pod, !bySlice.values.contains(where: { $0.pod == pod }) {
            placesOfPod[pod]?.remove(place)
            if placesOfPod[pod]?.isEmpty == true { placesOfPod[pod] = nil }
        }
        if let pod = entry?.pod { placesOfPod[pod, default: []].insert(place) }
        if bySlice.values.contains(where: { $0.pod == nil }) {
            servicesAtAddress[address, default: []].insert(slice.service)
        } else if servicesAtAddress[address] != nil {
            servicesAtAddress[address]?.remove(slice.service)
            if servicesAtAddress[address]?.isEmpty == true { servicesAtAddress[address] = nil }
        }
    }

    private func podsOf(_ addresses: Set<IPAddress>, in service: ObjectName) -> Set<ObjectName> {
        let entries = services[service]?.entries ?? [:]
        return Set(addresses.flatMap { entries[$0]?.values.compactMap(\.pod) ?? [] })
    }
}

// MARK: - Pods

extension CatalogReducer {
    private mutating func set(_ view: PodView, _ events: inout [CatalogEvent]) {
        let before = pods[view.name]
        guard before != view else { return }
        pods[view.name] = view
        var addresses = Set(before?.addresses ?? [])
        for address in addresses where podByAddress[address] == view.name { podByAddress[address] = nil }
        if !view.isFinished {
            for address in view.addresses { podByAddress[address] = view.name }
        }
        addresses.formUnion(view.addresses)
        // The workload goes first, so that whoever reads an endpoint can already know whom it is.
        refreshWorkload(view.name, &events)
        settlePlaces(of: view.name, addresses, &events)
    }

    private mutating func removePod(_ name: ObjectName, _ events: inout [CatalogEvent]) {
        guard let view = pods.removeValue(forKey: name) else { return }
        for address in view.addresses where podByAddress[address] == name { podByAddress[address] = nil }
        settlePlaces(of: name, Set(view.addresses), &events)
        if workloads.removeValue(forKey: name) != nil { events.append(.workloadRemoved(name)) }
    }

    private mutating func settlePlaces(of pod: ObjectName, _ addresses: Set<IPAddress>, _ events: inout [CatalogEvent])
    {
        var byService: [ObjectName: Set<IPAddress>] = [:]
        for place in placesOfPod[pod] ?? [] { byService[place.service, default: []].insert(place.address) }
        for address in addresses {
            for service in servicesAtAddress[address] ?? [] { byService[service, default: []].insert(address) }
        }
        for (service, addresses) in byService.sorted(by: { $0.key < $1.key }) { settle(service, addresses, &events) }
    }

    /// Tells pods anew whose services or ports changed, with the endpoints that carry them.
    private mutating func refresh(_ names: Set<ObjectName>, _ events: inout [CatalogEvent]) {
        for name in names.sorted() where refreshWorkload(name, &events) {
            settlePlaces(of: name, Set(pods[name]?.addresses ?? []), &events)
        }
    }

    /// True when the workload is not what it was.
    @discardableResult
    private mutating func refreshWorkload(_ name: ObjectName, _ events: inout [CatalogEvent]) -> Bool {
        let known = workloads[name]
        guard let pod = pods[name], !pod.isFinished, pod.isOnHostNetwork || !pod.addresses.isEmpty else {
            guard known != nil else { return false }
            workloads[name] = nil
            events.append(.workloadRemoved(name))
            return true
        }
        let workload = workload(of: pod)
        guard workload != known else { return false }
        workloads[name] = workload
        events.append(.workload(workload))
        return true
    }

    private func workload(of pod: PodView) -> Workload {
        let selecting = Set((placesOfPod[pod.name] ?? []).map(\.service)).filter { services[$0]?.view != nil }.sorted()
        var ports = pod.ports
        var declared: Set<UInt16> = []
        for service in selecting {
            for (port, target) in targets(of: pod.name, in: service).sorted(by: { $0.key < $1.key }) {
                guard let known = services[service]?.view?.service.port(port)?.declaredProtocol,
                    declared.insert(target).inserted
                else { continue }
                ports[target] = known
            }
        }
        let account = SPIFFEID(
            trustDomain: trustDomain, namespace: pod.name.namespace, serviceAccount: pod.serviceAccount)
        return Workload(
            pod: pod.name, addresses: pod.addresses, identity: account, isMeshed: pod.isMeshed,
            isTerminating: pod.isTerminating, owner: pod.owner, app: pod.app, version: pod.version, node: pod.node,
            ports: ports, service: selecting.count == 1 ? selecting[0] : nil,
            skippedInboundPorts: pod.skippedInboundPorts)
    }

    /// Service port → the pod's port, over all of the service's slices that name the pod.
    private func targets(of pod: ObjectName, in service: ObjectName) -> [UInt16: UInt16] {
        var targets: [UInt16: UInt16] = [:]
        for place in placesOfPod[pod] ?? [] where place.service == service {
            for (slice, entry) in services[service]?.entries[place.address] ?? [:] where entry.pod == pod {
                targets.merge(targetPorts(of: service, in: slice)) { first, _ in first }
            }
        }
        return targets
    }

    /// A slice's ports are the service's by name; those that the service does not have are left out.
    private func targetPorts(of service: ObjectName, in slice: ObjectName) -> [UInt16: UInt16] {
        var targets: [UInt16: UInt16] = [:]
        guard let ports = services[service]?.view?.service.ports, let slice = slices[slice] else { return targets }
        for target in slice.ports {
            guard let port = ports.first(where: { $0.name == target.name }) else { continue }
            targets[port.port] = target.port ?? port.port
        }
        return targets
    }
}

// MARK: - Endpoints

extension CatalogReducer {
    /// Brings what was told of some addresses of a service up to what is true of them.
    private mutating func settle(_ service: ObjectName, _ addresses: Set<IPAddress>, _ events: inout [CatalogEvent]) {
        let candidates = addresses.map { (address: $0, candidate: candidate(service, $0)) }
        services[service]?.settle(candidates, service, &events)
    }

    private func candidate(_ service: ObjectName, _ address: IPAddress) -> ServiceState.Candidate? {
        guard let view = services[service]?.view, let bySlice = services[service]?.entries[address] else { return nil }
        var best: ServiceState.Readiness?
        var endpoint = Endpoint(service: service, address: address, targetPorts: [:])
        for (slice, entry) in bySlice.sorted(by: { $0.key < $1.key }) {
            guard let readiness = readiness(of: entry, at: address, view) else { continue }
            if let best, best > readiness { continue }
            if best != readiness {
                best = readiness
                endpoint.targetPorts = [:]
                endpoint.workload = (entry.pod ?? podByAddress[address]).flatMap { workloads[$0] }
            }
            endpoint.targetPorts.merge(targetPorts(of: service, in: slice)) { first, _ in first }
        }
        guard let best else { return nil }
        endpoint.isReady = best == .ready
        return ServiceState.Candidate(endpoint: endpoint, readiness: best)
    }

    /// Nil for what must not be called. A pod that a slice names has to be known, because only it tells the identity
    /// and whether there is a sidecar; one that is being deleted is no longer ready, whatever its slice still says.
    private func readiness(of entry: EndpointSliceView.Entry, at address: IPAddress, _ view: ServiceView)
        -> ServiceState.Readiness?
    {
        var isLeaving = entry.isTerminating
        if let name = entry.pod {
            guard let pod = pods[name], workloads[name] != nil, entry.podUID.isEmpty || entry.podUID == pod.uid else {
                return nil
            }
            isLeaving = isLeaving || pod.isTerminating
        }
        if view.publishesNotReady { return entry.isReady ? .ready : nil }
        if entry.isReady && !isLeaving { return .ready }
        return isLeaving && entry.isServing ? .terminating : nil
    }
}
