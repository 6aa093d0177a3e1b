import MeshAddress
import MeshCore
import MeshXDS

/// Resources of discovery as a control plane sends them (proto/apus/v1/discovery.proto).
///
/// The first byte chooses the type. Properties: what is accepted is written and read again as the same value; ports are ports, statuses
/// statuses, and no name has a slash in it that would make it another's.
enum DiscoveryProperty: FuzzProperty {
    static let name = "discovery"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        guard let first = input.first else { return }
        let bytes = Array(input.dropFirst())
        switch first % 5 {
        case 0:
            try roundTrip(bytes, ResourceDecoding.destination, { ResourceEncoding.bytes(ResourceEncoding.encode($0)) })
        case 1:
            let service = try roundTrip(
                bytes, ResourceDecoding.service, { ResourceEncoding.bytes(ResourceEncoding.encode($0)) })
            if let service {
                try require(isName(service.name), "the name \(service.name)")
                try require(service.ports.allSatisfy { $0.port > 0 }, "port 0")
                try require(service.retry.statuses.allSatisfy { (100...599).contains($0) }, "a status out of range")
                try require(service.connectTimeoutMilliseconds > 0 && service.retry.count >= 0, "a negative number")
            }
        case 2:
            let endpoint = try roundTrip(
                bytes, ResourceDecoding.endpoint, { ResourceEncoding.bytes(ResourceEncoding.encode($0)) })
            if let endpoint {
                try require(isName(endpoint.service), "the service \(endpoint.service)")
                try require(endpoint.targetPorts.allSatisfy { $0 > 0 && $1 > 0 }, "port 0")
            }
        case 3:
            let own = try roundTrip(
                bytes, ResourceDecoding.configuration, { ResourceEncoding.bytes(ResourceEncoding.encode($0)) })
            if let own {
                try require(isName(own.workload.pod) && !own.trustDomain.isEmpty, "the pod \(own.workload.pod)")
            }
        default:
            try roundTrip(bytes, ResourceDecoding.trustBundle, { ResourceEncoding.bytes(ResourceEncoding.encode($0)) })
        }
    }

    private static func isName(_ name: ObjectName) -> Bool {
        [name.namespace, name.name].allSatisfy { !$0.isEmpty && !$0.contains("/") && $0.utf8.count <= 253 }
    }

    @discardableResult
    private static func roundTrip<Value: Equatable>(
        _ bytes: [UInt8], _ decode: ([UInt8]) throws(InvalidResource) -> Value, _ encode: (Value) -> [UInt8]
    ) throws(PropertyFailure) -> Value? {
        guard let value = try? decode(bytes) else { return nil }
        let written = encode(value)
        do throws(InvalidResource) {
            let again = try decode(written)
            guard again == value else { throw InvalidResource("it is \(again)") }
            guard encode(again) == written else { throw InvalidResource("other bytes") }
        } catch {
            throw PropertyFailure("\(value) is written and read again: \(error)")
        }
        return value
    }
}
