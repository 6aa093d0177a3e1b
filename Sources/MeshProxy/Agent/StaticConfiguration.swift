package import MeshAddress
package import MeshCore

/// A sidecar's whole view of the mesh, written down: what `apus-proxy run --config FILE` uses instead of a control plane
/// (docs/static-configuration.md).
package struct StaticConfiguration: Decodable, Sendable {
    package struct IdentityFiles: Decodable, Sendable {
        /// PEM, the leaf first.
        package var certificate: String
        package var key: String
        package var roots: String
    }

    package struct ListenerEntry: Decodable, Sendable {
        package var listen: String
        /// Where its connections go; absent when they are redirected to it and the kernel knows.
        package var destination: String?
    }

    package struct ServiceEntry: Decodable, Sendable {
        package struct Port: Decodable, Sendable {
            package var port: UInt16
            package var `protocol`: String?
        }
        package struct Endpoint: Decodable, Sendable {
            package var address: String
            /// Its SPIFFE ID: it is dialled with mutual TLS. Absent for plaintext.
            package var identity: String?
        }
        package var name: String
        package var addresses: [String]
        package var ports: [Port]
        package var endpoints: [Endpoint]
        package var retries: Int?
        package var retryStatuses: [Int]?
        package var retryGRPCStatuses: [UInt8]?
        package var requestTimeoutMilliseconds: Int?
        package var connectTimeoutMilliseconds: Int?
        package var requestBodyLimitBytes: UInt64?
        package var loadBalancing: String?
    }

    package struct OwnPod: Decodable, Sendable {
        package var namespace: String
        package var name: String
        package var addresses: [String]
        package var ports: [Int: String]?
    }

    package var trustDomain: String?
    package var identity: IdentityFiles?
    package var plaintext: String?
    package var unknownDestinations: String?
    package var loops: Int?
    package var accessLog: String?
    package var admin: String?
    package var own: OwnPod?
    package var outbound: [ListenerEntry]?
    package var inbound: [ListenerEntry]?
    package var services: [ServiceEntry]?

    /// The members each object may have, so that a misspelt one is refused instead of ignored. By path; `*` is any element.
    package static let members: [String: Set<String>] = [
        "": [
            "trustDomain", "identity", "plaintext", "unknownDestinations", "loops", "accessLog", "admin", "own",
            "outbound", "inbound", "services",
        ],
        "identity": ["certificate", "key", "roots"],
        "own": ["namespace", "name", "addresses", "ports"],
        "outbound.*": ["listen", "destination"],
        "inbound.*": ["listen", "destination"],
        "services.*": [
            "name", "addresses", "ports", "endpoints", "retries", "retryStatuses", "retryGRPCStatuses",
            "requestTimeoutMilliseconds", "connectTimeoutMilliseconds",
            "requestBodyLimitBytes", "loadBalancing",
        ],
        "services.*.ports.*": ["port", "protocol"],
        "services.*.endpoints.*": ["address", "identity"],
    ]

    package struct Invalid: Error, Equatable, CustomStringConvertible {
        package let field: String
        package let value: String
        package let expected: String
        package var description: String { "\(field): '\(value)' is not \(expected)" }
    }

    // MARK: - What it means

    package var mesh: MeshSettings {
        get throws(Invalid) {
            MeshSettings(
                trustDomain: trustDomain ?? "cluster.local",
                plaintext: try choice(plaintext, "plaintext", default: .strict),
                unknownDestinations: try choice(unknownDestinations, "unknownDestinations", default: .allow))
        }
    }

    package func listeners(_ entries: [ListenerEntry]?, field: String) throws(Invalid) -> [DataPlane
        .ListenerConfiguration]
    {
        var listeners: [DataPlane.ListenerConfiguration] = []
        for (index, entry) in (entries ?? []).enumerated() {
            let address = try socketAddress(entry.listen, "\(field)[\(index)].listen")
            var source = DestinationSource.redirection
            if let destination = entry.destination {
                source = .fixed(try socketAddress(destination, "\(field)[\(index)].destination"))
            }
            listeners.append(DataPlane.ListenerConfiguration(address, destination: source))
        }
        return listeners
    }

    /// Everything the data plane is to believe, as one batch.
    package func changes() throws(Invalid) -> [SnapshotChange] {
        let settings = try mesh
        var changes: [SnapshotChange] = []
        if let own {
            var addresses: [IPAddress] = []
            for (index, text) in own.addresses.enumerated() {
                addresses.append(try ipAddress(text, "own.addresses[\(index)]"))
            }
            var ports: [UInt16: ApplicationProtocol] = [:]
            for (number, name) in own.ports ?? [:] {
                guard let port = UInt16(exactly: number), port > 0 else {
                    throw Invalid(field: "own.ports", value: "\(number)", expected: "a port from 1 to 65535")
                }
                ports[port] = try choice(name, "own.ports.\(number)", default: .opaque)
            }
            let workload = Workload(
                pod: ObjectName(namespace: own.namespace, name: own.name), addresses: addresses,
                isMeshed: identity != nil, ports: ports)
            changes.append(
                .own(
                    SidecarConfiguration(
                        workload: workload, trustDomain: settings.trustDomain, plaintext: settings.plaintext,
                        unknownDestinations: settings.unknownDestinations)))
        }
        for (index, entry) in (services ?? []).enumerated() { changes += try self.changes(entry, "services[\(index)]") }
        return changes
    }

    private func changes(_ entry: ServiceEntry, _ field: String) throws(Invalid) -> [SnapshotChange] {
        guard let name = ObjectName(entry.name) else {
            throw Invalid(field: "\(field).name", value: entry.name, expected: "NAMESPACE/NAME")
        }
        var service = Service(name: name)
        for (index, text) in entry.addresses.enumerated() {
            service.addresses.append(try ipAddress(text, "\(field).addresses[\(index)]"))
        }
        for (index, port) in entry.ports.enumerated() {
            let declared: ApplicationProtocol? = try port.protocol.map { text throws(Invalid) in
                try choice(text, "\(field).ports[\(index)].protocol", default: .opaque)
            }
            service.ports.append(ServicePort(port: port.port, declaredProtocol: declared))
        }
        service.retry.count = entry.retries ?? service.retry.count
        service.retry.statuses = Set(entry.retryStatuses ?? [])
        service.retry.grpcStatuses = Set(entry.retryGRPCStatuses ?? [])
        service.requestTimeoutMilliseconds = entry.requestTimeoutMilliseconds
        service.connectTimeoutMilliseconds = entry.connectTimeoutMilliseconds ?? service.connectTimeoutMilliseconds
        service.requestBodyLimitBytes = entry.requestBodyLimitBytes
        service.loadBalancing = try choice(entry.loadBalancing, "\(field).loadBalancing", default: .peakEWMA)
        var changes: [SnapshotChange] = [.service(service)]
        for (index, text) in entry.endpoints.enumerated() {
            let place = "\(field).endpoints[\(index)]"
            let address = try socketAddress(text.address, "\(place).address")
            var identity: SPIFFEID?
            if let id = text.identity {
                do { identity = try SPIFFEID(parsing: id) } catch {
                    throw Invalid(field: "\(place).identity", value: id, expected: "a SPIFFE ID: \(error.reason)")
                }
            }
            let workload = Workload(
                pod: ObjectName(namespace: name.namespace, name: "\(name.name)-\(index)"), addresses: [address.ip],
                identity: identity,
                isMeshed: identity != nil)
            changes.append(
                .endpoint(
                    Endpoint(
                        service: name, address: address.ip,
                        targetPorts: Dictionary(
                            service.ports.map { ($0.port, address.port) }, uniquingKeysWith: { $1 }), workload: workload
                    )))
        }
        for address in service.addresses {
            for port in service.ports {
                changes.append(.destination(SocketAddress(address, port.port), .service(name, port: port.port)))
            }
        }
        return changes
    }

    // MARK: - Reading values

    package func socketAddress(_ text: String, _ field: String) throws(Invalid) -> SocketAddress {
        guard let address = SocketAddress(text) else {
            throw Invalid(field: field, value: text, expected: "an address and port such as 10.0.0.1:80")
        }
        return address
    }

    private func ipAddress(_ text: String, _ field: String) throws(Invalid) -> IPAddress {
        guard let address = IPAddress(text) else { throw Invalid(field: field, value: text, expected: "an IP address") }
        return address
    }

    private func choice<Choice: RawRepresentable & CaseIterable>(
        _ text: String?, _ field: String, default fallback: Choice
    ) throws(Invalid)
        -> Choice where Choice.RawValue == String
    {
        guard let text else { return fallback }
        guard let choice = Choice(rawValue: text) else {
            throw Invalid(
                field: field, value: text, expected: "one of \(Choice.allCases.map(\.rawValue).joined(separator: ", "))"
            )
        }
        return choice
    }
}
