package import MeshAddress
package import MeshIO

/// One request on a connection of its own, answered whole: for probes, admin calls and tests of ours. Not for the data path.
package enum HTTP1Client {
    package enum Failure: Error, Equatable, Sendable {
        /// Nothing was sent: the request cannot be written, and why.
        case invalidRequest(String)
        case timedOut
        /// The connection failed, or ended before the response did.
        case connection(CloseCause)
        case invalidResponse(HTTP1Error)
    }

    package struct Request: Sendable {
        package var method = "GET"
        /// With its leading slash, and the query if any.
        package var path: String
        /// A `Host` among them replaces the address.
        package var fields: [HTTP1Request.Field] = []
        package var body: [UInt8] = []

        package init(method: String = "GET", path: String, fields: [(String, String)] = [], body: [UInt8] = []) {
            self.method = method
            self.path = path
            self.fields = fields.map { HTTP1Request.Field(name: $0.0, value: $0.1) }
            self.body = body
        }
    }

    /// Sends a GET; see `send`.
    package static func get(
        loop: EventLoop, address: SocketAddress, path: String, fields: [(String, String)] = [],
        timeoutMilliseconds: Int,
        completion: @escaping (Result<HTTP1Response, Failure>) -> Void
    ) {
        send(
            Request(path: path, fields: fields), loop: loop, address: address, timeoutMilliseconds: timeoutMilliseconds,
            completion: completion)
    }

    /// Connects, sends, and calls `completion` exactly once, on the loop, never before this returns.
    ///
    /// - Parameters:
    ///   - timeoutMilliseconds: from now to the last byte of the response.
    ///   - bodyLimitBytes: of the response's body this much is kept; more ends the exchange with `isBodyTruncated`.
    package static func send(
        _ request: Request, loop: EventLoop, address: SocketAddress, tls: (TLSContext, serverName: String?)? = nil,
        timeoutMilliseconds: Int, bodyLimitBytes: Int = 64 * 1024,
        completion: @escaping (Result<HTTP1Response, Failure>) -> Void
    ) {
        let exchange = ClientExchange(
            bodyLimitBytes: bodyLimitBytes, isHead: request.method == "HEAD", completion: completion)
        exchange.start(
            encode(request, address), loop: loop, address: address, tls: tls, timeoutMilliseconds: timeoutMilliseconds)
    }

    /// The bytes of the request. Whether they form exactly one valid request is asked of our own parser, so that no path or
    /// field of a probe can smuggle another.
    private static func encode(_ request: Request, _ address: SocketAddress) -> Result<[UInt8], Failure> {
        let parts = [request.method, request.path] + request.fields.flatMap { [$0.name, $0.value] }
        if parts.contains(where: { $0.utf8.contains { $0 == 0x0d || $0 == 0x0a } }) {
            return .failure(.invalidRequest("a line end in the method, the path or a field"))
        }
        var head = "\(request.method) \(request.path) HTTP/1.1\r\n"
        if !request.fields.contains(where: { $0.name.lowercased() == "host" }) { head += "Host: \(address)\r\n" }
        for field in request.fields { head += "\(field.name): \(field.value)\r\n" }
        if !request.body.isEmpty { head += "Content-Length: \(request.body.count)\r\n" }
        head += "Connection: close\r\n\r\n"
        let bytes = Array(head.utf8)
        let parsed = bytes.withUnsafeBytes { raw -> Failure? in
            switch RequestHead.parse(raw) {
            case .invalid(let error): return .invalidRequest(error.code)
            case .incomplete: return .invalidRequest("incomplete")
            case .complete(let head):
                let isWhole = head.length == raw.count && !head.wantsUpgrade && head.method != .connect
                let declared: BodyFraming = request.body.isEmpty ? .none : .length(UInt64(request.body.count))
                return isWhole && head.framing == declared
                    ? nil : .invalidRequest("a field or the path would change its framing")
            }
        }
        if let parsed { return .failure(parsed) }
        return .success(bytes + request.body)
    }
}

private final class ClientExchange: ConnectionDelegate, TimerTarget {
    private let bodyLimitBytes: Int
    private let traits: RequestTraits
    private var completion: ((Result<HTTP1Response, HTTP1Client.Failure>) -> Void)?
    private var connection: Connection?
    private var timer: LoopTimer?
    /// Keeps the exchange while it has no connection.
    private var itself: ClientExchange?
    private var failure: HTTP1Client.Failure?
    private var response: HTTP1Response?
    private var scanner = BodyScanner(.none)
    private var isChunked = false
    private var interimResponses = 0

    private static let interimLimit = 16

    init(bodyLimitBytes: Int, isHead: Bool, completion: @escaping (Result<HTTP1Response, HTTP1Client.Failure>) -> Void)
    {
        self.bodyLimitBytes = bodyLimitBytes
        self.traits = isHead ? .head : []
        self.completion = completion
    }

    func start(
        _ request: Result<[UInt8], HTTP1Client.Failure>, loop: EventLoop, address: SocketAddress,
        tls: (TLSContext, serverName: String?)?, timeoutMilliseconds: Int
    ) {
        let timer = LoopTimer(loop: loop, target: self)
        self.timer = timer
        switch request {
        case .failure(let failure):
            self.failure = failure
            itself = self
            timer.arm(afterMilliseconds: 0)
        case .success(let bytes):
            timer.arm(afterMilliseconds: timeoutMilliseconds)
            let connection = Connection(
                connectingTo: address, loop: loop, tls: tls, connectTimeoutMilliseconds: timeoutMilliseconds,
                handshakeTimeoutMilliseconds: timeoutMilliseconds, delegate: self)
            self.connection = connection
            bytes.withUnsafeBytes { connection.write($0) }
        }
    }

    func opened(_ connection: Connection) {}

    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        var consumed = 0
        while completion != nil {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[consumed...])
            if response == nil {
                guard let count = takeHead(rest) else { break }
                consumed += count
                continue
            }
            switch scanner.scan(rest) {
            case .more(let count):
                take(rest.prefix(count))
                return completion == nil ? bytes.count : consumed + count
            case .done(let count):
                take(rest.prefix(count))
                finish()
            case .invalid(let error, _):
                fail(.invalidResponse(error))
            }
        }
        return completion == nil ? bytes.count : consumed
    }

    func readEnded(_ connection: Connection) {
        if response != nil, scanner.mayEndWithConnection { finish() } else { fail(.connection(.truncated)) }
    }

    func drained(_ connection: Connection) {}

    func closed(_ connection: Connection, _ cause: CloseCause) {
        self.connection = nil
        if response != nil, scanner.mayEndWithConnection { finish() } else { fail(.connection(cause)) }
    }

    func timerFired(_ timer: LoopTimer) {
        fail(failure ?? .timedOut)
        itself = nil
    }

    private func takeHead(_ bytes: UnsafeRawBufferPointer) -> Int? {
        switch ResponseHead.parse(bytes, answering: traits) {
        case .incomplete:
            return nil
        case .invalid(let error):
            fail(.invalidResponse(error))
            return nil
        case .complete(let head):
            if head.isInterim {
                interimResponses += 1
                if interimResponses > ClientExchange.interimLimit {
                    fail(.invalidResponse(.malformedStatusLine))
                    return nil
                }
                return head.length
            }
            let type = head.value(of: .contentType).map { String(decoding: bytes[$0], as: UTF8.self) }
            response = HTTP1Response(status: head.status, contentType: type ?? "")
            scanner = BodyScanner(head.framing)
            isChunked = head.framing == .chunked
            return head.length
        }
    }

    private func take(_ bytes: Slice<UnsafeRawBufferPointer>) {
        guard var kept = response else { return }
        kept.body += bytes
        response = kept
        if kept.body.count > bodyLimitBytes {
            response?.isBodyTruncated = true
            finish()
        }
    }

    private func finish() {
        guard var response else { return fail(.connection(.truncated)) }
        if isChunked { response.body = MessageText.payload(ofChunked: response.body) }
        if response.body.count > bodyLimitBytes { response.body.removeSubrange(bodyLimitBytes...) }
        end(.success(response))
    }

    private func fail(_ failure: HTTP1Client.Failure) { end(.failure(failure)) }

    private func end(_ result: Result<HTTP1Response, HTTP1Client.Failure>) {
        guard let completion else { return }
        self.completion = nil
        timer?.cancel()
        if let connection {
            // Nothing is owed to the server any more; after a truncated body a reset spares it the rest.
            if case .success(let response) = result, !response.isBodyTruncated {
                connection.close()
            } else {
                connection.abort()
            }
        }
        completion(result)
    }
}
