internal import MeshCore
internal import MeshIdentity
internal import MeshXDS

/// Between the stream's service, which lives on a loop, and `SigningService`, which waits for the platform.
final class SigningBridge: CertificateSigner {
    private let signing: SigningService
    private let certified: @Sendable (_ pod: ObjectName, _ notAfter: Timestamp) -> Void

    init(signing: SigningService, certified: @escaping @Sendable (_ pod: ObjectName, _ notAfter: Timestamp) -> Void) {
        self.signing = signing
        self.certified = certified
    }

    func sign(
        _ request: MeshXDS.CertificateSigningRequest,
        completion: @escaping @Sendable (Result<SignedCertificate, MeshXDS.CertificateRefusal>) -> Void
    ) {
        let (signing, certified) = (signing, certified)
        Task {
            let result = await signing.sign(
                requestDER: request.certificateRequest, token: request.token,
                lifetimeSeconds: Int64(clamping: request.lifetimeSeconds))
            if case .success(let signed) = result, let pod = signed.pod { certified(pod, signed.certificate.notAfter) }
            completion(
                result.map { signed in
                    SignedCertificate(
                        chain: signed.certificate.chain, notAfterUnixSeconds: signed.certificate.notAfter.unixSeconds,
                        trustBundle: signed.trustBundle)
                }.mapError(\.onTheStream))
        }
    }
}

extension SigningService.Refusal {
    fileprivate var onTheStream: MeshXDS.CertificateRefusal {
        switch outcome {
        case .unauthenticated: .unauthenticated(description)
        case .invalidRequest: .invalidRequest(description)
        case .unavailable: .unavailable(description)
        case .busy: .busy(description)
        case .issued: .internal(description)
        }
    }
}

extension SigningService {
    func addMetrics(to page: inout MetricsPage) {
        page.add(
            .counter, "apus_control_certificate_requests_total", "Certificate requests of sidecars, by how they ended.",
            label: "outcome", Outcome.allCases.map { ($0.rawValue, Double(count(of: $0))) })
        page.add(
            .gauge, "apus_control_certificate_requests_queued", "Certificate requests that wait for their turn.",
            Double(queued))
    }
}
