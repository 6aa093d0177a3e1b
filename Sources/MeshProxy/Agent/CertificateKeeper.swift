import FoundationEssentials
import Logging
import MeshAddress
import MeshCore
import MeshIO
import MeshIdentity
import MeshXDS

/// Keeps the sidecar's certificate fresh: asks for one with the pod's token, renews it at half its life, and tells its owner each new one.
/// All on the control loop.
final class CertificateKeeper: TimerTarget {
    /// What a valid identity is used with.
    struct Held {
        let identity: TLSContext.Identity
        let notAfter: Timestamp
    }

    /// Told each new certificate and each change of the roots.
    var changed: ((Held, _ roots: [[UInt8]]) -> Void)?
    /// The control plane's addresses; none are known before its name resolves.
    var addresses: [SocketAddress] = [] {
        didSet { if oldValue.isEmpty && !addresses.isEmpty && held == nil { evaluate() } }
    }
    private(set) var held: Held?
    private(set) var failures: UInt64 = 0
    private(set) var renewals: UInt64 = 0
    private(set) var lastFailure = ""

    private let loop: EventLoop
    private let client: CertificateClient
    private let settings: AgentSettings
    private let logger: Logger
    private let bootstrapRoots: [[UInt8]]
    private var bundle: [[UInt8]] = []
    private var schedule: RenewalSchedule?
    private var isAsking = false
    private var nextAddress = 0
    private var initialPauseMilliseconds = 100
    private lazy var timer = LoopTimer(loop: loop, target: self)

    private static let tokenLimitBytes = 64 * 1024
    private static let longestInitialPauseMilliseconds = 5000

    /// Throws when the configured roots cannot be read.
    init(loop: EventLoop, settings: AgentSettings, controlIdentity: SPIFFEID, logger: Logger) throws {
        self.loop = loop
        self.settings = settings
        self.logger = logger
        bootstrapRoots = try PEM.certificates(in: settings.trustBundle)
        client = CertificateClient(loop: loop, expectedIdentity: controlIdentity)
    }

    /// The roots in force: what the control plane last published, and what the pod was injected with as long as nothing is published.
    var roots: [[UInt8]] { bundle.isEmpty ? bootstrapRoots : bundle }

    /// Takes up what an earlier run of the sidecar left, or asks for a certificate.
    func start() {
        if let folder = settings.statePath, let stored = StoredIdentity.load(folder: folder),
            let identity = stored.tlsIdentity,
            stored.notAfter > CertificateKeeper.now
        {
            take(identity, notBefore: stored.notBefore, notAfter: stored.notAfter)
            logger.info("the certificate of an earlier run is good until \(stored.notAfter)")
        }
        evaluate()
    }

    func trust(_ roots: [[UInt8]]) {
        guard roots != bundle, !roots.isEmpty else { return }
        bundle = roots
        if let held { changed?(held, self.roots) }
    }

    func timerFired(_ timer: LoopTimer) { evaluate() }

    private func evaluate() {
        guard !isAsking else { return }
        guard let schedule else { return ask() }
        switch schedule.decide(now: CertificateKeeper.now) {
        case .renewNow: ask()
        case .wait(let milliseconds): timer.arm(afterMilliseconds: milliseconds)
        }
        self.schedule = schedule
    }

    private func ask() {
        guard !addresses.isEmpty else { return failed("the control plane's name has not been resolved yet") }
        let request: CertificateRequest
        let context: TLSContext
        do {
            request = try CertificateRequest()
            context = try TLSContext.client(identity: nil, trustRoots: roots, alpn: ["h2"])
        } catch {
            return failed("a certificate request cannot be made: \(error)")
        }
        guard let data = FileManager.default.contents(atPath: settings.tokenPath),
            data.count <= CertificateKeeper.tokenLimitBytes
        else {
            return failed("the pod's token cannot be read from \(settings.tokenPath)")
        }
        let token = String(decoding: data, as: UTF8.self).filter { !$0.isWhitespace }
        isAsking = true
        let address = addresses[nextAddress % addresses.count]
        let askedAt = CertificateKeeper.now
        client.sign(
            certificateRequest: request.requestDER, token: token, lifetimeSeconds: 0, address: address, tls: context
        ) { [weak self] result in
            guard let self else { return }
            self.isAsking = false
            switch result {
            case .success(let signed): self.signed(signed, key: request.privateKeyDER, at: askedAt)
            case .failure(let failure):
                self.nextAddress &+= 1
                self.failed("no certificate from the control plane at \(address): \(failure)")
            }
        }
    }

    private func signed(_ signed: SignedCertificate, key: [UInt8], at askedAt: Timestamp) {
        let notAfter = Timestamp(unixSeconds: signed.notAfterUnixSeconds)
        guard notAfter > CertificateKeeper.now else {
            return failed("the control plane sent a certificate that ended at \(notAfter)")
        }
        let identity = TLSContext.Identity(chain: signed.chain, privateKeyDER: key)
        // A context is made of it once before it is believed: a chain that does not fit the key must not replace one that does.
        do { _ = try TLSContext.client(identity: identity, trustRoots: roots, alpn: []) } catch {
            return failed("the control plane sent a certificate that cannot be used: \(error)")
        }
        if !signed.trustBundle.roots.isEmpty { bundle = signed.trustBundle.roots }
        renewals += 1
        lastFailure = ""
        initialPauseMilliseconds = 100
        take(identity, notBefore: askedAt, notAfter: notAfter)
        logger.info("certificate until \(notAfter)")
        if let folder = settings.statePath {
            let stored = StoredIdentity(
                certificates: PEM.bundle(signed.chain), privateKey: PEM.privateKey(key), notBefore: askedAt,
                notAfter: notAfter)
            if let problem = stored.save(folder: folder) {
                logger.warning("the certificate cannot be kept in \(folder): \(problem)")
            }
        }
        evaluate()
    }

    private func take(_ identity: TLSContext.Identity, notBefore: Timestamp, notAfter: Timestamp) {
        let held = Held(identity: identity, notAfter: notAfter)
        self.held = held
        schedule = RenewalSchedule(notBefore: notBefore, notAfter: notAfter, random: Double.random(in: 0...1))
        changed?(held, roots)
    }

    private func failed(_ reason: String) {
        failures += 1
        if reason != lastFailure { logger.warning("\(reason)") }
        lastFailure = reason
        if schedule != nil {
            schedule?.failed(now: CertificateKeeper.now, random: Double.random(in: 0...1))
            if case .wait(let milliseconds)? = schedule?.decide(now: CertificateKeeper.now) {
                timer.arm(afterMilliseconds: milliseconds)
            } else {
                timer.arm(afterMilliseconds: 1000)
            }
        } else {
            // The application waits for the first certificate: quick tries first, then every five seconds, never in step with others.
            timer.arm(afterMilliseconds: Int.random(in: initialPauseMilliseconds / 2...initialPauseMilliseconds))
            initialPauseMilliseconds = min(
                initialPauseMilliseconds * 2, CertificateKeeper.longestInitialPauseMilliseconds)
        }
    }

    static var now: Timestamp { Timestamp(unixMilliseconds: Int64(Date().timeIntervalSince1970 * 1000)) }
}
