internal import FoundationEssentials
internal import MeshAPI
package import MeshAddress
package import MeshCore
internal import MeshHTTP
package import MeshIO
internal import SwiftProtobuf

/// Asks the control plane for a certificate, over a connection of its own: the sidecar has none to show yet, or one
/// that is about to end. The control plane is verified by the roots of the context and by its SPIFFE ID.
package final class CertificateClient {
    package typealias Completion = (Result<SignedCertificate, CertificateSignFailure>) -> Void

    private let loop: EventLoop
    private let expectedIdentity: SPIFFEID?
    private var attempts: [ObjectIdentifier: SigningAttempt] = [:]
    /// Attempts that may be under way at a time; more fail at once.
    private static let attemptLimit = 16

    package init(loop: EventLoop, expectedIdentity: SPIFFEID) {
        self.loop = loop
        self.expectedIdentity = expectedIdentity
    }

    /// For a test without certificates.
    package init(plaintextOn loop: EventLoop) {
        self.loop = loop
        expectedIdentity = nil
    }

    /// - Parameters:
    ///   - certificateRequest: PKCS#10 in DER.
    ///   - lifetimeSeconds: zero leaves it to the authority.
    ///   - tls: a client's context without a certificate, ALPN `h2`. Nil only in a test.
    ///   - completion: called once, on the loop.
    package func sign(
        certificateRequest: [UInt8], token: String, lifetimeSeconds: Int, address: SocketAddress, tls: TLSContext?,
        timeoutMilliseconds: Int = 10_000, completion: @escaping Completion
    ) {
        guard attempts.count < CertificateClient.attemptLimit else {
            return completion(
                .failure(
                    CertificateSignFailure(
                        message: "\(CertificateClient.attemptLimit) certificate requests are under way",
                        isRetryable: true)))
        }
        guard tls != nil || expectedIdentity == nil else {
            return completion(.failure(CertificateSignFailure(message: "there is no TLS context", isRetryable: false)))
        }
        let message = Apus_V1_SignRequest.with {
            $0.certificateRequest = Data(certificateRequest)
            $0.token = token
            $0.lifetimeSeconds = UInt32(clamping: lifetimeSeconds)
        }
        let attempt = SigningAttempt(
            request: ResourceEncoding.bytes(message), expectedIdentity: expectedIdentity,
            timeoutMilliseconds: timeoutMilliseconds
        ) { [weak self] attempt, result in
            self?.attempts[ObjectIdentifier(attempt)] = nil
            completion(result)
        }
        attempts[ObjectIdentifier(attempt)] = attempt
        attempt.start(loop, address, tls)
    }
}

/// One connection, one call.
private final class SigningAttempt: HTTP2SessionDelegate, GRPCClientCallDelegate, TimerTarget {
    private let request: [UInt8]
    private let expectedIdentity: SPIFFEID?
    private let timeoutMilliseconds: Int
    private var completion: ((SigningAttempt, Result<SignedCertificate, CertificateSignFailure>) -> Void)?
    private var session: HTTP2Session?
    private var response: [UInt8]?
    private var timer: LoopTimer?

    init(
        request: [UInt8], expectedIdentity: SPIFFEID?, timeoutMilliseconds: Int,
        completion: @escaping (SigningAttempt, Result<SignedCertificate, CertificateSignFailure>) -> Void
    ) {
        self.request = request
        self.expectedIdentity = expectedIdentity
        self.timeoutMilliseconds = timeoutMilliseconds
        self.completion = completion
    }

    func start(_ loop: EventLoop, _ address: SocketAddress, _ tls: TLSContext?) {
        let timer = LoopTimer(loop: loop, target: self)
        timer.arm(afterMilliseconds: timeoutMilliseconds)
        self.timer = timer
        session = HTTP2Session(
            connectingTo: address, loop: loop, tls: tls.map { ($0, serverName: nil) }, connectTimeoutMilliseconds: 3000,
            delegate: self)
    }

    private func finish(_ result: Result<SignedCertificate, CertificateSignFailure>) {
        guard let completion else { return }
        self.completion = nil
        timer?.cancel()
        session?.close()
        session = nil
        completion(self, result)
    }

    private func fail(_ message: String, isRetryable: Bool) {
        finish(.failure(CertificateSignFailure(message: message, isRetryable: isRetryable)))
    }

    func timerFired(_ timer: LoopTimer) {
        fail("the control plane did not answer in \(timeoutMilliseconds) ms", isRetryable: true)
    }

    // MARK: The connection

    func opened(_ session: HTTP2Session) {
        if let expectedIdentity {
            let names = session.connection.tls?.peerURISANs ?? []
            guard names == [expectedIdentity.description] else {
                // The token must not reach a stranger.
                session.abort(reason: "wrong identity")
                let shown = names.isEmpty ? "none" : names.joined(separator: ", ")
                return fail("the control plane's identity is \(shown), not \(expectedIdentity)", isRetryable: true)
            }
        }
        let call = GRPCClientCall(
            on: session, path: SigningLimits.method, authority: "apus-control",
            timeoutMilliseconds: timeoutMilliseconds,
            messageLimit: 1024 * 1024, delegate: self)
        call?.send(request)
        call?.finishSending()
        if call == nil { fail("the control plane takes no more calls on this connection", isRetryable: true) }
    }

    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {}

    func goAwayReceived(_ session: HTTP2Session) {}

    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) {
        fail("\(session.connection.peer): \(cause)", isRetryable: true)
    }

    // MARK: The call

    func received(_ message: UnsafeRawBufferPointer, on call: GRPCClientCall) {
        response = [UInt8](message)
    }

    func writable(_ call: GRPCClientCall) {}

    func closed(_ call: GRPCClientCall, _ status: GRPCStatus) {
        guard status.code == .ok else {
            let isFinal: Bool =
                switch status.code {
                case .invalidArgument, .permissionDenied, .unimplemented: true
                default: false
                }
            return fail("the control plane did not sign: \(status)", isRetryable: !isFinal)
        }
        do throws(InvalidResource) {
            guard let response else { throw InvalidResource("the control plane sent no certificate") }
            finish(.success(try SigningAttempt.decode(response)))
        } catch {
            fail(error.description, isRetryable: true)
        }
    }

    private static func decode(_ bytes: [UInt8]) throws(InvalidResource) -> SignedCertificate {
        let message = try ResourceDecoding.message(Apus_V1_SignResponse.self, bytes)
        guard (1...SigningLimits.chainLength).contains(message.chain.count), message.chain.allSatisfy({ !$0.isEmpty })
        else {
            throw InvalidResource(
                "chain has \(message.chain.count) certificates, 1 to \(SigningLimits.chainLength) are expected, none empty"
            )
        }
        return SignedCertificate(
            chain: message.chain.map { [UInt8]($0) }, notAfterUnixSeconds: message.notAfterUnixSeconds,
            trustBundle: try ResourceDecoding.trustBundle(message.trustBundle))
    }
}
