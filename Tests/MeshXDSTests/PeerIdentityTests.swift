import Foundation
import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshIdentity
import MeshXDS
import Testing

/// Who may speak with whom, over TLS with certificates of a real authority.
@Suite struct PeerIdentityOnStreamsTests {
    private static let control = SPIFFEID(trustDomain: "test", namespace: "apus-system", serviceAccount: "apus-control")
    private static let sidecar = SPIFFEID(trustDomain: "test", namespace: "shop", serviceAccount: "client")

    private let authority: CertificateAuthority
    private let now = Timestamp(unixSeconds: Int64(Date().timeIntervalSince1970))

    init() throws {
        authority = try CertificateAuthority(trustDomain: "test", root: .create(trustDomain: "test", now: now))
    }

    private func identity(_ id: SPIFFEID) throws -> TLSContext.Identity {
        let issued = try authority.issueServing(identity: id, dnsNames: [], now: now)
        return TLSContext.Identity(chain: issued.certificate.chain, privateKeyDER: issued.privateKeyDER)
    }

    private func server(_ id: SPIFFEID) throws -> TLSContext {
        try .server(identity: identity(id), trustRoots: [authority.rootDER], clientCertificate: .optional, alpn: ["h2"])
    }

    private func client(_ id: SPIFFEID?) throws -> TLSContext {
        try .client(identity: id.map(identity), trustRoots: [authority.rootDER], alpn: ["h2"])
    }

    /// Real identities, unlike `TestControl`'s.
    private final class Control: DiscoveryServerDelegate, CertificateSigner {
        let source = shopSource(endpoints: 1)
        let identities: Watched<[SPIFFEID]>
        let tokens: Watched<[String]>
        let grpc: GRPCServer
        private var discovery: DiscoveryServer?
        private var certificates: CertificateService?

        init(_ loop: EventLoop, _ tls: TLSContext, _ identities: Watched<[SPIFFEID]>, _ tokens: Watched<[String]>) {
            self.identities = identities
            self.tokens = tokens
            grpc = GRPCServer(loop: loop, tls: tls)
            let discovery = DiscoveryServer(loop: loop, source: source, delegate: self)
            discovery.register(on: grpc)
            self.discovery = discovery
            let certificates = CertificateService(loop: loop, signer: self)
            certificates.register(on: grpc)
            self.certificates = certificates
        }

        func refusal(of pod: ObjectName, identity: SPIFFEID) -> String? {
            identities.change { $0.append(identity) }
            return nil
        }
        func sidecarChanged(_ status: DiscoverySubscriberStatus) {}
        func sidecarDisconnected(_ status: DiscoverySubscriberStatus) {}
        func converged(nanoseconds: UInt64, subscribers: Int) {}
        func sign(
            _ request: CertificateSigningRequest,
            completion: @escaping @Sendable (Result<SignedCertificate, MeshXDS.CertificateRefusal>) -> Void
        ) {
            tokens.change { $0.append(request.token) }
            completion(.failure(.busy("enough")))
        }
    }

    private struct Scene {
        let rig: XDSRig
        let control: LoopBound<Control>
        let address: SocketAddress
        let identities = Watched<[SPIFFEID]>([])
        let tokens = Watched<[String]>([])

        init(_ tls: TLSContext) async throws {
            let rig = try XDSRig()
            let (identities, tokens) = (identities, tokens)
            let control = try await rig.make { Control($0, tls, identities, tokens) }
            address = try await rig.run { loop in
                try Listener(loop: loop, address: SocketAddress(.loopback4, 0), delegate: control.value.grpc).address
            }
            self.rig = rig
            self.control = control
        }

        func connect(_ tls: TLSContext, _ learnt: Watched<Learnt>) async throws -> LoopBound<
            (ControlChannel, DiscoveryClient, LearningDelegate)
        > {
            let address = address
            return try await rig.make { loop in
                let channel = ControlChannel(loop: loop, expectedIdentity: PeerIdentityOnStreamsTests.control, seed: 1)
                let delegate = LearningDelegate(learnt)
                let client = DiscoveryClient(
                    channel: channel, pod: ObjectName("client"), version: "1", statePath: nil, delegate: delegate)
                channel.addresses = [address]
                channel.tls = tls
                client.start()
                client.subscribe(webAddress)
                channel.start()
                return (channel, client, delegate)
            }
        }
    }

    @Test func theSidecarsIdentityIsThatOfItsCertificate() async throws {
        let scene = try await Scene(server(Self.control))
        let learnt = Watched(Learnt())
        let sidecar = try await scene.connect(client(Self.sidecar), learnt)
        try await learnt.wait("the answer") { $0.destinations[webAddress] != nil }
        #expect(scene.identities.value == [Self.sidecar])
        // A renewed certificate takes over without a gap: the new stream stands before the old one ends.
        let renewed = try client(Self.sidecar)
        try await scene.rig.run { _ in sidecar.value.0.tls = renewed }
        try await scene.identities.wait("the new stream") { $0.count == 2 }
        let state = try await learnt.wait("the second connection") { $0.connections == 2 }
        #expect(state.isConnected)
    }

    @Test func aStreamWithoutACertificateIsRefused() async throws {
        let scene = try await Scene(server(Self.control))
        let learnt = Watched(Learnt())
        let sidecar = try await scene.connect(client(nil), learnt)
        try await learnt.wait("the refusal") { $0.reason.contains("UNAUTHENTICATED") }
        #expect(scene.identities.value.isEmpty && learnt.value.bundles.isEmpty)
        _ = sidecar
    }

    @Test func aStrangerInTheControlPlanesPlaceLearnsNothing() async throws {
        let stranger = SPIFFEID(trustDomain: "test", namespace: "shop", serviceAccount: "stranger")
        let scene = try await Scene(server(stranger))
        let learnt = Watched(Learnt())
        let sidecar = try await scene.connect(client(Self.sidecar), learnt)
        let outcome = Watched<Result<SignedCertificate, CertificateSignFailure>?>(nil)
        let (address, tls) = (scene.address, try client(nil))
        let signing = try await scene.rig.make { loop in
            let client = CertificateClient(loop: loop, expectedIdentity: PeerIdentityOnStreamsTests.control)
            client.sign(certificateRequest: [1], token: "secret", lifetimeSeconds: 0, address: address, tls: tls) {
                result in
                outcome.change { $0 = result }
            }
            return client
        }
        let failure = CertificateSignFailure(
            message: "the control plane's identity is \(stranger), not \(Self.control)", isRetryable: true)
        #expect(try await outcome.wait("the answer") { $0 != nil } == .failure(failure))
        // Several attempts of the channel have failed by now, none of which said who it is for.
        let deadline = ContinuousClock.now + .seconds(20)
        while try await scene.rig.run({ _ in scene.control.value.grpc.statistics.connectionsAccepted }) < 4,
            ContinuousClock.now < deadline
        {
            try await Task.sleep(for: .milliseconds(5))
        }
        #expect(scene.tokens.value.isEmpty && scene.identities.value.isEmpty)
        #expect(try await scene.rig.run { _ in scene.control.value.grpc.statistics.calls } == 0)
        #expect(try await scene.rig.run { _ in sidecar.value.0.reason }.contains("identity is \(stranger)"))
        _ = signing
    }
}
