internal import FoundationEssentials
package import MeshAPI
package import MeshAddress
package import MeshCore
internal import SwiftProtobuf

/// Something that a sidecar learnt, in the order in which it is to be told.
package enum DiscoveryChange: Equatable {
    case service(Service)
    case serviceRemoved(ObjectName)
    case endpoint(Endpoint)
    case endpointRemoved(service: ObjectName, address: IPAddress)
    case destination(SocketAddress, Destination)
    case destinationForgotten(SocketAddress)
    case configuration(SidecarConfiguration)
    case trustBundle(TrustBundle)
    case trustBundleRemoved(trustDomain: String)
}

/// What a sidecar holds of the mesh, without I/O: responses come in, changes come out. A resource that cannot be used
/// is refused with its reason, and what was held before stays.
package struct DiscoveryView {
    package struct Held<Value: Equatable>: Equatable {
        package var value: Value
        package var version: String
    }

    package struct HeldService: Equatable {
        package var service: Held<Service>?
        package var endpoints: [IPAddress: Held<Endpoint>] = [:]
        /// Destinations that lead to it.
        package var references = 0
        /// Since when nothing does; meaningless while something does.
        package var unreferencedNanoseconds: Int64
    }

    package struct Outcome {
        package var changes: [DiscoveryChange] = []
        package var refusals: [ResourceRefusal] = []
    }

    /// Of all services together.
    package static let endpointLimit = 100_000
    package static let serviceLimit = 20_000
    /// A service arrives before the destination that leads to it; one that nothing leads to for so long is dropped.
    package static let unreferencedNanoseconds: Int64 = 120_000_000_000

    package let pod: ObjectName
    /// Answers are taken for these only.
    package private(set) var subscriptions: Set<SocketAddress> = []
    package private(set) var destinations: [SocketAddress: Held<Destination>] = [:]
    package private(set) var services: [ObjectName: HeldService] = [:]
    package private(set) var configuration: Held<SidecarConfiguration>?
    package private(set) var trustBundles: [String: Held<TrustBundle>] = [:]
    private var endpointCount = 0

    package init(pod: ObjectName) {
        self.pod = pod
    }

    // MARK: Subscriptions

    package mutating func subscribe(_ address: SocketAddress) -> Bool {
        subscriptions.insert(address).inserted
    }

    package mutating func unsubscribe(_ address: SocketAddress, nowNanoseconds: Int64) -> [DiscoveryChange] {
        guard subscriptions.remove(address) != nil else { return [] }
        guard let held = destinations.removeValue(forKey: address) else { return [] }
        release(held.value, nowNanoseconds)
        return [.destinationForgotten(address)]
    }

    /// The service stays for a while: another destination that leads to it may be on its way, and was perhaps sent
    /// together with it. What is stale of it by then does no harm, since a server that begins with a service again says
    /// what to forget.
    private mutating func release(_ destination: Destination, _ now: Int64) {
        guard case .service(let name, _) = destination, let count = services[name]?.references else { return }
        services[name]?.references = count - 1
        services[name]?.unreferencedNanoseconds = now
    }

    private mutating func drop(_ name: ObjectName, _ changes: inout [DiscoveryChange]) {
        guard let held = services.removeValue(forKey: name) else { return }
        endpointCount -= held.endpoints.count
        changes.append(.serviceRemoved(name))
    }

    /// Destinations whose service did not come: something between the two ends went wrong, so that they must be asked
    /// for again.
    package var incompleteDestinations: [SocketAddress] {
        destinations.compactMap { address, held in
            guard case .service(let name, _) = held.value, services[name]?.service == nil else { return nil }
            return address
        }
    }

    /// Drops services that nothing leads to.
    package mutating func sweep(nowNanoseconds: Int64) -> [DiscoveryChange] {
        var changes: [DiscoveryChange] = []
        for (name, held) in services
        where held.references == 0
            && nowNanoseconds - held.unreferencedNanoseconds > DiscoveryView.unreferencedNanoseconds
        {
            drop(name, &changes)
        }
        return changes
    }

    // MARK: What is held

    /// Name → version of every resource of a type.
    package func versions(_ type: ResourceType) -> [String: String] {
        switch type {
        case .trustBundle: trustBundles.mapValues(\.version)
        case .sidecar: configuration.map { [pod.description: $0.version] } ?? [:]
        case .service:
            Dictionary(
                uniqueKeysWithValues: services.compactMap { name, held in
                    held.service.map { (name.description, $0.version) }
                })
        case .endpoint:
            Dictionary(
                uniqueKeysWithValues: services.values.flatMap { held in
                    held.endpoints.values.map { ($0.value.id, $0.version) }
                })
        case .destination:
            Dictionary(uniqueKeysWithValues: destinations.map { ($0.key.description, $0.value.version) })
        }
    }

    /// Every resource of a type, encoded with the version under which it came.
    package func resources(_ type: ResourceType) -> [EncodedResource] {
        func encoded(_ name: String, _ message: some Message, _ version: String) -> EncodedResource {
            EncodedResource(type, name: name, message: ResourceEncoding.bytes(message), version: version)
        }
        switch type {
        case .trustBundle:
            return trustBundles.map { encoded($0.key, ResourceEncoding.encode($0.value.value), $0.value.version) }
        case .sidecar:
            return configuration.map { [encoded(pod.description, ResourceEncoding.encode($0.value), $0.version)] } ?? []
        case .service:
            return services.values.compactMap(\.service).map {
                encoded($0.value.name.description, ResourceEncoding.encode($0.value), $0.version)
            }
        case .endpoint:
            return services.values.flatMap(\.endpoints.values).map {
                encoded($0.value.id, ResourceEncoding.encode($0.value), $0.version)
            }
        case .destination:
            return destinations.map {
                encoded($0.key.description, ResourceEncoding.encode($0.value.value), $0.value.version)
            }
        }
    }

    // MARK: Responses

    package mutating func apply(
        _ response: Envoy_Service_Discovery_V3_DeltaDiscoveryResponse, _ type: ResourceType, nowNanoseconds: Int64
    ) -> Outcome {
        var outcome = Outcome()
        var stale: [ObjectName: Set<IPAddress>] = [:]
        for name in response.removedResources {
            if type == .endpoint, name.hasSuffix("/*"), let service = ObjectName(name.dropLast(2)) {
                stale[service] = services[service].map { Set($0.endpoints.keys) }
            } else {
                remove(name, type, nowNanoseconds, &outcome.changes)
            }
        }
        for resource in response.resources {
            do throws(InvalidResource) {
                guard resource.resource.typeURL == type.typeURL else {
                    throw InvalidResource("the resource is a '\(resource.resource.typeURL)', not a '\(type.typeURL)'")
                }
                let bytes = [UInt8](resource.resource.value)
                try take(resource.name, resource.version, bytes, type, nowNanoseconds, &outcome.changes, &stale)
            } catch {
                outcome.refusals.append(
                    ResourceRefusal(
                        type: type.name, name: resource.name, version: resource.version, reason: error.description))
            }
        }
        for (service, addresses) in stale {
            for address in addresses { removeEndpoint(service, address, &outcome.changes) }
        }
        return outcome
    }

    private mutating func take(
        _ name: String, _ version: String, _ bytes: [UInt8], _ type: ResourceType, _ now: Int64,
        _ changes: inout [DiscoveryChange], _ stale: inout [ObjectName: Set<IPAddress>]
    ) throws(InvalidResource) {
        switch type {
        case .trustBundle:
            let bundle = try ResourceDecoding.trustBundle(bytes)
            try check(bundle.trustDomain, name)
            let isNew = trustBundles[name]?.value != bundle
            trustBundles[name] = Held(value: bundle, version: version)
            if isNew { changes.append(.trustBundle(bundle)) }
        case .sidecar:
            let configuration = try ResourceDecoding.configuration(bytes)
            try check(pod.description, name)
            try check(configuration.workload.pod.description, name)
            let isNew = self.configuration?.value != configuration
            self.configuration = Held(value: configuration, version: version)
            if isNew { changes.append(.configuration(configuration)) }
        case .service:
            let service = try ResourceDecoding.service(bytes)
            try check(service.name.description, name)
            try makeRoom(service.name, now)
            services[service.name]?.unreferencedNanoseconds = now
            let isNew = services[service.name]?.service?.value != service
            services[service.name]?.service = Held(value: service, version: version)
            if isNew { changes.append(.service(service)) }
        case .endpoint:
            let endpoint = try ResourceDecoding.endpoint(bytes)
            try check(endpoint.id, name)
            try makeRoom(endpoint.service, now)
            stale[endpoint.service]?.remove(endpoint.address)
            let old = services[endpoint.service]?.endpoints[endpoint.address]
            if old == nil {
                guard endpointCount < DiscoveryView.endpointLimit else {
                    throw InvalidResource("this sidecar holds \(endpointCount) endpoints, which is its limit")
                }
                endpointCount += 1
            }
            services[endpoint.service]?.endpoints[endpoint.address] = Held(value: endpoint, version: version)
            if old?.value != endpoint { changes.append(.endpoint(endpoint)) }
        case .destination:
            let destination = try ResourceDecoding.destination(bytes)
            guard let address = SocketAddress(name), address.description == name else {
                throw InvalidResource("the name '\(name)' is not an address and a port")
            }
            take(address, destination, version, now, &changes)
        }
    }

    private mutating func take(
        _ address: SocketAddress, _ destination: Destination, _ version: String, _ now: Int64,
        _ changes: inout [DiscoveryChange]
    ) {
        // It was unsubscribed from while the answer was on its way.
        guard subscriptions.contains(address) else { return }
        let old = destinations[address]
        destinations[address] = Held(value: destination, version: version)
        guard old?.value != destination else { return }
        if case .service(let name, _) = destination {
            services[name, default: HeldService(unreferencedNanoseconds: now)].references += 1
        }
        changes.append(.destination(address, destination))
        if let old { release(old.value, now) }
    }

    private func check(_ expected: String, _ name: String) throws(InvalidResource) {
        guard expected == name else { throw InvalidResource("its name is '\(name)', its content says '\(expected)'") }
    }

    private mutating func makeRoom(_ service: ObjectName, _ now: Int64) throws(InvalidResource) {
        guard services[service] == nil else { return }
        guard services.count < DiscoveryView.serviceLimit else {
            throw InvalidResource("this sidecar holds \(services.count) services, which is its limit")
        }
        services[service] = HeldService(unreferencedNanoseconds: now)
    }

    private mutating func remove(_ name: String, _ type: ResourceType, _ now: Int64, _ changes: inout [DiscoveryChange])
    {
        switch type {
        case .trustBundle:
            // The last one stays: without any root no peer could be verified.
            guard trustBundles.count > 1, trustBundles.removeValue(forKey: name) != nil else { return }
            changes.append(.trustBundleRemoved(trustDomain: name))
        case .sidecar:
            // The pod still runs, whatever the platform says: what it was told stays in force.
            break
        case .service:
            guard let service = ObjectName(name), let held = services[service] else { return }
            if held.references == 0 {
                drop(service, &changes)
            } else {
                // A destination leads to it still; it may come back.
                endpointCount -= held.endpoints.count
                services[service]?.service = nil
                services[service]?.endpoints = [:]
                changes.append(.serviceRemoved(service))
            }
        case .endpoint:
            guard let slash = name.lastIndex(of: "/"), let service = ObjectName(name[..<slash]),
                let address = IPAddress(name[name.index(after: slash)...])
            else { return }
            removeEndpoint(service, address, &changes)
        case .destination:
            guard let address = SocketAddress(name), let held = destinations.removeValue(forKey: address) else {
                return
            }
            changes.append(.destination(address, .unknown))
            release(held.value, now)
        }
    }

    private mutating func removeEndpoint(
        _ service: ObjectName, _ address: IPAddress, _ changes: inout [DiscoveryChange]
    ) {
        guard services[service]?.endpoints.removeValue(forKey: address) != nil else { return }
        endpointCount -= 1
        changes.append(.endpointRemoved(service: service, address: address))
    }
}
