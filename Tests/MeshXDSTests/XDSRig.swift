import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshXDS
import Synchronization
import Testing

struct RigFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// An event loop on a thread of its own, on which a test makes things and runs pieces of code.
final class XDSRig: Sendable {
    let loop: EventLoop

    init() throws { loop = try EventLoop.spawn(name: "test") }

    deinit { loop.stop() }

    func run<Result: Sendable>(_ body: @escaping @Sendable (EventLoop) throws -> Result) async throws -> Result {
        let loop = loop
        return try await withCheckedThrowingContinuation { continuation in
            let isTaken = loop.submit { continuation.resume(with: Swift.Result { try body(loop) }) }
            if !isTaken { continuation.resume(throwing: RigFailure("the loop takes no job")) }
        }
    }

    /// Makes something that belongs to the loop.
    func make<Value>(_ body: @escaping @Sendable (EventLoop) throws -> Value) async throws -> LoopBound<Value> {
        try await run { LoopBound(try body($0), loop: $0) }
    }
}

/// A value that callbacks change and the test waits for.
final class Watched<Value: Sendable>: Sendable {
    private let stored: Mutex<Value>

    init(_ value: Value) { stored = Mutex(value) }

    func change(_ body: (inout Value) -> Void) { stored.withLock { body(&$0) } }

    var value: Value { stored.withLock { $0 } }

    /// Waits until the value satisfies `condition`; 20 s are given before the test fails.
    @discardableResult
    func wait(
        _ what: String, sourceLocation: SourceLocation = #_sourceLocation, until condition: (Value) -> Bool
    ) async throws -> Value {
        let deadline = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < deadline {
            let now = value
            if condition(now) { return now }
            try await Task.sleep(for: .milliseconds(2))
        }
        Issue.record("waited in vain for \(what); so far: \(value)", sourceLocation: sourceLocation)
        throw RigFailure("waited in vain for \(what)")
    }
}

/// What a sidecar has learnt, as its delegate was told.
struct Learnt: Sendable, Equatable {
    var services: [ObjectName: Service] = [:]
    var endpoints: [String: Endpoint] = [:]
    var destinations: [SocketAddress: Destination] = [:]
    var configuration: SidecarConfiguration?
    var bundles: [String: TrustBundle] = [:]
    var refusals: [ResourceRefusal] = []
    var connections = 0
    var isConnected = false
    var reason = ""
    var problems: [String] = []
}

final class LearningDelegate: DiscoveryClientDelegate {
    let learnt: Watched<Learnt>
    var inUse: Set<SocketAddress> = []

    init(_ learnt: Watched<Learnt>) { self.learnt = learnt }

    func serviceChanged(_ service: Service) { learnt.change { $0.services[service.name] = service } }
    func serviceRemoved(_ name: ObjectName) {
        learnt.change {
            $0.services[name] = nil
            $0.endpoints = $0.endpoints.filter { $0.value.service != name }
        }
    }
    func endpointChanged(_ endpoint: Endpoint) { learnt.change { $0.endpoints[endpoint.id] = endpoint } }
    func endpointRemoved(service: ObjectName, address: IPAddress) {
        learnt.change { $0.endpoints["\(service)/\(address)"] = nil }
    }
    func destinationChanged(_ address: SocketAddress, _ destination: Destination) {
        learnt.change { $0.destinations[address] = destination }
    }
    func destinationForgotten(_ address: SocketAddress) { learnt.change { $0.destinations[address] = nil } }
    func selfChanged(_ configuration: SidecarConfiguration) { learnt.change { $0.configuration = configuration } }
    func trustBundleChanged(_ bundle: TrustBundle) { learnt.change { $0.bundles[bundle.trustDomain] = bundle } }
    func trustBundleRemoved(trustDomain: String) { learnt.change { $0.bundles[trustDomain] = nil } }
    func resourceRefused(_ refusal: ResourceRefusal) { learnt.change { $0.refusals.append(refusal) } }
    func connectionChanged(isConnected: Bool, reason: String) {
        learnt.change {
            $0.isConnected = isConnected
            $0.reason = reason
            if isConnected { $0.connections += 1 }
        }
    }
    func stateFileIgnored(path: String, reason: String) { learnt.change { $0.problems.append(reason) } }
    func isInUse(_ address: SocketAddress) -> Bool { inUse.contains(address) }
}

/// A control plane on plaintext, where every peer is who its metadata's `x-identity` says (else `shop/default`).
final class TestControl: DiscoveryServerDelegate {
    static let identity = SPIFFEID(trustDomain: "test", namespace: "shop", serviceAccount: "default")

    let loop: EventLoop
    let source: ModelSource
    let grpc: GRPCServer
    private(set) var discovery: DiscoveryServer!
    private var listener: Listener?
    let statuses: Watched<[DiscoverySubscriberStatus]>
    let converged: Watched<[Int]>
    var refusalReason: String?

    init(
        _ loop: EventLoop, _ source: ModelSource, statuses: Watched<[DiscoverySubscriberStatus]> = Watched([]),
        converged: Watched<[Int]> = Watched([]), limits: DiscoveryServer.Limits = DiscoveryServer.Limits()
    ) {
        self.loop = loop
        self.source = source
        self.statuses = statuses
        self.converged = converged
        grpc = GRPCServer(loop: loop, tls: nil)
        discovery = DiscoveryServer(
            loop: loop, source: source, delegate: self, limits: limits, identify: { _ in TestControl.identity })
        discovery.register(on: grpc)
    }

    func listen(port: UInt16 = 0) throws -> SocketAddress {
        let listener = try Listener(loop: loop, address: SocketAddress(.loopback4, port), delegate: grpc)
        self.listener = listener
        return listener.address
    }

    func stop() {
        listener?.close()
        grpc.shutdown(graceMilliseconds: 0) {}
    }

    func refusal(of pod: ObjectName, identity: SPIFFEID) -> String? { refusalReason }
    func sidecarChanged(_ status: DiscoverySubscriberStatus) { statuses.change { $0.append(status) } }
    func sidecarDisconnected(_ status: DiscoverySubscriberStatus) {}
    func converged(nanoseconds: UInt64, subscribers: Int) { converged.change { $0.append(subscribers) } }
}

/// A sidecar's end.
final class TestSidecar {
    let channel: ControlChannel
    let client: DiscoveryClient
    let delegate: LearningDelegate

    init(
        _ loop: EventLoop, _ address: SocketAddress?, _ learnt: Watched<Learnt>, statePath: String? = nil,
        limits: DiscoveryClient.Limits = DiscoveryClient.Limits()
    ) {
        channel = ControlChannel(loop: loop, identity: nil, seed: 1, mayBePlaintext: true)
        delegate = LearningDelegate(learnt)
        client = DiscoveryClient(
            channel: channel, pod: ObjectName("client"), version: "9.9", statePath: statePath, delegate: delegate,
            limits: limits)
        if let address { channel.addresses = [address] }
        client.start()
        channel.start()
    }
}

/// A service `shop/web` at 10.0.96.1:80 with `count` endpoints, and the configuration of `shop/client`.
func shopSource(endpoints count: Int) -> ModelSource {
    let source = ModelSource()
    let web = ObjectName("web")
    source.services[web] = Service(
        name: web, addresses: [ip(1, net: 96)], ports: [ServicePort(port: 80, name: "http", declaredProtocol: .http1)])
    for index in 0..<count {
        let address = ip(1 + index, net: 1)
        source.endpoints[web, default: [:]][address] = Endpoint(
            service: web, address: address, targetPorts: [80: 8080], workload: workload("web-\(index)", address))
    }
    source.configurations[ObjectName("client")] = SidecarConfiguration(
        workload: workload("client", ip(99, net: 1)), trustDomain: "test")
    return source
}

let webAddress = SocketAddress(ip(1, net: 96), 80)
