import MeshAPI
import MeshAddress
import MeshCore
import MeshXDS
import SwiftProtobuf
import Testing

/// A table and some views, joined by channels that keep order and delay as the schedule says.
private struct Simulation {
    typealias Request = Envoy_Service_Discovery_V3_DeltaDiscoveryRequest

    final class Sidecar {
        var view: DiscoveryView
        var subscriber: Subscriber?
        var requests: [Request] = []
        var responses: [[UInt8]] = []
        /// What the changes that were told add up to.
        var services: [ObjectName: Service] = [:]
        var endpoints: [ObjectName: [IPAddress: Endpoint]] = [:]
        var destinations: [SocketAddress: Destination] = [:]
        var configuration: SidecarConfiguration?
        var bundles: [String: TrustBundle] = [:]

        init(pod: ObjectName) { view = DiscoveryView(pod: pod) }

        func take(_ changes: [DiscoveryChange]) {
            for change in changes {
                switch change {
                case .service(let service): services[service.name] = service
                case .serviceRemoved(let name):
                    services[name] = nil
                    endpoints[name] = nil
                case .endpoint(let endpoint): endpoints[endpoint.service, default: [:]][endpoint.address] = endpoint
                case .endpointRemoved(let service, let address): endpoints[service]?[address] = nil
                case .destination(let address, let destination): destinations[address] = destination
                case .destinationForgotten(let address): destinations[address] = nil
                case .configuration(let value): configuration = value
                case .trustBundle(let bundle): bundles[bundle.trustDomain] = bundle
                case .trustBundleRemoved(let domain): bundles[domain] = nil
                }
            }
        }
    }

    let source = ModelSource()
    var table: DiscoveryTable
    var sidecars: [Sidecar] = []
    var random: SeededRandom
    var streams: UInt64 = 0
    var now: Int64 = 0
    var converged = 0
    var change = Change(arrivedNanoseconds: 0)
    var changesMade = 0

    init(seed: UInt64, sidecars count: Int) {
        random = SeededRandom(seed)
        table = DiscoveryTable(source: source)
        for index in 0..<count {
            let pod = ObjectName("pod-\(index)")
            source.configurations[pod] = SidecarConfiguration(
                workload: workload(pod.name, ip(200 + index)), trustDomain: "test")
            sidecars.append(Sidecar(pod: pod))
        }
    }

    mutating func pick(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }

    // MARK: The platform changes

    mutating func changeCatalog() {
        let name = ObjectName("svc-\(pick(4))")
        let vip = ip(1 + pick(4), net: 96)
        switch pick(8) {
        case 0:
            let port = UInt16(80 + pick(2))
            let old = source.services[name]
            source.services[name] = Service(
                name: name, addresses: [vip], ports: [ServicePort(port: port, name: "http", declaredProtocol: .http1)],
                retry: RetryPolicy(count: pick(3), statuses: [503]))
            _ = table.serviceChanged(name, change)
            for address in Set((old?.addresses ?? []) + [vip]) { _ = table.destinationsChanged(at: address, change) }
        case 1:
            let old = source.services.removeValue(forKey: name)
            source.endpoints[name] = nil
            for address in old?.addresses ?? [] { _ = table.destinationsChanged(at: address, change) }
            _ = table.serviceChanged(name, change)
        case 2, 3, 4:
            guard source.services[name] != nil else { return }
            let address = ip(1 + pick(6), net: 1)
            let endpoint = Endpoint(
                service: name, address: address, targetPorts: [80: 8080], isReady: pick(4) > 0,
                workload: workload("w\(pick(3))", address))
            source.endpoints[name, default: [:]][address] = endpoint
            _ = table.endpointChanged(endpoint, change)
        case 5, 6:
            let address = ip(1 + pick(6), net: 1)
            guard source.endpoints[name]?.removeValue(forKey: address) != nil else { return }
            _ = table.endpointRemoved(service: name, address: address, change)
        default:
            let address = ip(1 + pick(3), net: 2)
            source.workloads[address] = pick(2) == 0 ? nil : workload("p\(pick(3))", address)
            _ = table.destinationsChanged(at: address, change)
        }
        changesMade += 1
    }

    // MARK: A sidecar acts

    mutating func act(_ sidecar: Sidecar) {
        let address =
            pick(3) == 0
            ? SocketAddress(ip(1 + pick(3), net: 2), 80) : SocketAddress(ip(1 + pick(4), net: 96), UInt16(80 + pick(2)))
        var request = Request()
        request.typeURL = ResourceType.destination.typeURL
        if pick(3) > 0 {
            guard sidecar.view.subscribe(address) else { return }
            request.resourceNamesSubscribe = [address.description]
        } else {
            guard sidecar.view.subscriptions.contains(address) else { return }
            sidecar.take(sidecar.view.unsubscribe(address, nowNanoseconds: now))
            request.resourceNamesUnsubscribe = [address.description]
        }
        if sidecar.subscriber != nil { sidecar.requests.append(request) }
    }

    mutating func reconnect(_ sidecar: Sidecar) {
        if let old = sidecar.subscriber { table.close(old) }
        streams += 1
        sidecar.subscriber = Subscriber(id: streams, pod: sidecar.view.pod)
        sidecar.responses = []
        sidecar.requests = sidecar.view.openingRequests(version: "1")
    }

    mutating func deliverRequest(_ sidecar: Sidecar) -> Bool {
        guard let subscriber = sidecar.subscriber, !sidecar.requests.isEmpty else { return false }
        let failure = table.handle(sidecar.requests.removeFirst(), subscriber)
        #expect(failure == nil)
        return true
    }

    mutating func flush() {
        table.seal(change)
        change = Change(arrivedNanoseconds: UInt64(now))
        _ = table.takeScheduled()
    }

    mutating func write(_ sidecar: Sidecar) -> Bool {
        guard let subscriber = sidecar.subscriber else { return false }
        let bytes = table.withResponse(for: subscriber, nowNanoseconds: now) { [UInt8]($0) }
        guard let bytes else { return false }
        sidecar.responses.append(bytes)
        return true
    }

    mutating func deliverResponse(_ sidecar: Sidecar) throws -> Bool {
        guard !sidecar.responses.isEmpty else { return false }
        let response = try Envoy_Service_Discovery_V3_DeltaDiscoveryResponse(
            serializedBytes: sidecar.responses.removeFirst())
        let type = try #require(ResourceType(typeURL: response.typeURL))
        let names = response.resources.map(\.name)
        #expect(Set(names).count == names.count, "a name twice in a response")
        #expect(Set(names).isDisjoint(with: response.removedResources), "sent and removed in one response")
        let outcome = sidecar.view.apply(response, type, nowNanoseconds: now)
        #expect(outcome.refusals.isEmpty)
        sidecar.take(outcome.changes)
        sidecar.requests.append(
            DiscoveryView.acknowledgement(typeURL: response.typeURL, nonce: response.nonce, refusals: outcome.refusals))
        return true
    }

    mutating func settle() throws {
        var isBusy = true
        while isBusy {
            isBusy = false
            for sidecar in sidecars {
                if sidecar.subscriber == nil { reconnect(sidecar) }
                while deliverRequest(sidecar) { isBusy = true }
                flush()
                while write(sidecar) { isBusy = true }
                while try deliverResponse(sidecar) { isBusy = true }
            }
        }
        now += 200_000_000_000
        for sidecar in sidecars { sidecar.take(sidecar.view.sweep(nowNanoseconds: now)) }
    }

    func check() {
        for sidecar in sidecars {
            var wanted: Set<ObjectName> = []
            for address in sidecar.view.subscriptions {
                let destination = source.destination(for: address)
                #expect(sidecar.destinations[address] == destination, "\(address)")
                if case .service(let name, _) = destination { wanted.insert(name) }
            }
            #expect(Set(sidecar.destinations.keys) == sidecar.view.subscriptions)
            #expect(Set(sidecar.services.keys) == wanted)
            for name in wanted {
                #expect(sidecar.services[name] == source.services[name])
                #expect(sidecar.endpoints[name] ?? [:] == source.endpoints[name] ?? [:], "\(name)")
            }
            #expect(sidecar.configuration == source.configurations[sidecar.view.pod])
            #expect(Array(sidecar.bundles.values) == source.bundles)
            #expect(sidecar.subscriber?.isCurrent == true)
        }
    }
}

@Suite struct DiscoveryScheduleTests {
    @Test(arguments: 0..<300 as Range<UInt64>)
    func everySidecarEndsWithWhatThePlatformRuns(seed: UInt64) throws {
        var simulation = Simulation(seed: seed, sidecars: 2)
        for _ in 0..<400 {
            simulation.now += 1_000_000
            let sidecar = simulation.sidecars[simulation.pick(2)]
            switch simulation.pick(20) {
            case 0...4: simulation.changeCatalog()
            case 5...7: simulation.act(sidecar)
            case 8...10: _ = simulation.deliverRequest(sidecar)
            case 11...12: simulation.flush()
            case 13...15: _ = simulation.write(sidecar)
            case 16...18: _ = try simulation.deliverResponse(sidecar)
            default: if simulation.pick(5) == 0 { simulation.reconnect(sidecar) }
            }
        }
        try simulation.settle()
        simulation.check()
        // Nothing more is to be said, and a new stream of a sidecar that holds everything is sent nothing at all.
        let sidecar = simulation.sidecars[0]
        simulation.reconnect(sidecar)
        while simulation.deliverRequest(sidecar) {}
        let isWritten = simulation.write(sidecar)
        #expect(!isWritten, "a needless response")
    }
}
