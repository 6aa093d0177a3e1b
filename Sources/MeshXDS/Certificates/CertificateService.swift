internal import FoundationEssentials
internal import MeshAPI
internal import MeshCore
package import MeshHTTP
package import MeshIO
internal import SwiftProtobuf

/// Whoever reviews tokens and signs.
package protocol CertificateSigner: AnyObject {
    /// Called on the service's loop. `completion` is called once, from any thread; after ten seconds the caller has
    /// been told that it took too long.
    func sign(
        _ request: CertificateSigningRequest,
        completion: @escaping @Sendable (Result<SignedCertificate, CertificateRefusal>) -> Void)
}

/// `apus.v1.CertificateAuthority` on one loop. Its callers have no certificate yet: they are known by the token that
/// they send.
package final class CertificateService {
    package struct Limits: Sendable {
        /// Requests that may be with the signer at a time; more are answered RESOURCE_EXHAUSTED.
        package var pending = 1024
        package var timeoutMilliseconds = 10_000

        package init() {}
    }

    package struct Statistics: Sendable, Hashable {
        package var requests: UInt64 = 0
        package var signed: UInt64 = 0
        package var refused: UInt64 = 0
        package var timedOut: UInt64 = 0
        package var overLimit: UInt64 = 0
        package var pending = 0
    }

    private let loop: EventLoop
    private weak var signer: (any CertificateSigner)?
    private let limits: Limits
    package private(set) var statistics = Statistics()
    /// Kept here, so that their timers end on the loop whatever the signer does with its closures.
    private var pending: [ObjectIdentifier: PendingSigning] = [:]

    /// - Parameter signer: held weakly.
    package init(loop: EventLoop, signer: any CertificateSigner, limits: Limits = Limits()) {
        self.loop = loop
        self.signer = signer
        self.limits = limits
    }

    package func register(on server: GRPCServer) {
        server.register(SigningLimits.method) { [weak self] _ in
            guard let self else { return nil }
            return GRPCUnaryHandler { [weak self] request, call, reply in
                guard let self else { return reply(.failure(GRPCStatus(.unavailable, "the service has ended"))) }
                self.serve(request, call, reply)
            }
        }
    }

    private func serve(
        _ bytes: UnsafeRawBufferPointer, _ call: GRPCServerCall,
        _ reply: @escaping (Result<[UInt8], GRPCStatus>) -> Void
    ) {
        statistics.requests += 1
        guard let signer else { return reply(.failure(GRPCStatus(.unavailable, "the authority is not loaded"))) }
        let request: CertificateSigningRequest
        do {
            request = try CertificateService.decode([UInt8](bytes), call)
        } catch {
            statistics.refused += 1
            return reply(.failure(GRPCStatus(.invalidArgument, error.description)))
        }
        guard statistics.pending < limits.pending else {
            statistics.overLimit += 1
            return reply(
                .failure(GRPCStatus(.resourceExhausted, "\(limits.pending) certificate requests wait; try again later"))
            )
        }
        statistics.pending += 1
        let pending = PendingSigning(
            loop: loop, service: self, reply: reply, timeoutMilliseconds: limits.timeoutMilliseconds)
        self.pending[ObjectIdentifier(pending)] = pending
        let bound = LoopBound(pending, loop: loop)
        let loop = loop
        signer.sign(request) { result in
            // A loop that has ended has closed its connections, so nobody waits for the answer.
            loop.submit { bound.value.finish(result) }
        }
    }

    private static func decode(_ bytes: [UInt8], _ call: GRPCServerCall) throws(InvalidResource)
        -> CertificateSigningRequest
    {
        let message = try ResourceDecoding.message(Apus_V1_SignRequest.self, bytes)
        guard (1...SigningLimits.certificateRequestBytes).contains(message.certificateRequest.count) else {
            throw InvalidResource(
                "certificate_request has \(message.certificateRequest.count) bytes, "
                    + "1 to \(SigningLimits.certificateRequestBytes) are expected")
        }
        guard (1...SigningLimits.tokenBytes).contains(message.token.utf8.count) else {
            throw InvalidResource(
                "token has \(message.token.utf8.count) bytes, 1 to \(SigningLimits.tokenBytes) are expected")
        }
        return CertificateSigningRequest(
            certificateRequest: [UInt8](message.certificateRequest), token: message.token,
            lifetimeSeconds: Int(message.lifetimeSeconds), peer: call.peer)
    }

    fileprivate func forget(_ entry: PendingSigning) {
        statistics.pending -= 1
        pending[ObjectIdentifier(entry)] = nil
    }

    fileprivate func finished(_ result: Result<SignedCertificate, CertificateRefusal>) -> Result<[UInt8], GRPCStatus> {
        switch result {
        case .success(let signed):
            statistics.signed += 1
            let response = Apus_V1_SignResponse.with {
                $0.chain = signed.chain.map { Data($0) }
                $0.notAfterUnixSeconds = signed.notAfterUnixSeconds
                $0.trustBundle = ResourceEncoding.encode(signed.trustBundle)
            }
            return .success(ResourceEncoding.bytes(response))
        case .failure(let refusal):
            statistics.refused += 1
            let code: GRPCStatus.Code =
                switch refusal {
                case .unauthenticated: .unauthenticated
                case .permissionDenied: .permissionDenied
                case .invalidRequest: .invalidArgument
                case .busy: .resourceExhausted
                case .unavailable: .unavailable
                case .internal: .internal
                }
            return .failure(GRPCStatus(code, refusal.message))
        }
    }

    fileprivate func timedOut() -> GRPCStatus {
        statistics.timedOut += 1
        return GRPCStatus(.deadlineExceeded, "the certificate was not signed in \(limits.timeoutMilliseconds) ms")
    }
}

/// One request that is with the signer.
private final class PendingSigning: TimerTarget {
    private let service: CertificateService
    private var reply: ((Result<[UInt8], GRPCStatus>) -> Void)?
    private var timer: LoopTimer?

    init(
        loop: EventLoop, service: CertificateService, reply: @escaping (Result<[UInt8], GRPCStatus>) -> Void,
        timeoutMilliseconds: Int
    ) {
        self.service = service
        self.reply = reply
        let timer = LoopTimer(loop: loop, target: self)
        timer.arm(afterMilliseconds: timeoutMilliseconds)
        self.timer = timer
    }

    func finish(_ result: Result<SignedCertificate, CertificateRefusal>) {
        guard let reply else { return }
        self.reply = nil
        timer = nil
        service.forget(self)
        reply(service.finished(result))
    }

    func timerFired(_ timer: LoopTimer) {
        guard let reply else { return }
        self.reply = nil
        self.timer = nil
        service.forget(self)
        reply(.failure(service.timedOut()))
    }
}
