import CApus
import MeshAddress
import MeshCore
import MeshProxy
import MeshTelemetry

/// An HTTP/2 client or server of a test, frame by frame and blocking, so that it can do what no library would.
///
/// It acknowledges SETTINGS and PING while it reads, and gives back windows while `givesWindow`.
final class HTTP2Peer {
    enum Kind: UInt8 {
        case data, headers, priority, reset, settings, push, ping, goAway, windowUpdate, continuation
    }

    struct Frame {
        let kind: Kind?
        let flags: UInt8
        let stream: UInt32
        let payload: [UInt8]

        var endsStream: Bool { (kind == .data || kind == .headers) && flags & 1 != 0 }
        /// The first 32 bits of the payload.
        var word: UInt32 { payload.prefix(4).reduce(0) { $0 << 8 | UInt32($1) } }
    }

    /// What was received on a stream.
    struct Received {
        var blocks: [[Field]] = []
        var body: [UInt8] = []
        var bodyBytes = 0
        var hasEnded = false
        var resetCode: UInt32?

        var isOver: Bool { hasEnded || resetCode != nil }
        /// Informational heads come first.
        var informational: [Int] { blocks.map { $0.status }.filter { (100..<200).contains($0) } }
        var head: [Field] { blocks.first { !(100..<200).contains($0.status) } ?? [] }
        var status: Int { head.status }
        var trailers: [Field] { blocks.count > informational.count + 1 ? blocks[blocks.count - 1] : [] }
        var text: String { String(decoding: body, as: UTF8.self) }
        /// Of a call that ended by its trailers, or by its head alone.
        var grpcStatus: String? { trailers["grpc-status"] ?? head["grpc-status"] }
        var reason: String? { trailers["apus-reason"] ?? head["apus-reason"] }
    }

    typealias Field = (name: String, value: String)

    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    static let maxConcurrentStreams: UInt16 = 3
    static let initialWindow: UInt16 = 4

    let socket: TestSocket
    var givesWindow = true
    /// Bodies longer than this are counted only.
    var keptBodyBytes = 1 << 20
    private(set) var received: [UInt32: Received] = [:]
    private(set) var goAways: [(lastStream: UInt32, code: UInt32)] = []
    private(set) var hasSettings = false
    private(set) var isEnded = false
    private(set) var pongs = 0
    private var heads: [UInt32] = []
    private var nextStream: UInt32 = 1
    private var connectionWindow = 65_535
    private var initialStreamWindow = 65_535
    private var streamWindows: [UInt32: Int] = [:]
    private var sentBytes: [UInt32: Int] = [:]
    private var hasStoodStill = false
    private var inflater: OpaquePointer?

    /// A client; its preface and SETTINGS are sent at once.
    init(client socket: TestSocket, settings: [(UInt16, UInt32)] = []) throws {
        self.socket = socket
        nghttp2_hd_inflate_new(&inflater)
        try socket.write(HTTP2Peer.preface + HTTP2Peer.settingsFrame(settings))
    }

    /// A server of an accepted connection.
    init(server socket: TestSocket, settings: [(UInt16, UInt32)] = []) throws {
        self.socket = socket
        nghttp2_hd_inflate_new(&inflater)
        guard try socket.read(HTTP2Peer.preface.count) == HTTP2Peer.preface else {
            throw TestSocket.Failure(description: "no HTTP/2 preface")
        }
        try socket.write(HTTP2Peer.settingsFrame(settings))
    }

    deinit { nghttp2_hd_inflate_del(inflater) }

    // MARK: - Writing

    static func frame(_ kind: Kind, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8] = []) -> [UInt8] {
        let count = UInt32(payload.count)
        return [UInt8(count >> 16 & 255), UInt8(count >> 8 & 255), UInt8(count & 255), kind.rawValue, flags]
            + bytes(stream) + payload
    }

    static func bytes(_ word: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * $0)) } }

    static func settingsFrame(_ settings: [(UInt16, UInt32)]) -> [UInt8] {
        frame(.settings, settings.flatMap { [UInt8($0.0 >> 8), UInt8($0.0 & 255)] + bytes($0.1) })
    }

    /// A header block of literals that no table remembers.
    static func block(_ fields: [Field]) -> [UInt8] {
        fields.flatMap { [0] + text($0.name) + text($0.value) }
    }

    private static func text(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        var length: [UInt8] = []
        var rest = bytes.count
        if rest < 127 {
            length = [UInt8(rest)]
        } else {
            length = [127]
            rest -= 127
            while rest >= 128 {
                length.append(UInt8(rest & 127 | 128))
                rest >>= 7
            }
            length.append(UInt8(rest))
        }
        return length + bytes
    }

    func send(_ kind: Kind, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8] = []) throws {
        try socket.write(HTTP2Peer.frame(kind, flags: flags, stream: stream, payload))
    }

    func send(head fields: [Field], on stream: UInt32, ends: Bool = false) throws {
        try send(.headers, flags: ends ? 5 : 4, stream: stream, HTTP2Peer.block(fields))
    }

    static func request(_ method: String = "POST", _ path: String = "/", _ fields: [Field] = []) -> [Field] {
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", "catalog")] + fields
    }

    static let grpc: [Field] = [("content-type", "application/grpc"), ("te", "trailers")]

    /// Opens a stream; the body goes with it when it is short enough for any window.
    @discardableResult
    func open(_ fields: [Field] = HTTP2Peer.request(), body: String = "", ends: Bool = true) throws -> UInt32 {
        let stream = nextStream
        nextStream += 2
        received[stream] = Received()
        try send(head: fields, on: stream, ends: ends && body.isEmpty)
        if !body.isEmpty { try send(.data, flags: ends ? 1 : 0, stream: stream, Array(body.utf8)) }
        return stream
    }

    /// A server's whole answer.
    func answer(
        _ stream: UInt32, _ status: Int = 200, _ fields: [Field] = [], body: String = "", trailers: [Field]? = nil
    ) throws {
        try send(
            head: [(":status", "\(status)")] + fields, on: stream, ends: body.isEmpty && trailers == nil)
        if !body.isEmpty { try send(.data, flags: trailers == nil ? 1 : 0, stream: stream, Array(body.utf8)) }
        if let trailers { try send(head: trailers, on: stream, ends: true) }
    }

    /// A gRPC answer in the form of trailers only, or with a message before them.
    func answerCall(_ stream: UInt32, status: Int = 0, message: String? = nil, _ fields: [Field] = []) throws {
        let end: [Field] = [("grpc-status", "\(status)")] + fields
        let type: Field = ("content-type", "application/grpc")
        if let message {
            try answer(stream, 200, [type], body: message, trailers: end)
        } else {
            try answer(stream, 200, [type] + end)
        }
    }

    func reset(_ stream: UInt32, _ code: UInt32 = 8) throws { try send(.reset, stream: stream, HTTP2Peer.bytes(code)) }

    func goAway(lastStream: UInt32, code: UInt32 = 0) throws {
        try send(.goAway, HTTP2Peer.bytes(lastStream) + HTTP2Peer.bytes(code))
    }

    func giveWindow(_ count: UInt32, stream: UInt32) throws {
        try send(.windowUpdate, stream: stream, HTTP2Peer.bytes(count))
    }

    /// Sends body bytes as the windows permit, reading meanwhile. `sent` is told how many have gone so far.
    func sendBody(_ stream: UInt32, count: Int, ends: Bool = true, sent: (Int) -> Void = { _ in }) throws {
        let piece = [UInt8](repeating: 7, count: 16_384)
        var left = count
        while left > 0 {
            let window = min(connectionWindow, streamWindows[stream] ?? initialStreamWindow)
            guard window > 0 else {
                guard try read() != nil, received[stream]?.resetCode == nil else {
                    throw TestSocket.Failure(description: "the stream ended with \(left) bytes to send")
                }
                continue
            }
            let size = min(window, left, piece.count)
            left -= size
            connectionWindow -= size
            streamWindows[stream, default: initialStreamWindow] -= size
            try send(.data, flags: left == 0 && ends ? 1 : 0, stream: stream, Array(piece[..<size]))
            sent(count - left)
        }
    }

    /// Sends as much of an endless body as the windows permit now. The connection's is waited for a little, until it has once
    /// not come.
    func sendAvailable(_ stream: UInt32) throws {
        while true {
            while connectionWindow <= 0, !hasStoodStill {
                if try socket.waitForInput(milliseconds: 300) { try read() } else { hasStoodStill = true }
            }
            let window = min(connectionWindow, streamWindows[stream] ?? initialStreamWindow)
            guard window > 0 else { return }
            let size = min(window, 16_384)
            connectionWindow -= size
            streamWindows[stream, default: initialStreamWindow] -= size
            sentBytes[stream, default: 0] += size
            try send(.data, stream: stream, [UInt8](repeating: 7, count: size))
        }
    }

    /// The same until no more window is given for a while; answers how much was sent.
    func sendUntilStandstill(_ stream: UInt32) throws -> Int {
        repeat {
            try sendAvailable(stream)
            while try socket.waitForInput(milliseconds: 300) {
                guard try read() != nil else { break }
                if min(connectionWindow, streamWindows[stream] ?? initialStreamWindow) > 0 { break }
            }
        } while min(connectionWindow, streamWindows[stream] ?? initialStreamWindow) > 0
        return sentBytes[stream] ?? 0
    }

    // MARK: - Reading

    /// The next frame, taken into account; nil at the end of the connection.
    @discardableResult
    func read() throws -> Frame? {
        guard let start = try? socket.read(9) else {
            isEnded = true
            return nil
        }
        let length = Int(start[0]) << 16 | Int(start[1]) << 8 | Int(start[2])
        let payload = length == 0 ? [] : try socket.read(length)
        let stream = start[5...8].reduce(0) { $0 << 8 | UInt32($1) } & 0x7fff_ffff
        let frame = Frame(kind: Kind(rawValue: start[3]), flags: start[4], stream: stream, payload: payload)
        try take(frame)
        return frame
    }

    private func take(_ frame: Frame) throws {
        let isAcknowledgement = frame.flags & 1 != 0
        switch frame.kind {
        case .settings where !isAcknowledgement:
            hasSettings = true
            for offset in stride(from: 0, to: frame.payload.count - 5, by: 6) {
                let value = frame.payload[(offset + 2)...(offset + 5)].reduce(0) { $0 << 8 | Int($1) }
                guard frame.payload[offset + 1] == 4 else { continue }
                for open in streamWindows.keys { streamWindows[open, default: 0] += value - initialStreamWindow }
                initialStreamWindow = value
            }
            try? send(.settings, flags: 1)
        case .ping:
            if isAcknowledgement { pongs += 1 } else { try? send(.ping, flags: 1, frame.payload) }
        case .windowUpdate:
            if frame.stream == 0 {
                connectionWindow += Int(frame.word)
            } else {
                streamWindows[frame.stream, default: initialStreamWindow] += Int(frame.word)
            }
        case .goAway:
            goAways.append((frame.word, frame.payload[4..<8].reduce(0) { $0 << 8 | UInt32($1) }))
        case .headers:
            if received[frame.stream]?.blocks.isEmpty ?? true { heads.append(frame.stream) }
            received[frame.stream, default: Received()].blocks.append(try inflate(frame.payload))
        case .data:
            let kept = received[frame.stream]?.body.count ?? 0
            if kept < keptBodyBytes { received[frame.stream, default: Received()].body += frame.payload }
            received[frame.stream]?.bodyBytes += frame.payload.count
            if givesWindow, !frame.payload.isEmpty {
                let count = UInt32(frame.payload.count)
                try? giveWindow(count, stream: 0)
                if !frame.endsStream { try? giveWindow(count, stream: frame.stream) }
            }
        case .reset:
            received[frame.stream]?.resetCode = frame.word
        default:
            break
        }
        if frame.endsStream { received[frame.stream]?.hasEnded = true }
    }

    /// Only blocks of one frame are read: ours are never longer.
    private func inflate(_ block: [UInt8]) throws -> [Field] {
        var fields: [Field] = []
        try block.withUnsafeBufferPointer { bytes in
            guard var next = bytes.baseAddress else { return }
            var left = bytes.count
            while true {
                var field = nghttp2_nv()
                var flags: Int32 = 0
                let used = nghttp2_hd_inflate_hd2(inflater, &field, &flags, next, left, 1)
                guard used >= 0 else { throw TestSocket.Failure(description: "a header block that is none: \(used)") }
                next += used
                left -= used
                if UInt32(flags) & NGHTTP2_HD_INFLATE_EMIT.rawValue != 0 {
                    let name = UnsafeBufferPointer(start: field.name, count: field.namelen)
                    let value = UnsafeBufferPointer(start: field.value, count: field.valuelen)
                    fields.append((String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self)))
                }
                if UInt32(flags) & NGHTTP2_HD_INFLATE_FINAL.rawValue != 0 {
                    nghttp2_hd_inflate_end_headers(inflater)
                    return
                }
            }
        }
        return fields
    }

    func readToEnd() throws {
        while try read() != nil {}
    }

    func read(until condition: () -> Bool) throws {
        while !condition() {
            guard try read() != nil else {
                throw TestSocket.Failure(description: "the connection ended; GOAWAY: \(goAways)")
            }
        }
    }

    /// The stream's answer when it is over: ended or reset.
    func response(_ stream: UInt32) throws -> Received {
        try read { received[stream]?.isOver ?? false }
        return received[stream] ?? Received()
    }

    func hasEndedAll(_ streams: [UInt32]) -> Bool { streams.allSatisfy { received[$0]?.isOver ?? true } }

    func forget(_ stream: UInt32) { received[stream] = nil }

    /// A request and its answer.
    func exchange(_ fields: [Field] = HTTP2Peer.request(), body: String = "") throws -> Received {
        try response(open(fields, body: body))
    }

    func call(_ fields: [Field] = [], message: String = "message") throws -> Received {
        try exchange(HTTP2Peer.request("POST", "/shop.Catalog/Get", HTTP2Peer.grpc + fields), body: message)
    }

    /// The next stream that a client has opened; nil when it opens no more.
    func nextRequest() throws -> UInt32? {
        while heads.isEmpty {
            guard try read() != nil else { return nil }
        }
        return heads.removeFirst()
    }

    /// A stream that was opened already; nil when nothing more has come yet.
    func pendingRequest() throws -> UInt32? {
        while heads.isEmpty, try socket.waitForInput(milliseconds: 1) {
            guard try read() != nil else { return nil }
        }
        return heads.isEmpty ? nil : heads.removeFirst()
    }

    /// The next request when all of it is there.
    func nextWholeRequest() throws -> UInt32? {
        guard let stream = try nextRequest() else { return nil }
        try read { received[stream]?.isOver ?? true }
        return stream
    }
}

extension [HTTP2Peer.Field] {
    subscript(name: String) -> String? { first { $0.name == name }?.value }
    var status: Int { Int(self[":status"] ?? "") ?? 0 }
}

extension TestServer {
    /// A server that does with every request of its HTTP/2 connections what `serve` does.
    static func http2(
        on ip: IPAddress = .loopback4, settings: [(UInt16, UInt32)] = [],
        serve: @escaping @Sendable (HTTP2Peer, UInt32) throws -> Void
    ) throws -> TestServer {
        try TestServer(on: ip) { socket, _ in
            let peer = try HTTP2Peer(server: socket, settings: settings)
            while let stream = try peer.nextRequest() { try serve(peer, stream) }
        }
    }

    /// Answers calls with a message of its own.
    static func calls(on ip: IPAddress = .loopback4, message: String = "answer") throws -> TestServer {
        try http2(on: ip) { peer, stream in
            try peer.read { peer.received[stream]?.isOver ?? true }
            try peer.answerCall(stream, message: message)
        }
    }
}

extension TestMesh {
    func http2Client(settings: [(UInt16, UInt32)] = []) throws -> HTTP2Peer {
        try HTTP2Peer(client: client(), settings: settings)
    }

    /// One endpoint that is declared to speak HTTP/2, behind a sidecar or not.
    static func http2(
        _ server: TestServer, isMeshed: Bool = true, adjust: (inout Service) -> Void = { _ in },
        configure: (inout DataPlane.Configuration) -> Void = { _ in }
    ) throws -> TestMesh {
        let mesh = try TestMesh(
            [.init(server: server.address, isMeshed: isMeshed)], declared: .grpc, adjust: adjust, configure: configure)
        mesh.keep(server)
        return mesh
    }

    /// Requests that were counted under all of these labels, such as `response_code="200"`.
    static func requests(of plane: DataPlane, _ labels: String...) -> Int {
        var text = PrometheusText()
        metrics(of: plane).write(into: &text)
        return String(decoding: text.bytes, as: UTF8.self).split(separator: "\n").reduce(0) { sum, line in
            guard line.hasPrefix("istio_requests_total{"), labels.allSatisfy({ line.contains($0) }) else { return sum }
            return sum + (line.split(separator: " ").last.flatMap { Int($0) } ?? 0)
        }
    }

    /// Waits until nothing is under way any more, and no endpoint is thought to have anything.
    func becomesQuiet() throws {
        try eventually("no request is in flight") {
            outboundReport.requestsInFlight == 0 && inboundReport.requestsInFlight == 0
        }
        try eventually("no endpoint has anything pending") {
            [outbound, inbound].allSatisfy { plane in
                TestMesh.dump(of: plane).services.flatMap(\.targets).flatMap(\.upstreams).allSatisfy { $0.pending == 0 }
            }
        }
    }
}
