import FoundationEssentials
import Logging
import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshTelemetry

/// What the admin, metrics and health ports ask of the sidecar. On the control loop.
protocol AdminSource: AnyObject {
    /// Nil when the application's traffic can be carried; otherwise what is missing.
    var unreadiness: String? { get }
    func report(completion: @escaping (ProxyReport) -> Void)
    func metrics(completion: @escaping ([UInt8]) -> Void)
    var logLevel: LogLevel { get set }
    func startDrain()
    /// The platform is about to stop the application: `completion` when its callers have gone elsewhere, or have had their time.
    func withdraw(completion: @escaping () -> Void)
}

/// The sidecar's three small ports: admin on loopback (15000), metrics for a scraper (15020), health and probes for the platform (15021).
final class AdminServer {
    private let source: any AdminSource
    private let probes: ProbeRunner
    private var servers: [HTTP1Server] = []

    init(loop: EventLoop, source: any AdminSource, probes: ProbeRunner, ports: AdminPorts) throws(SystemError) {
        self.source = source
        self.probes = probes
        servers = [
            try HTTP1Server(loop: loop, address: SocketAddress(.loopback4, ports.admin)) { [weak self] request, reply in
                self?.admin(request, reply)
            },
            try HTTP1Server(loop: loop, address: SocketAddress(.any6, ports.metrics)) { [weak self] request, reply in
                self?.scrape(request, reply)
            },
            try HTTP1Server(loop: loop, address: SocketAddress(.any6, ports.health)) { [weak self] request, reply in
                self?.health(request, reply)
            },
        ]
    }

    func close() { for server in servers { server.close() } }

    private func admin(_ request: HTTP1Request, _ reply: @escaping (HTTP1Response) -> Void) {
        switch (request.method, request.path) {
        case ("GET", "/"):
            reply(.text(200, "/ready /metrics /config /certs /logging?level=debug (POST) /drain (POST)\n"))
        case ("GET", "/ready"):
            reply(readiness)
        case ("GET", "/metrics"):
            scrape(request, reply)
        case ("GET", "/config"):
            source.report { reply(AdminServer.json($0)) }
        case ("GET", "/certs"):
            source.report { report in
                reply(
                    AdminServer.json(CertificateState(identity: report.identity, notAfter: report.certificateNotAfter)))
            }
        case ("GET", "/logging"):
            reply(.text(200, source.logLevel.rawValue + "\n"))
        case ("POST", "/logging"):
            guard let text = request.query["level"], let level = LogLevel(rawValue: text) else {
                let known = LogLevel.allCases.map(\.rawValue).joined(separator: ", ")
                return reply(.text(400, "level is '\(request.query["level"] ?? "")', expected one of \(known)\n"))
            }
            source.logLevel = level
            reply(.text(200, level.rawValue + "\n"))
        case ("POST", "/drain"):
            source.startDrain()
            reply(.text(202, "draining\n"))
        case (_, "/ready"), (_, "/metrics"), (_, "/config"), (_, "/certs"), (_, "/logging"), (_, "/drain"):
            reply(.text(405, "\(request.method) is not allowed here\n"))
        default:
            reply(.text(404, "there is no \(request.path); see /\n"))
        }
    }

    private func scrape(_ request: HTTP1Request, _ reply: @escaping (HTTP1Response) -> Void) {
        guard request.path == "/metrics" else { return reply(.text(404, "only /metrics is served here\n")) }
        source.metrics { reply(HTTP1Response(status: 200, contentType: PrometheusText.contentType, body: $0)) }
    }

    private func health(_ request: HTTP1Request, _ reply: @escaping (HTTP1Response) -> Void) {
        if request.path == "/healthz/ready" { return reply(readiness) }
        if request.path == "/apus/withdraw" { return source.withdraw { reply(.text(200, "withdrawn\n")) } }
        if request.path.hasPrefix("/apus/probe/"), request.path.hasSuffix("/preStop") {
            return source.withdraw { [probes] in
                if !probes.answer(request, reply) { reply(.text(404, "there is no \(request.path)\n")) }
            }
        }
        if probes.answer(request, reply) { return }
        reply(.text(404, "there is no \(request.path)\n"))
    }

    private var readiness: HTTP1Response {
        source.unreadiness.map { .text(503, $0 + "\n") } ?? .text(200, "ready\n")
    }

    private struct CertificateState: Encodable {
        let identity: String
        let notAfter: Timestamp?
    }

    private static func json(_ value: some Encodable) -> HTTP1Response {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { return .text(500, "the report cannot be encoded\n") }
        return .json(200, [UInt8](data) + [0x0a])
    }
}

package struct AdminPorts: Sendable {
    package var admin: UInt16
    package var metrics: UInt16
    package var health: UInt16

    package init(admin: UInt16 = 15000, metrics: UInt16 = 15020, health: UInt16 = 15021) {
        self.admin = admin
        self.metrics = metrics
        self.health = health
    }
}
