import Foundation
import MeshAddress
import MeshControl
import MeshCore
import MeshHTTP
import MeshIO
import MeshIdentity
import MeshXDS
import Synchronization

/// A catalog that the test tells.
final class ScriptedSource: CatalogSource {
    private let events: AsyncStream<[CatalogEvent]>
    private let continuation: AsyncStream<[CatalogEvent]>.Continuation

    init(_ first: [CatalogEvent] = []) {
        (events, continuation) = AsyncStream.makeStream()
        if !first.isEmpty { continuation.yield(first) }
    }

    func tell(_ events: CatalogEvent...) { continuation.yield(events) }

    func run(deliver: @escaping @Sendable ([CatalogEvent], UInt64) -> Void) async throws {
        for await batch in events { deliver(batch, UInt64(MonotonicTime.now().nanoseconds)) }
    }
}

/// What a sidecar has learnt, readable from the test.
struct Learnt: Sendable {
    var destinations: [SocketAddress: Destination] = [:]
    var services: [ObjectName: Service] = [:]
    var endpoints: [ObjectName: Set<IPAddress>] = [:]
    var configuration: SidecarConfiguration?
    var bundles: [TrustBundle] = []
    var connections = 0
    var isConnected = false
    var endpointMessages = 0
}

/// The control plane's client ends, as a sidecar uses them: certificate, then discovery and telemetry over one channel.
final class FakeSidecar: Sendable {
    static let control = SPIFFEID(
        trustDomain: "cluster.local", namespace: "apus-system", serviceAccount: "apus-control")

    let pod: ObjectName
    let serviceAccount: String
    private let loop: EventLoop
    private let parts: LoopBound<Parts>
    private let learnt: Mutex<Learnt>

    struct NoCertificate: Error, CustomStringConvertible {
        let description: String
    }

    init(pod: ObjectName, serviceAccount: String) throws {
        self.pod = pod
        self.serviceAccount = serviceAccount
        loop = try EventLoop.spawn(name: "sidecar")
        parts = LoopBound(Parts(), loop: loop)
        learnt = Mutex(Learnt())
    }

    deinit {
        let parts = parts
        loop.submit { parts.value.clear() }
        loop.stop()
    }

    var state: Learnt { learnt.withLock { $0 } }

    /// Asks for a certificate with the token of its service account.
    func certify(at address: SocketAddress, roots: [[UInt8]], token: String? = nil) async throws -> SignedCertificate {
        let request = try CertificateRequest()
        let token = token ?? "system:serviceaccount:\(pod.namespace):\(serviceAccount)"
        let (loop, parts) = (loop, parts)
        let signed: SignedCertificate = try await withCheckedThrowingContinuation { continuation in
            loop.submit {
                let client = CertificateClient(loop: loop, expectedIdentity: Self.control)
                parts.value.certificates = client
                do {
                    let tls = try TLSContext.client(identity: nil, trustRoots: roots, alpn: ["h2"])
                    client.sign(
                        certificateRequest: request.requestDER, token: token, lifetimeSeconds: 0, address: address,
                        tls: tls
                    ) { result in
                        continuation.resume(with: result.mapError { NoCertificate(description: $0.description) })
                    }
                } catch {
                    continuation.resume(throwing: error)
                }
            }
        }
        let identity = TLSContext.Identity(chain: signed.chain, privateKeyDER: request.privateKeyDER)
        loop.submit {
            parts.value.tls = try? TLSContext.client(
                identity: identity, trustRoots: signed.trustBundle.roots, alpn: ["h2"])
        }
        return signed
    }

    /// Opens its streams, as the sidecar of `claimed` when that is another pod.
    func connect(to address: SocketAddress, as claimed: ObjectName? = nil) {
        let (loop, parts, pod) = (loop, parts, claimed ?? pod)
        loop.submit { [self] in
            let channel = ControlChannel(loop: loop, expectedIdentity: Self.control, seed: 1)
            channel.addresses = [address]
            channel.tls = parts.value.tls
            let client = DiscoveryClient(channel: channel, pod: pod, version: "test", statePath: nil, delegate: self)
            parts.value.channel = channel
            parts.value.discovery = client
            parts.value.telemetry = TelemetryClient(channel: channel, pod: pod)
            client.start()
            channel.start()
        }
    }

    func subscribe(_ address: SocketAddress) {
        let parts = parts
        loop.submit { _ = parts.value.discovery?.subscribe(address) }
    }

    /// Whether the report was taken.
    func report(_ report: TelemetryReport) async -> Bool {
        let (loop, parts) = (loop, parts)
        return await withCheckedContinuation { continuation in
            loop.submit { continuation.resume(returning: parts.value.telemetry?.send(report) ?? false) }
        }
    }

    func close() {
        let parts = parts
        loop.submit {
            parts.value.telemetry?.close()
            parts.value.discovery?.close()
            parts.value.channel?.close()
        }
    }

    /// On the loop.
    private final class Parts {
        var certificates: CertificateClient?
        var tls: TLSContext?
        var channel: ControlChannel?
        var discovery: DiscoveryClient?
        var telemetry: TelemetryClient?

        func clear() { (certificates, tls, channel, discovery, telemetry) = (nil, nil, nil, nil, nil) }
    }
}

extension FakeSidecar: DiscoveryClientDelegate {
    private func learn(_ change: (inout Learnt) -> Void) { learnt.withLock { change(&$0) } }

    func serviceChanged(_ service: Service) { learn { $0.services[service.name] = service } }
    func serviceRemoved(_ name: ObjectName) {
        learn {
            $0.services[name] = nil
            $0.endpoints[name] = nil
        }
    }
    func endpointChanged(_ endpoint: Endpoint) {
        learn {
            $0.endpoints[endpoint.service, default: []].insert(endpoint.address)
            $0.endpointMessages += 1
        }
    }
    func endpointRemoved(service: ObjectName, address: IPAddress) {
        learn {
            $0.endpoints[service]?.remove(address)
            $0.endpointMessages += 1
        }
    }
    func destinationChanged(_ address: SocketAddress, _ destination: Destination) {
        learn { $0.destinations[address] = destination }
    }
    func destinationForgotten(_ address: SocketAddress) { learn { $0.destinations[address] = nil } }
    func selfChanged(_ configuration: SidecarConfiguration) { learn { $0.configuration = configuration } }
    func trustBundleChanged(_ bundle: TrustBundle) { learn { $0.bundles.append(bundle) } }
    func trustBundleRemoved(trustDomain: String) { learn { $0.bundles.removeAll { $0.trustDomain == trustDomain } } }
    func resourceRefused(_ refusal: ResourceRefusal) {}
    func stateFileIgnored(path: String, reason: String) {}
    func connectionChanged(isConnected: Bool, reason: String) {
        learn {
            $0.isConnected = isConnected
            $0.connections += isConnected ? 1 : 0
        }
    }
    func isInUse(_ address: SocketAddress) -> Bool { true }
}

/// Waits until something is so, a minute at most.
func eventually(_ condition: () async throws -> Bool) async throws -> Bool {
    for _ in 0..<6000 {
        if try await condition() { return true }
        try await Task.sleep(for: .milliseconds(10))
    }
    return false
}
