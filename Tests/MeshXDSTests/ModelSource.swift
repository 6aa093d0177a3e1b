import MeshAddress
import MeshCore
import MeshXDS

/// A platform that a test changes by hand.
final class ModelSource: DiscoverySource {
    var isSynchronized = true
    var services: [ObjectName: Service] = [:]
    var endpoints: [ObjectName: [IPAddress: Endpoint]] = [:]
    var workloads: [IPAddress: Workload] = [:]
    var configurations: [ObjectName: SidecarConfiguration] = [:]
    var bundles = [TrustBundle(trustDomain: "test", roots: [[1, 2, 3]])]

    func destination(for address: SocketAddress) -> Destination {
        let takers = services.values.filter { $0.addresses.contains(address.ip) && $0.port(address.port) != nil }
        if let service = takers.min(by: { $0.name < $1.name }) {
            return .service(service.name, port: address.port)
        }
        if let workload = workloads[address.ip] { return .workload(workload) }
        return .unknown
    }

    func service(_ name: ObjectName) -> Service? { services[name] }

    func endpoints(of service: ObjectName) -> [Endpoint] { endpoints[service].map { Array($0.values) } ?? [] }

    func configuration(of pod: ObjectName) -> SidecarConfiguration? { configurations[pod] }

    func trustBundles() -> [TrustBundle] { bundles }
}

/// Numbers that are the same in every run (SplitMix64).
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

extension ObjectName {
    init(_ name: String) { self.init(namespace: "shop", name: name) }
}

func ip(_ last: Int, net: Int = 0) -> IPAddress {
    IPAddress(v4: 0x0a00_0000 | UInt32(net) << 8 | UInt32(last))
}

func workload(_ name: String, _ address: IPAddress) -> Workload {
    Workload(
        pod: ObjectName(name), addresses: [address],
        identity: SPIFFEID(trustDomain: "test", namespace: "shop", serviceAccount: name), isMeshed: true, owner: name,
        app: name, version: "v1", node: "n1", ports: [8080: .http1], service: ObjectName("web"),
        skippedInboundPorts: [9090])
}
