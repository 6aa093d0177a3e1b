import MeshAddress
import MeshControl
import MeshCore
import Testing

@Suite("The catalog answers what discovery asks, and tells what changed")
struct CatalogTests {
    let cart = ObjectName(namespace: "shop", name: "cart")
    let pod = ObjectName(namespace: "shop", name: "cart-1")

    func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    func service(_ name: ObjectName, _ addresses: [String], ports: [UInt16] = [80]) throws -> Service {
        Service(name: name, addresses: try addresses.map(address), ports: ports.map { ServicePort(port: $0) })
    }

    func workload(_ pod: ObjectName, _ addresses: [String], app: String = "") throws -> Workload {
        Workload(pod: pod, addresses: try addresses.map(address), isMeshed: true, app: app)
    }

    @Test("A service's address is the service on its ports and nothing on others; a pod's is the pod on every port")
    func destinations() throws {
        var catalog = Catalog()
        _ = catalog.apply(.service(try service(cart, ["10.96.0.1", "fd00::1"])))
        _ = catalog.apply(.workload(try workload(pod, ["10.1.0.7"])))
        let vip = try address("10.96.0.1")
        #expect(catalog.destination(for: SocketAddress(vip, 80)) == .service(cart, port: 80))
        #expect(catalog.destination(for: SocketAddress(try address("fd00::1"), 80)) == .service(cart, port: 80))
        #expect(catalog.destination(for: SocketAddress(vip, 81)) == .unknown)
        #expect(
            catalog.destination(for: SocketAddress(try address("10.1.0.7"), 9999))
                == .workload(try workload(pod, ["10.1.0.7"])))
        #expect(catalog.destination(for: SocketAddress(try address("1.2.3.4"), 80)) == .unknown)
    }

    @Test("A change touches what it concerns and nothing else; a repetition touches nothing")
    func changes() throws {
        var catalog = Catalog()
        let vip = try address("10.96.0.1")
        #expect(catalog.apply(.service(try service(cart, ["10.96.0.1"]))) == [.service(cart), .address(vip)])
        #expect(catalog.apply(.service(try service(cart, ["10.96.0.1"]))) == [])
        var retried = try service(cart, ["10.96.0.1"])
        retried.retry.count = 5
        #expect(catalog.apply(.service(retried)) == [.service(cart)])
        retried.ports = [ServicePort(port: 8080)]
        #expect(catalog.apply(.service(retried)) == [.service(cart), .address(vip)])
        let at = try address("10.1.0.7")
        let endpoint = Endpoint(service: cart, address: at, targetPorts: [80: 8080])
        #expect(catalog.apply(.endpoint(endpoint)) == [.endpoint(service: cart, address: at)])
        #expect(catalog.apply(.endpoint(endpoint)) == [])
        #expect(catalog.apply(.endpointRemoved(service: cart, address: at)) == [.endpoint(service: cart, address: at)])
        #expect(catalog.apply(.endpointRemoved(service: cart, address: at)) == [])
        #expect(catalog.apply(.serviceRemoved(cart)) == [.address(vip), .service(cart)])
        #expect(catalog.apply(.serviceRemoved(cart)) == [])
        #expect(catalog.apply(.synchronized) == [.synchronized])
        #expect(catalog.apply(.synchronized) == [])
    }

    @Test(
        "An address that passes from one pod or service to another leads to whoever has it, in whichever order the events come"
    )
    func passing() throws {
        var catalog = Catalog()
        let next = ObjectName(namespace: "shop", name: "till-1")
        let at = SocketAddress(try address("10.1.0.7"), 80)
        _ = catalog.apply(.workload(try workload(pod, ["10.1.0.7"])))
        _ = catalog.apply(.workload(try workload(next, ["10.1.0.7"])))
        #expect(catalog.destination(for: at) == .workload(try workload(next, ["10.1.0.7"])))
        _ = catalog.apply(.workloadRemoved(pod))
        #expect(catalog.destination(for: at) == .workload(try workload(next, ["10.1.0.7"])))
        _ = catalog.apply(.workloadRemoved(next))
        #expect(catalog.destination(for: at) == .unknown)

        let till = ObjectName(namespace: "shop", name: "till")
        let vip = SocketAddress(try address("10.96.0.1"), 80)
        _ = catalog.apply(.service(try service(cart, ["10.96.0.1"])))
        _ = catalog.apply(.service(try service(till, ["10.96.0.1"])))
        _ = catalog.apply(.serviceRemoved(cart))
        #expect(catalog.destination(for: vip) == .service(till, port: 80))
    }

    @Test("Settings change every sidecar's configuration, a namespace's exception is that namespace's")
    func settings() throws {
        var catalog = Catalog()
        _ = catalog.apply(.workload(try workload(pod, ["10.1.0.7"])))
        let settings = MeshSettings(plaintext: .strict, plaintextByNamespace: ["shop": .permissive])
        #expect(catalog.apply(.settings(settings)) == [.everyConfiguration])
        #expect(catalog.apply(.settings(settings)) == [])
        #expect(catalog.configuration(of: pod)?.plaintext == .permissive)
        #expect(catalog.configuration(of: cart) == nil)
    }

    @Test("After any sequence of events the indices say what a fresh catalog says that was told the survivors only")
    func random() throws {
        for seed in UInt64(1)...20 {
            var generator = SeededGenerator(seed: seed)
            var catalog = Catalog()
            var services: [ObjectName: Service] = [:]
            var workloads: [ObjectName: Workload] = [:]
            var endpoints: [String: Endpoint] = [:]
            for _ in 0..<400 {
                let name = ObjectName(namespace: "n", name: "s\(Int.random(in: 0..<4, using: &generator))")
                let number = Int.random(in: 0..<4, using: &generator)
                switch Int.random(in: 0..<6, using: &generator) {
                case 0:
                    let new = try service(name, ["10.96.0.\(name.name.suffix(1))"], ports: [80, UInt16(81 + number)])
                    services[name] = new
                    _ = catalog.apply(.service(new))
                case 1:
                    services[name] = nil
                    _ = catalog.apply(.serviceRemoved(name))
                case 2:
                    let new = try workload(name, ["10.1.0.\(name.name.suffix(1))"], app: "\(number)")
                    workloads[name] = new
                    _ = catalog.apply(.workload(new))
                case 3:
                    workloads[name] = nil
                    _ = catalog.apply(.workloadRemoved(name))
                case 4:
                    let new = Endpoint(service: name, address: try address("10.1.0.\(number)"), targetPorts: [80: 8080])
                    endpoints[new.id] = new
                    _ = catalog.apply(.endpoint(new))
                default:
                    let at = try address("10.1.0.\(number)")
                    endpoints["\(name)/\(at)"] = nil
                    _ = catalog.apply(.endpointRemoved(service: name, address: at))
                }
            }
            var fresh = Catalog()
            for service in services.values { _ = fresh.apply(.service(service)) }
            for workload in workloads.values { _ = fresh.apply(.workload(workload)) }
            for endpoint in endpoints.values { _ = fresh.apply(.endpoint(endpoint)) }
            #expect(fresh.endpointCount == catalog.endpointCount)
            for number in 0..<4 {
                for port in UInt16(79)...85 {
                    for network in ["10.96.0", "10.1.0"] {
                        let at = SocketAddress(try address("\(network).\(number)"), port)
                        #expect(fresh.destination(for: at) == catalog.destination(for: at), "seed \(seed), \(at)")
                    }
                }
                let name = ObjectName(namespace: "n", name: "s\(number)")
                #expect(fresh.endpoints(of: name) == catalog.endpoints(of: name))
            }
        }
    }

    @Test("Most of a service's own endpoints decide what was learned of its port; a liar among them changes nothing")
    func learned() throws {
        var catalog = Catalog()
        _ = catalog.apply(.service(try service(cart, ["10.96.0.1"])))
        let pods = (1...3).map { ObjectName(namespace: "shop", name: "cart-\($0)") }
        for (index, pod) in pods.enumerated() {
            let workload = try workload(pod, ["10.1.0.\(index + 1)"])
            _ = catalog.apply(.workload(workload))
            _ = catalog.apply(
                .endpoint(
                    Endpoint(
                        service: cart, address: workload.addresses[0], targetPorts: [80: 8080], workload: workload)))
        }
        func told() -> LearnedProtocol? { catalog.serviceAsLearned(cart)?.ports[0].learnedProtocol }
        #expect(told() == nil)
        #expect(
            Set(catalog.learn([8080: .http1], of: pods[0])) == [.service(cart), .address(try address("10.1.0.1"))])
        #expect(told() == .http1)
        #expect(catalog.learn([8080: .http1], of: pods[0]) == [], "nothing new")
        _ = catalog.learn([8080: .serverFirst], of: pods[1])
        #expect(told() == nil, "one says this, one that")
        _ = catalog.learn([8080: .http1, 9: .tls], of: pods[2])
        #expect(told() == .http1)
        let dialled = catalog.destination(for: SocketAddress(try address("10.1.0.3"), 9))
        guard case .workload(let workload) = dialled else {
            Issue.record("\(dialled)")
            return
        }
        #expect(workload.learnedPorts == [8080: .http1, 9: .tls])

        #expect(catalog.learn([80: .http1], of: ObjectName(namespace: "shop", name: "stranger")) == [])
        _ = catalog.apply(.workloadRemoved(pods[2]))
        #expect(catalog.learnedPorts(of: pods[2]).isEmpty)
        #expect(told() == nil)

        var declared = try service(cart, ["10.96.0.1"])
        declared.ports[0].declaredProtocol = .opaque
        _ = catalog.apply(.service(declared))
        _ = catalog.learn([:], of: pods[1])
        #expect(told() == nil, "what is declared needs no learning")
    }
}

/// SplitMix64: the same numbers in every run.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
