import MeshAddress
import MeshHTTP
import MeshIO

/// Performs the application's probes inside the pod, in plaintext, to the pod's own address: what the platform's prober did before
/// the sidecar stood between.
final class ProbeRunner {
    private let loop: EventLoop
    private let table: ProbeTable
    private let address: IPAddress
    private let insecureTLS: TLSContext?
    private var exchanges: [ObjectIdentifier: AnyObject] = [:]
    /// Probes at a time; one more is answered 503, which the platform counts as a failure and repeats.
    private static let limit = 64

    init(loop: EventLoop, table: ProbeTable, address: IPAddress) {
        self.loop = loop
        self.table = table
        self.address = address
        // An https probe never verifies the application's certificate, as Kubernetes' own does not.
        insecureTLS = try? TLSContext.unverifiedClient()
    }

    /// Answers a request to the health port; false when its path is no probe's.
    func answer(_ request: HTTP1Request, _ reply: @escaping (HTTP1Response) -> Void) -> Bool {
        guard let probe = table.probe(path: request.path) else { return false }
        guard exchanges.count < ProbeRunner.limit else {
            reply(.text(503, "more than \(ProbeRunner.limit) probes at a time"))
            return true
        }
        let timeoutMilliseconds = min(max(probe.timeoutSeconds ?? 1, 1), 300) * 1000
        if let get = probe.httpGet {
            perform(get, timeoutMilliseconds, userAgent: request.value(of: "user-agent"), reply)
        } else if let socket = probe.tcpSocket {
            hold(
                TCPProbe(
                    loop: loop, address: target(socket.host, socket.port), timeoutMilliseconds: timeoutMilliseconds),
                reply)
        } else if let grpc = probe.grpc {
            hold(
                GRPCProbe(
                    loop: loop, address: SocketAddress(address, grpc.port), service: grpc.service ?? "",
                    timeoutMilliseconds: timeoutMilliseconds), reply)
        } else {
            reply(.text(500, "the probe has none of httpGet, tcpSocket and grpc"))
        }
        return true
    }

    private func target(_ host: String?, _ port: UInt16) -> SocketAddress {
        SocketAddress(host.flatMap { IPAddress($0) } ?? address, port)
    }

    private func perform(
        _ get: ProbeTable.Probe.HTTPGet, _ timeoutMilliseconds: Int, userAgent: String?,
        _ reply: @escaping (HTTP1Response) -> Void
    ) {
        var fields = (get.httpHeaders ?? []).map { ($0.name, $0.value) }
        if !fields.contains(where: { $0.0.lowercased() == "user-agent" }) {
            fields.append(("User-Agent", userAgent ?? "apus-probe"))
        }
        let path = get.path ?? "/"
        let request = HTTP1Client.Request(path: path.hasPrefix("/") ? path : "/" + path, fields: fields)
        let isTLS = get.scheme?.lowercased() == "https"
        if isTLS && insecureTLS == nil { return reply(.text(503, "TLS cannot be set up for an https probe")) }
        HTTP1Client.send(
            request, loop: loop, address: target(get.host, get.port), tls: isTLS ? insecureTLS.map { ($0, nil) } : nil,
            timeoutMilliseconds: timeoutMilliseconds, bodyLimitBytes: 1024
        ) { result in
            switch result {
            case .success(let response):
                reply(HTTP1Response(status: response.status, contentType: response.contentType, body: response.body))
            case .failure(let failure): reply(.text(503, "the application did not answer its probe: \(failure)"))
            }
        }
    }

    private func hold(_ exchange: some ProbeExchange, _ reply: @escaping (HTTP1Response) -> Void) {
        let key = ObjectIdentifier(exchange)
        exchanges[key] = exchange
        exchange.start { [weak self] failure in
            self?.exchanges[key] = nil
            reply(failure.map { .text(503, "the application did not pass its probe: \($0)") } ?? .text(200, "ok"))
        }
    }
}

/// A probe under way. `completion` is called exactly once, with what failed or with nil.
private protocol ProbeExchange: AnyObject {
    func start(completion: @escaping (String?) -> Void)
}

/// Passes when the port accepts a connection.
private final class TCPProbe: ProbeExchange, ConnectionDelegate {
    private let connection: Connection
    private var completion: ((String?) -> Void)?

    init(loop: EventLoop, address: SocketAddress, timeoutMilliseconds: Int) {
        connection = Connection(
            connectingTo: address, loop: loop, tls: nil, connectTimeoutMilliseconds: timeoutMilliseconds, delegate: nil)
    }

    func start(completion: @escaping (String?) -> Void) {
        self.completion = completion
        connection.delegate = self
    }

    private func finish(_ failure: String?) {
        guard let completion else { return }
        self.completion = nil
        connection.abort()
        completion(failure)
    }

    func opened(_ connection: Connection) { finish(nil) }
    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int { bytes.count }
    func readEnded(_ connection: Connection) {}
    func drained(_ connection: Connection) {}
    func closed(_ connection: Connection, _ cause: CloseCause) { finish("\(cause)") }
}

/// Passes when `grpc.health.v1.Health/Check` says SERVING (the health checking protocol of gRPC).
private final class GRPCProbe: ProbeExchange, HTTP2SessionDelegate, GRPCClientCallDelegate {
    private let loop: EventLoop
    private let address: SocketAddress
    private let service: String
    private let timeoutMilliseconds: Int
    private var session: HTTP2Session?
    private var call: GRPCClientCall?
    private var isServing = false
    private var completion: ((String?) -> Void)?

    init(loop: EventLoop, address: SocketAddress, service: String, timeoutMilliseconds: Int) {
        self.loop = loop
        self.address = address
        self.service = service
        self.timeoutMilliseconds = timeoutMilliseconds
    }

    func start(completion: @escaping (String?) -> Void) {
        self.completion = completion
        session = HTTP2Session(
            connectingTo: address, loop: loop, connectTimeoutMilliseconds: timeoutMilliseconds, delegate: self)
    }

    private func finish(_ failure: String?) {
        guard let completion else { return }
        self.completion = nil
        session?.close()
        completion(failure)
    }

    func opened(_ session: HTTP2Session) {
        call = GRPCClientCall(
            on: session, path: "/grpc.health.v1.Health/Check", authority: "\(address)", scheme: "http",
            timeoutMilliseconds: timeoutMilliseconds, delegate: self)
        // HealthCheckRequest { string service = 1 }: names are far below the 128 bytes that one length byte can tell.
        let name = Array(service.utf8.prefix(127))
        call?.send(name.isEmpty ? [] : [0x0a, UInt8(name.count)] + name)
        call?.finishSending()
    }

    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {}
    func goAwayReceived(_ session: HTTP2Session) {}
    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) { finish("\(cause)") }

    func received(_ message: UnsafeRawBufferPointer, on call: GRPCClientCall) {
        // HealthCheckResponse { ServingStatus status = 1 } with SERVING = 1.
        isServing = message.elementsEqual([0x08, 0x01])
    }
    func writable(_ call: GRPCClientCall) {}
    func closed(_ call: GRPCClientCall, _ status: GRPCStatus) {
        finish(status.code == .ok ? (isServing ? nil : "its status is not SERVING") : status.description)
    }
}
