package import FoundationEssentials
package import MeshAPI
package import MeshAddress
package import MeshCore
package import SwiftProtobuf

/// Why a message cannot be used: the field, its value and what was expected.
package struct InvalidResource: Error, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// Messages of `proto/apus/v1` as Core's values, checked: whatever comes out can be used without another check.
package enum ResourceDecoding {
    /// Entries of any list in a resource.
    private static let listLimit = 4096

    package static func message<Value: Message>(_ type: Value.Type, _ bytes: some SwiftProtobufContiguousBytes)
        throws(InvalidResource) -> Value
    {
        do {
            return try Value(serializedBytes: bytes)
        } catch {
            throw InvalidResource("the bytes are not a \(Value.protoMessageName): \(error)")
        }
    }

    package static func decode(_ name: Apus_V1_ObjectName, _ field: String) throws(InvalidResource) -> ObjectName {
        guard !name.namespace.isEmpty, !name.name.isEmpty, !name.namespace.utf8.contains(UInt8(ascii: "/")),
            !name.name.utf8.contains(UInt8(ascii: "/")), name.namespace.utf8.count <= 253, name.name.utf8.count <= 253
        else {
            throw InvalidResource("\(field) '\(name.namespace)/\(name.name)' is not a namespace and a name")
        }
        return ObjectName(namespace: name.namespace, name: name.name)
    }

    package static func decode(_ address: Data, _ field: String) throws(InvalidResource) -> IPAddress {
        guard let address = IPAddress(bytes: address) else {
            throw InvalidResource("\(field) has \(address.count) bytes, an address has 4 or 16")
        }
        return address
    }

    package static func port(_ value: UInt32, _ field: String) throws(InvalidResource) -> UInt16 {
        guard let port = UInt16(exactly: value), port > 0 else {
            throw InvalidResource("\(field) \(value) is not a port (1 to 65535)")
        }
        return port
    }

    package static func decode(_ value: Apus_V1_ApplicationProtocol, _ field: String) throws(InvalidResource)
        -> ApplicationProtocol?
    {
        switch value {
        case .unspecified: return nil
        case .http1: return .http1
        case .http2: return .http2
        case .grpc: return .grpc
        case .tls: return .tls
        case .opaque: return .opaque
        case .UNRECOGNIZED(let number):
            throw InvalidResource("\(field) \(number) is not a protocol that this sidecar knows")
        }
    }

    /// One that this program does not know is as good as none: it is a hint.
    package static func decode(_ value: Apus_V1_LearnedProtocol) -> LearnedProtocol? {
        switch value {
        case .unspecified, .UNRECOGNIZED: nil
        case .http1: .http1
        case .http2: .http2
        case .tls: .tls
        case .opaque: .opaque
        case .serverFirst: .serverFirst
        }
    }

    package static func decode(
        _ ports: some Sequence<Apus_V1_LearnedPort>, _ field: String
    ) throws(InvalidResource) -> [UInt16: LearnedProtocol] {
        var learned: [UInt16: LearnedProtocol] = [:]
        for entry in ports {
            let port = try port(entry.port, "\(field).port")
            if let known = decode(entry.protocol) { learned[port] = known }
        }
        return learned
    }

    private static func checkCount(_ count: Int, _ field: String) throws(InvalidResource) {
        guard count <= listLimit else {
            throw InvalidResource("\(field) has \(count) entries, \(listLimit) are permitted")
        }
    }

    package static func destination(_ bytes: some SwiftProtobufContiguousBytes) throws(InvalidResource) -> Destination {
        switch try message(Apus_V1_Destination.self, bytes).kind {
        case .service(let target):
            return .service(try decode(target.service, "service"), port: try port(target.port, "service.port"))
        case .workload(let workload):
            return .workload(try decode(workload, "workload"))
        case .unknown:
            return .unknown
        case nil:
            throw InvalidResource("the destination is neither service, workload nor unknown")
        }
    }

    package static func service(_ bytes: some SwiftProtobufContiguousBytes) throws(InvalidResource) -> Service {
        let message = try message(Apus_V1_Service.self, bytes)
        var service = Service(name: try decode(message.name, "name"))
        try checkCount(message.addresses.count, "addresses")
        try checkCount(message.ports.count, "ports")
        try checkCount(message.retry.statuses.count, "retry.statuses")
        try checkCount(message.retry.grpcStatuses.count, "retry.grpc_statuses")
        for address in message.addresses { service.addresses.append(try decode(address, "addresses")) }
        for entry in message.ports {
            service.ports.append(
                ServicePort(
                    port: try port(entry.port, "ports.port"), name: entry.name,
                    declaredProtocol: try decode(entry.declaredProtocol, "ports.declared_protocol"),
                    learnedProtocol: decode(entry.learnedProtocol)))
        }
        var statuses: Set<Int> = []
        for status in message.retry.statuses {
            guard (100...599).contains(status) else {
                throw InvalidResource("retry.statuses \(status) is not an HTTP status (100 to 599)")
            }
            statuses.insert(Int(status))
        }
        var grpcStatuses: Set<UInt8> = []
        for status in message.retry.grpcStatuses {
            guard (1...16).contains(status) else {
                throw InvalidResource("retry.grpc_statuses \(status) is not the gRPC status of a failure (1 to 16)")
            }
            grpcStatuses.insert(UInt8(status))
        }
        service.retry = RetryPolicy(
            count: Int(message.retry.count), statuses: statuses, grpcStatuses: grpcStatuses,
            perTryTimeoutMilliseconds: message.retry.hasPerTryTimeoutMilliseconds
                ? Int(message.retry.perTryTimeoutMilliseconds) : nil)
        service.requestBodyLimitBytes = message.hasRequestBodyLimitBytes ? message.requestBodyLimitBytes : nil
        service.requestTimeoutMilliseconds =
            message.hasRequestTimeoutMilliseconds ? Int(message.requestTimeoutMilliseconds) : nil
        guard message.connectTimeoutMilliseconds > 0 else {
            throw InvalidResource("connect_timeout_milliseconds is 0, at least 1 is expected")
        }
        service.connectTimeoutMilliseconds = Int(message.connectTimeoutMilliseconds)
        switch message.loadBalancing {
        case .peakEwma, .unspecified: service.loadBalancing = .peakEWMA
        case .roundRobin: service.loadBalancing = .roundRobin
        case .random: service.loadBalancing = .random
        case .UNRECOGNIZED(let number):
            throw InvalidResource("load_balancing \(number) is not one that this sidecar knows")
        }
        return service
    }

    package static func endpoint(_ bytes: some SwiftProtobufContiguousBytes) throws(InvalidResource) -> Endpoint {
        let message = try message(Apus_V1_Endpoint.self, bytes)
        try checkCount(message.targetPorts.count, "target_ports")
        var ports: [UInt16: UInt16] = [:]
        for entry in message.targetPorts {
            ports[try port(entry.servicePort, "target_ports.service_port")] = try port(entry.port, "target_ports.port")
        }
        return Endpoint(
            service: try decode(message.service, "service"), address: try decode(message.address, "address"),
            targetPorts: ports, isReady: message.isReady,
            workload: message.hasWorkload ? try decode(message.workload, "workload") : nil)
    }

    package static func identity(_ text: String, _ field: String) throws(InvalidResource) -> SPIFFEID? {
        if text.isEmpty { return nil }
        do {
            return try SPIFFEID(parsing: text)
        } catch {
            throw InvalidResource("\(field): \(error)")
        }
    }

    package static func decode(_ message: Apus_V1_Workload, _ field: String) throws(InvalidResource) -> Workload {
        try checkCount(message.addresses.count, "\(field).addresses")
        try checkCount(message.ports.count, "\(field).ports")
        try checkCount(message.skippedInboundPorts.count, "\(field).skipped_inbound_ports")
        var workload = Workload(
            pod: try decode(message.pod, "\(field).pod"), addresses: [],
            identity: try identity(message.identity, "\(field).identity"), isMeshed: message.isMeshed,
            isTerminating: message.isTerminating, owner: message.owner, app: message.app, version: message.version,
            node: message.node,
            service: message.hasService ? try decode(message.service, "\(field).service") : nil)
        for address in message.addresses { workload.addresses.append(try decode(address, "\(field).addresses")) }
        for entry in message.ports {
            let port = try port(entry.port, "\(field).ports.port")
            guard let applicationProtocol = try decode(entry.protocol, "\(field).ports.protocol") else { continue }
            workload.ports[port] = applicationProtocol
        }
        try checkCount(message.learnedPorts.count, "\(field).learned_ports")
        workload.learnedPorts = try decode(message.learnedPorts, "\(field).learned_ports")
        for port in message.skippedInboundPorts {
            workload.skippedInboundPorts.insert(try self.port(port, "\(field).skipped_inbound_ports"))
        }
        return workload
    }

    package static func configuration(_ bytes: some SwiftProtobufContiguousBytes) throws(InvalidResource)
        -> SidecarConfiguration
    {
        let message = try message(Apus_V1_Self.self, bytes)
        guard !message.trustDomain.isEmpty else { throw InvalidResource("trust_domain is empty") }
        var configuration = SidecarConfiguration(
            workload: try decode(message.workload, "workload"), trustDomain: message.trustDomain)
        // A policy that this sidecar does not know is refused rather than taken for a weaker one.
        switch message.plaintext {
        case .strict: configuration.plaintext = .strict
        case .permissive: configuration.plaintext = .permissive
        case .unspecified, .UNRECOGNIZED:
            throw InvalidResource("plaintext \(message.plaintext.rawValue) is neither STRICT nor PERMISSIVE")
        }
        switch message.unknownDestinations {
        case .allow: configuration.unknownDestinations = .allow
        case .deny: configuration.unknownDestinations = .deny
        case .unspecified, .UNRECOGNIZED:
            throw InvalidResource(
                "unknown_destinations \(message.unknownDestinations.rawValue) is neither ALLOW nor DENY")
        }
        return configuration
    }

    package static func trustBundle(_ bytes: some SwiftProtobufContiguousBytes) throws(InvalidResource) -> TrustBundle {
        try trustBundle(try message(Apus_V1_TrustBundle.self, bytes))
    }

    package static func trustBundle(_ message: Apus_V1_TrustBundle) throws(InvalidResource) -> TrustBundle {
        guard !message.trustDomain.isEmpty else { throw InvalidResource("trust_domain is empty") }
        guard !message.roots.isEmpty, message.roots.allSatisfy({ !$0.isEmpty }) else {
            throw InvalidResource("roots has no certificate, or an empty one")
        }
        try checkCount(message.roots.count, "roots")
        return TrustBundle(trustDomain: message.trustDomain, roots: message.roots.map { [UInt8]($0) })
    }
}
