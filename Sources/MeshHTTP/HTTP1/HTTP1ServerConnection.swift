internal import MeshIO

/// One connection of an `HTTP1Server`: reads a request, has it handled, replies, begins again.
final class HTTP1ServerConnection: ConnectionDelegate, TimerTarget {
    private enum State {
        case head
        case body(Pending)
        case handling
        /// The last reply is written; nothing is read any more.
        case ending
    }

    /// A request whose body is arriving.
    private struct Pending {
        var request: HTTP1Request
        var scanner: BodyScanner
        var isChunked: Bool
        var traits: RequestTraits
        var keepAlive: Bool
    }

    private let server: HTTP1Server
    private var connection: Connection?
    private var timer: LoopTimer?
    private var state = State.head
    /// Counts the requests, so that a reply that comes late or twice is told from the one awaited.
    private var turn: UInt64 = 0
    private var traits: RequestTraits = []
    private var keepAlive = false
    private var isRequestTimed = false

    init(server: HTTP1Server) { self.server = server }

    func start(_ socket: AcceptedSocket) {
        let connection = Connection(accepting: socket, loop: server.loop, delegate: self)
        self.connection = connection
        let timer = LoopTimer(loop: server.loop, target: self)
        timer.arm(afterMilliseconds: server.limits.idleMilliseconds)
        self.timer = timer
        if let tls = server.tls {
            connection.startTLS(tls, handshakeTimeoutMilliseconds: server.limits.requestMilliseconds)
        }
    }

    // MARK: - What happens on the connection

    func opened(_ connection: Connection) {}

    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        var consumed = 0
        while consumed < bytes.count {
            // A client that sends requests without reading the replies waits until it has read them.
            if connection.isAboveHighWater { return consumed }
            let rest = UnsafeRawBufferPointer(rebasing: bytes[consumed...])
            switch state {
            case .head:
                if !isRequestTimed {
                    isRequestTimed = true
                    timer?.arm(afterMilliseconds: server.limits.requestMilliseconds)
                }
                guard let count = takeHead(rest) else { return consumed }
                consumed += count
            case .body(let pending):
                guard let count = takeBody(pending, rest) else { return consumed }
                consumed += count
            case .handling:
                return consumed
            case .ending:
                return bytes.count
            }
        }
        return consumed
    }

    func readEnded(_ connection: Connection) {
        // A client may finish writing and still wait for its reply.
        if case .handling = state {
            keepAlive = false
        } else {
            connection.close()
        }
    }

    func drained(_ connection: Connection) { connection.resumeReading() }

    func closed(_ connection: Connection, _ cause: CloseCause) {
        timer?.cancel()
        timer = nil
        state = .ending
        turn &+= 1
        self.connection = nil
        server.statistics.openConnections -= 1
    }

    func timerFired(_ timer: LoopTimer) {
        switch state {
        case .head where !isRequestTimed, .ending:
            connection?.close()
        case .head, .body:
            server.statistics.timeouts += 1
            end(LocalReply.bytes(status: 408, closes: true))
        case .handling:
            server.statistics.timeouts += 1
            keepAlive = false
            reply(.text(503, "no answer within \(server.limits.handlerMilliseconds) ms\n"), turn: turn)
        }
    }

    // MARK: - Requests

    /// The bytes of the head; nil when more are needed or the connection is ending.
    private func takeHead(_ bytes: UnsafeRawBufferPointer) -> Int? {
        guard let connection, let base = bytes.baseAddress else { return nil }
        var limits = HTTP1Limits()
        limits.headBytes = server.limits.headBytes
        limits.targetBytes = server.limits.headBytes
        let head: RequestHead
        switch RequestHead.parse(bytes, limits: limits) {
        case .incomplete: return nil
        case .invalid(let error):
            refuse(LocalReply.bytes(status: error.status, body: Array("\(error.code)\n".utf8), closes: true))
            return nil
        case .complete(let parsed): head = parsed
        }
        if case .length(let count) = head.framing, count > UInt64(server.limits.bodyBytes) {
            refuse(LocalReply.bytes(status: 413, closes: true))
            return nil
        }
        func text(_ range: ByteRange) -> String { String(decoding: bytes[range], as: UTF8.self) }
        let path = text(head.path)
        let request = HTTP1Request(
            method: text(head.methodRange), path: path.isEmpty ? "/" : path,
            query: MessageText.query(text(head.target)),
            fields: MessageText.fields(base, head.fields), body: [], peer: connection.peer,
            peerURISANs: connection.tls?.peerURISANs ?? [])
        let pending = Pending(
            request: request, scanner: BodyScanner(head.framing), isChunked: head.framing == .chunked,
            traits: head.traits,
            keepAlive: head.keepAlive)
        if pending.scanner.isDone {
            handle(pending)
        } else {
            state = .body(pending)
            if head.expectsContinue {
                connection.write(
                    UnsafeRawBufferPointer(
                        start: LocalReply.continueHead.utf8Start, count: LocalReply.continueHead.utf8CodeUnitCount))
            }
        }
        return head.length
    }

    private func takeBody(_ pending: Pending, _ bytes: UnsafeRawBufferPointer) -> Int? {
        var pending = pending
        state = .handling
        let step = pending.scanner.scan(bytes)
        let count: Int
        switch step {
        case .more(let passed), .done(let passed): count = passed
        case .invalid(let error, _):
            refuse(LocalReply.bytes(status: error.status, body: Array("\(error.code)\n".utf8), closes: true))
            return nil
        }
        pending.request.body += bytes.prefix(count)
        guard pending.request.body.count <= server.limits.bodyBytes else {
            refuse(LocalReply.bytes(status: 413, closes: true))
            return nil
        }
        if case .done = step {
            if pending.isChunked { pending.request.body = MessageText.payload(ofChunked: pending.request.body) }
            handle(pending)
            return count
        }
        state = .body(pending)
        return count > 0 ? count : nil
    }

    private func handle(_ pending: Pending) {
        state = .handling
        turn &+= 1
        traits = pending.traits
        keepAlive = pending.keepAlive
        server.statistics.requests += 1
        timer?.arm(afterMilliseconds: server.limits.handlerMilliseconds)
        let turn = turn
        server.handler(pending.request) { [weak self] response in self?.reply(response, turn: turn) }
        if case .handling = state { connection?.pauseReading() }
    }

    private func reply(_ response: HTTP1Response, turn: UInt64) {
        guard case .handling = state, turn == self.turn, let connection else { return }
        // The turn is over: a second call of the same reply finds another number.
        self.turn &+= 1
        let closes = !keepAlive || server.isClosing
        let bytes = LocalReply.bytes(
            status: response.status, body: response.body, contentType: response.contentType, closes: closes,
            answering: traits)
        if closes { return end(bytes) }
        state = .head
        isRequestTimed = false
        timer?.arm(afterMilliseconds: server.limits.idleMilliseconds)
        bytes.withUnsafeBytes { connection.write($0) }
        if connection.isAboveHighWater { connection.pauseReading() } else { connection.resumeReading() }
    }

    private func refuse(_ reply: [UInt8]) {
        server.statistics.refusedRequests += 1
        end(reply)
    }

    private func end(_ reply: [UInt8]) {
        state = .ending
        guard let connection else { return }
        reply.withUnsafeBytes { connection.write($0) }
        connection.close()
    }
}
