import MeshAddress
import MeshKubernetes
import Synchronization

/// The names of the cluster, kept as Services and EndpointSlices change, and what they are answered with (the Kubernetes
/// DNS specification 1.1).
final class DNSRecords: Sendable {
    /// What a query comes to.
    enum Outcome: Sendable {
        case answer(DNSAnswer)
        /// An ExternalName outside the cluster: its alias, and the name to look up elsewhere.
        case alias(DNSRecord, target: DNSName)
        /// Not ours: to be asked of the host's servers.
        case forward
    }

    private struct Host: Hashable {
        var name: String
        var address: IPAddress
    }

    private struct Port: Hashable {
        var name: String
        var transport: String
        var number: UInt16
    }

    private struct Entry {
        /// Of a Service with an address of its own.
        var addresses: [IPAddress] = []
        var hosts: [Host] = []
        var ports: [Port] = []
        var externalName: DNSName?
        var isHeadless = false
    }

    private struct State {
        var entries: [ServiceCatalog.Key: Entry] = [:]
        var namespaces: [String: Int] = [:]
        /// From an address to its names, for reverse look-ups.
        var names: [IPAddress: Set<DNSName>] = [:]
        var serial: UInt32 = 1
    }

    private static let seconds: UInt32 = 5
    /// How long the absence of a name is remembered: a Service that is made next is found after this at the latest.
    private static let negativeSeconds: UInt32 = 1

    private let domain: [String]
    private let zone: DNSName
    private let podSubnet: IPv4Subnet
    private let serviceSubnet: IPv4Subnet
    private let state = Mutex(State())

    init(clusterDomain: String, podSubnet: IPv4Subnet, serviceSubnet: IPv4Subnet) {
        domain = clusterDomain.lowercased().split(separator: ".").map(String.init)
        zone = DNSName(labels: domain.map { Array($0.utf8) }) ?? .root
        self.podSubnet = podSubnet
        self.serviceSubnet = serviceSubnet
    }

    // MARK: - Changes

    func set(_ key: ServiceCatalog.Key, _ catalogEntry: ServiceCatalog.Entry?) {
        let entry = catalogEntry.flatMap { entry in entry.service.map { Self.entry($0, Array(entry.slices.values)) } }
        state.withLock { state in
            if let former = state.entries[key] { index(former, key, &state, isAdded: false) }
            if let entry { index(entry, key, &state, isAdded: true) }
            state.entries[key] = entry
            state.serial &+= 1
        }
    }

    private static func entry(_ service: Kubernetes.Service, _ slices: [Kubernetes.EndpointSlice]) -> Entry {
        var entry = Entry()
        if service.spec.type == "ExternalName" {
            entry.externalName = service.spec.externalName.flatMap { DNSName($0.lowercased()) }
            return entry
        }
        let texts = service.spec.clusterIPs.isEmpty ? [service.spec.clusterIP ?? ""] : service.spec.clusterIPs
        entry.isHeadless = service.spec.isHeadless
        entry.addresses = texts.compactMap { IPAddress($0) }
        entry.ports = service.spec.ports.compactMap { port in
            UInt16(exactly: port.port).map {
                Port(name: port.name.lowercased(), transport: (port.protocol ?? "TCP").lowercased(), number: $0)
            }
        }
        guard entry.isHeadless else { return entry }
        var hosts: Set<Host> = []
        var ports: Set<Port> = []
        for slice in slices where slice.addressType != "FQDN" {
            for port in slice.ports {
                guard let number = port.port.flatMap({ UInt16(exactly: $0) }) else { continue }
                ports.insert(
                    Port(name: port.name.lowercased(), transport: (port.protocol ?? "TCP").lowercased(), number: number)
                )
            }
            for endpoint in slice.endpoints {
                guard endpoint.conditions.ready ?? true || service.spec.publishNotReadyAddresses == true else {
                    continue
                }
                for address in endpoint.addresses.compactMap({ IPAddress($0) }) {
                    hosts.insert(Host(name: endpoint.hostname?.lowercased() ?? dashed(address), address: address))
                }
            }
        }
        entry.hosts = hosts.sorted { ($0.name, $0.address.low) < ($1.name, $1.address.low) }
        entry.ports = Array(ports)
        return entry
    }

    /// The name of an endpoint without a hostname: `10-97-0-5`.
    private static func dashed(_ address: IPAddress) -> String {
        String("\(address)".map { $0 == "." || $0 == ":" ? "-" : $0 })
    }

    private func index(_ entry: Entry, _ key: ServiceCatalog.Key, _ state: inout State, isAdded: Bool) {
        let count = state.namespaces[key.namespace, default: 0] + (isAdded ? 1 : -1)
        state.namespaces[key.namespace] = count > 0 ? count : nil
        func note(_ address: IPAddress, _ name: DNSName?) {
            guard let name else { return }
            if isAdded {
                state.names[address, default: []].insert(name)
            } else {
                state.names[address]?.remove(name)
                if state.names[address]?.isEmpty == true { state.names[address] = nil }
            }
        }
        for address in entry.addresses { note(address, name([key.name, key.namespace, "svc"])) }
        for host in entry.hosts { note(host.address, name([host.name, key.name, key.namespace, "svc"])) }
    }

    private func name(_ parts: [String]) -> DNSName? { DNSName(labels: (parts + domain).map { Array($0.utf8) }) }

    // MARK: - Answers

    func outcome(_ query: DNSQuery) -> Outcome {
        let name = query.name.folded
        if name.hasSuffix(zone) { return inZone(name, query) }
        if let address = reverseAddress(name), podSubnet.contains(address) || serviceSubnet.contains(address) {
            return reverse(address, query)
        }
        return .forward
    }

    private func inZone(_ name: DNSName, _ query: DNSQuery) -> Outcome {
        guard let texts = name.texts() else { return .answer(negative(DNSCode.nameError)) }
        let labels = Array(texts.dropLast(domain.count))
        return state.withLock { state in
            if labels.isEmpty {
                let isAuthority = query.type == DNSType.soa || query.type == DNSType.any
                return .answer(
                    isAuthority
                        ? DNSAnswer(answers: [authority(state.serial)]) : negative(DNSCode.noError, state.serial))
            }
            switch labels.last {
            case "pod": return .answer(pod(labels, query, state))
            case "svc": return service(Array(labels.dropLast()), query, state)
            default: return .answer(negative(DNSCode.nameError, state.serial))
            }
        }
    }

    /// `10-97-0-5.shop.pod.cluster.local` is 10.97.0.5.
    private func pod(_ labels: [String], _ query: DNSQuery, _ state: State) -> DNSAnswer {
        guard labels.count == 3, let address = IPAddress(labels[0].replacing("-", with: ".")),
            podSubnet.contains(address)
        else {
            return negative(labels.count < 3 ? DNSCode.noError : DNSCode.nameError, state.serial)
        }
        return answer(query, [.address(address)], state)
    }

    private func service(_ labels: [String], _ query: DNSQuery, _ state: State) -> Outcome {
        guard let namespace = labels.last else { return .answer(negative(DNSCode.noError, state.serial)) }
        guard labels.count > 1 else {
            let exists = state.namespaces[namespace] != nil
            return .answer(negative(exists ? DNSCode.noError : DNSCode.nameError, state.serial))
        }
        let key = ServiceCatalog.Key(namespace: namespace, name: labels[labels.count - 2])
        guard let entry = state.entries[key] else { return .answer(negative(DNSCode.nameError, state.serial)) }
        let below = Array(labels.dropLast(2))
        if let target = entry.externalName {
            guard below.isEmpty else { return .answer(negative(DNSCode.nameError, state.serial)) }
            let alias = DNSRecord(name: query.name, seconds: Self.seconds, content: .alias(target))
            return query.type == DNSType.cname ? .answer(DNSAnswer(answers: [alias])) : .alias(alias, target: target)
        }
        switch below.count {
        case 0:
            let addresses = entry.isHeadless ? entry.hosts.map(\.address) : entry.addresses
            if entry.isHeadless && addresses.isEmpty { return .answer(negative(DNSCode.nameError, state.serial)) }
            if query.type == DNSType.srv { return .answer(serviceRecords(entry, entry.ports, key, query, state)) }
            return .answer(answer(query, addresses.map { .address($0) }, state))
        case 1:
            let addresses = entry.hosts.filter { $0.name == below[0] }.map(\.address)
            if addresses.isEmpty {
                // Half of a SRV name exists, as an empty node of the tree.
                let isHalf = below[0].hasPrefix("_") && entry.ports.contains { "_" + $0.transport == below[0] }
                return .answer(negative(isHalf ? DNSCode.noError : DNSCode.nameError, state.serial))
            }
            return .answer(answer(query, addresses.map { .address($0) }, state))
        case 2:
            let ports = entry.ports.filter { "_" + $0.name == below[0] && "_" + $0.transport == below[1] }
            if ports.isEmpty { return .answer(negative(DNSCode.nameError, state.serial)) }
            guard query.type == DNSType.srv || query.type == DNSType.any else {
                return .answer(negative(DNSCode.noError, state.serial))
            }
            return .answer(serviceRecords(entry, ports, key, query, state))
        default: return .answer(negative(DNSCode.nameError, state.serial))
        }
    }

    private func serviceRecords(
        _ entry: Entry, _ ports: [Port], _ key: ServiceCatalog.Key, _ query: DNSQuery, _ state: State
    ) -> DNSAnswer {
        var answer = DNSAnswer()
        let targets: [(DNSName, IPAddress)] =
            entry.isHeadless
            ? entry.hosts.compactMap { host in
                name([host.name, key.name, key.namespace, "svc"]).map { ($0, host.address) }
            }
            : entry.addresses.compactMap { address in name([key.name, key.namespace, "svc"]).map { ($0, address) } }
        for port in ports {
            for (target, _) in targets {
                answer.answers.append(
                    DNSRecord(
                        name: query.name, seconds: Self.seconds,
                        content: .service(priority: 0, weight: 100, port: port.number, target: target)))
            }
        }
        answer.additional = targets.map { DNSRecord(name: $0.0, seconds: Self.seconds, content: .address($0.1)) }
        return answer.answers.isEmpty ? negative(DNSCode.noError, state.serial) : answer
    }

    /// What of the contents is of the wanted type; nothing of it means that the name exists without such a record.
    private func answer(_ query: DNSQuery, _ contents: [DNSRecord.Content], _ state: State) -> DNSAnswer {
        let records = contents.map { DNSRecord(name: query.name, seconds: Self.seconds, content: $0) }
        let wanted = records.filter { query.type == DNSType.any || $0.type == query.type }
        return wanted.isEmpty ? negative(DNSCode.noError, state.serial) : DNSAnswer(answers: wanted)
    }

    private func negative(_ code: UInt8, _ serial: UInt32 = 1) -> DNSAnswer {
        DNSAnswer(code: code, authorities: [authority(serial)])
    }

    private func authority(_ serial: UInt32) -> DNSRecord {
        let primary = name(["ns", "dns"]) ?? zone
        let responsible = name(["hostmaster"]) ?? zone
        return DNSRecord(
            name: zone, seconds: Self.negativeSeconds,
            content: .authority(
                primary: primary, responsible: responsible, serial: serial, minimumSeconds: Self.negativeSeconds))
    }

    // MARK: - Reverse

    /// `5.0.97.10.in-addr.arpa` is 10.97.0.5.
    private func reverseAddress(_ name: DNSName) -> IPAddress? {
        guard let texts = name.texts(), texts.count == 6, texts[4] == "in-addr", texts[5] == "arpa" else { return nil }
        return IPAddress(texts[..<4].reversed().joined(separator: "."))
    }

    private func reverse(_ address: IPAddress, _ query: DNSQuery) -> Outcome {
        state.withLock { state in
            guard let names = state.names[address] else { return .answer(negative(DNSCode.nameError, state.serial)) }
            return .answer(answer(query, names.sorted { $0.description < $1.description }.map { .pointer($0) }, state))
        }
    }
}
