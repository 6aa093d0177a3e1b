import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshXDS
import Testing

/// Signs what it is told to, or keeps silent.
private final class ScriptedSigner: CertificateSigner {
    var answer: Result<SignedCertificate, CertificateRefusal>?
    let seen: Watched<[CertificateSigningRequest]>

    init(_ seen: Watched<[CertificateSigningRequest]>) { self.seen = seen }

    func sign(
        _ request: CertificateSigningRequest,
        completion: @escaping @Sendable (Result<SignedCertificate, CertificateRefusal>) -> Void
    ) {
        seen.change { $0.append(request) }
        if let answer { completion(answer) }
    }
}

private final class KeepingReceiver: TelemetryReceiver {
    let reports: Watched<[TelemetryReport]>
    let gone: Watched<[ObjectName]>
    var reason: String?

    init(_ reports: Watched<[TelemetryReport]>, _ gone: Watched<[ObjectName]>) {
        self.reports = reports
        self.gone = gone
    }

    func refusal(of pod: ObjectName, identity: SPIFFEID) -> String? { reason }
    func received(_ report: TelemetryReport, identity: SPIFFEID) { reports.change { $0.append(report) } }
    func reporterDisconnected(_ pod: ObjectName) { gone.change { $0.append(pod) } }
}

@Suite struct SigningAndTelemetryTests {
    private typealias Outcome = Result<SignedCertificate, CertificateSignFailure>

    private func sign(
        _ rig: XDSRig, _ client: LoopBound<CertificateClient>, _ address: SocketAddress, request: [UInt8] = [1, 2],
        token: String = "token", timeoutMilliseconds: Int = 10_000
    ) async throws -> Outcome {
        let outcome = Watched<Outcome?>(nil)
        try await rig.run { _ in
            client.value.sign(
                certificateRequest: request, token: token, lifetimeSeconds: 60, address: address, tls: nil,
                timeoutMilliseconds: timeoutMilliseconds
            ) { result in outcome.change { $0 = result } }
        }
        return try #require(try await outcome.wait("the answer") { $0 != nil })
    }

    @Test func aCertificateIsSignedOrTheReasonIsTold() async throws {
        let rig = try XDSRig()
        let seen = Watched<[CertificateSigningRequest]>([])
        let signer = try await rig.make { _ in ScriptedSigner(seen) }
        let service = try await rig.make { loop in
            var limits = CertificateService.Limits()
            limits.timeoutMilliseconds = 100
            return CertificateService(loop: loop, signer: signer.value, limits: limits)
        }
        let address = try await rig.run { loop in
            let server = GRPCServer(loop: loop, tls: nil)
            service.value.register(on: server)
            return try Listener(loop: loop, address: SocketAddress(.loopback4, 0), delegate: server).address
        }
        let client = try await rig.make { CertificateClient(plaintextOn: $0) }
        let signed = SignedCertificate(
            chain: [[9, 9], [8]], notAfterUnixSeconds: 1_234_567_890_123,
            trustBundle: TrustBundle(trustDomain: "test", roots: [[8]]))
        try await rig.run { _ in signer.value.answer = .success(signed) }
        #expect(try await sign(rig, client, address) == .success(signed))
        let request = try #require(seen.value.first)
        #expect(request.certificateRequest == [1, 2] && request.token == "token" && request.lifetimeSeconds == 60)
        let refusals: [(CertificateRefusal, String, Bool)] = [
            (.unauthenticated("who are you"), "UNAUTHENTICATED: who are you", true),
            (.permissionDenied("not you"), "PERMISSION_DENIED: not you", false),
            (.invalidRequest("no key"), "INVALID_ARGUMENT: no key", false),
            (.busy("later"), "RESOURCE_EXHAUSTED: later", true),
            (.unavailable("no API"), "UNAVAILABLE: no API", true),
        ]
        for (refusal, text, isRetryable) in refusals {
            try await rig.run { _ in signer.value.answer = .failure(refusal) }
            let expected = CertificateSignFailure(
                message: "the control plane did not sign: \(text)", isRetryable: isRetryable)
            #expect(try await sign(rig, client, address) == .failure(expected))
        }
        let tooLong = try await sign(rig, client, address, request: [UInt8](repeating: 0, count: 20_000))
        #expect(throws: CertificateSignFailure.self) { try tooLong.get() }
        // A signer that never answers.
        try await rig.run { _ in signer.value.answer = nil }
        let late = CertificateSignFailure(
            message: "the control plane did not sign: DEADLINE_EXCEEDED: the certificate was not signed in 100 ms",
            isRetryable: true)
        #expect(try await sign(rig, client, address) == .failure(late))
        #expect(try await rig.run { _ in service.value.statistics.pending } == 0)
        #expect(try await rig.run { _ in service.value.statistics.signed } == 1)
    }

    @Test func reportsArriveInOrderAndARefusedPodIsToldWhy() async throws {
        let rig = try XDSRig()
        let reports = Watched<[TelemetryReport]>([])
        let gone = Watched<[ObjectName]>([])
        let receiver = try await rig.make { _ in KeepingReceiver(reports, gone) }
        let service = try await rig.make { loop in
            TelemetryService(
                loop: loop, receiver: receiver.value, limits: TelemetryService.Limits(),
                identify: { _ in TestControl.identity })
        }
        let address = try await rig.run { loop in
            let server = GRPCServer(loop: loop, tls: nil)
            service.value.register(on: server)
            return try Listener(loop: loop, address: SocketAddress(.loopback4, 0), delegate: server).address
        }
        let pod = ObjectName(namespace: "shop", name: "client")
        let channel = try await rig.make { loop in
            let channel = ControlChannel(loop: loop, identity: nil, seed: 3, mayBePlaintext: true)
            channel.start()
            return channel
        }
        let client = try await rig.make { _ in TelemetryClient(channel: channel.value, pod: pod) }
        #expect(try await rig.run { _ in client.value.send(TelemetryReport(pod: pod)) } == false, "no address yet")
        try await rig.run { _ in channel.value.addresses = [address] }
        for index in 0..<5 {
            var isSent = false
            while !isSent {
                isSent = try await rig.run { _ in
                    client.value.send(TelemetryReport(pod: pod, discoveryVersion: "\(index)"))
                }
                if !isSent { try await Task.sleep(for: .milliseconds(2)) }
            }
        }
        let all = try await reports.wait("the reports") { $0.count == 5 }
        #expect(all.map(\.discoveryVersion) == ["0", "1", "2", "3", "4"] && all.allSatisfy { $0.pod == pod })
        // Faster than the service takes them: the stream is ended and the rest stays with the sidecar.
        try await rig.run { _ in for _ in 0..<40 { _ = client.value.send(TelemetryReport(pod: pod)) } }
        try await gone.wait("the end of the stream") { $0 == [pod] }
        #expect(try await rig.run { _ in service.value.statistics.overRate } == 1)
        #expect(try await rig.run { _ in client.value.lastStatus }.hasPrefix("RESOURCE_EXHAUSTED"))
    }
}
