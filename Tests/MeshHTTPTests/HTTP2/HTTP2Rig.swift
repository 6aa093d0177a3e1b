import Foundation
import MeshAddress
import MeshHTTP
import MeshIO
import Synchronization
import Testing

struct RigFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// An event loop on a thread of its own, on which a test makes things and runs pieces of code.
final class HTTP2Rig: Sendable {
    let loop: EventLoop

    init() throws { loop = try EventLoop.spawn(name: "test") }

    deinit { loop.stop() }

    /// Runs `body` on the loop and waits for what it returns.
    func run<Result: Sendable>(_ body: @escaping @Sendable (EventLoop) throws -> Result) async throws -> Result {
        let loop = loop
        return try await withCheckedThrowingContinuation { continuation in
            let isTaken = loop.submit { continuation.resume(with: Swift.Result { try body(loop) }) }
            if !isTaken { continuation.resume(throwing: RigFailure("the loop takes no job")) }
        }
    }

    /// Makes something that belongs to the loop.
    func make<Value>(_ body: @escaping @Sendable (EventLoop) throws -> Value) async throws -> LoopBound<Value> {
        try await run { LoopBound(try body($0), loop: $0) }
    }
}

/// What callbacks saw, readable from the test.
final class Log<Entry: Sendable>: Sendable {
    private let entries = Mutex<[Entry]>([])

    func append(_ entry: Entry) { entries.withLock { $0.append(entry) } }

    var all: [Entry] { entries.withLock { $0 } }

    /// Waits until the entries satisfy `condition`; 20 s are given before the test fails.
    @discardableResult
    func wait(
        _ what: String, sourceLocation: SourceLocation = #_sourceLocation, until condition: ([Entry]) -> Bool
    ) async throws -> [Entry] {
        let deadline = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < deadline {
            let now = all
            if condition(now) { return now }
            try await Task.sleep(for: .milliseconds(2))
        }
        Issue.record("waited in vain for \(what); so far \(all.count) entries", sourceLocation: sourceLocation)
        throw RigFailure("waited in vain for \(what)")
    }
}

// MARK: HTTP/2

/// A server that answers as a test says, stream by stream.
final class ScriptedServer: HTTP2SessionDelegate, ListenerDelegate {
    let loop: EventLoop
    let limits: HTTP2Limits
    let log: Log<String>
    var sessions: [HTTP2Session] = []
    /// Makes the delegate of a request's stream.
    var serve: (HTTP2Stream, HTTP2Headers) -> any HTTP2StreamDelegate

    init(
        _ loop: EventLoop, limits: HTTP2Limits = HTTP2Limits(), log: Log<String>,
        serve: @escaping (HTTP2Stream, HTTP2Headers) -> any HTTP2StreamDelegate
    ) {
        self.loop = loop
        self.limits = limits
        self.log = log
        self.serve = serve
    }

    func accepted(_ socket: AcceptedSocket, from listener: Listener) {
        sessions.append(HTTP2Session(accepting: socket, loop: loop, tls: nil, limits: limits, delegate: self))
    }

    func opened(_ session: HTTP2Session) {}

    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {
        stream.delegate = serve(stream, headers)
    }

    func goAwayReceived(_ session: HTTP2Session) { log.append("goaway") }

    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) {
        sessions.removeAll { $0 === session }
        log.append("closed: \(cause)")
    }
}

/// Sends back what it receives, with trailers, as fast as the client takes it.
final class EchoStream: HTTP2StreamDelegate {
    private var waiting: [UInt8] = []
    private var isEnded = false

    init(_ stream: HTTP2Stream) {
        let head = HTTP2Headers()
        head.append(":status", "200")
        stream.respond(head)
    }

    func received(headers: HTTP2Headers, on stream: HTTP2Stream) {}

    func received(_ bytes: UnsafeRawBufferPointer, on stream: HTTP2Stream) {
        waiting.append(contentsOf: bytes)
        pump(stream)
    }

    func received(trailers: HTTP2Headers, on stream: HTTP2Stream) {}

    func receivedEnd(on stream: HTTP2Stream) {
        isEnded = true
        pump(stream)
    }

    func writable(_ stream: HTTP2Stream) { pump(stream) }

    func closed(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause) {}

    private func pump(_ stream: HTTP2Stream) {
        while !waiting.isEmpty, stream.isWritable {
            let piece = Array(waiting.prefix(32 * 1024))
            waiting.removeFirst(piece.count)
            piece.withUnsafeBytes { stream.write($0) }
            stream.consume(piece.count)
        }
        guard isEnded, waiting.isEmpty else { return }
        isEnded = false
        let trailers = HTTP2Headers()
        trailers.append("x-end", "yes")
        stream.finish(trailers: trailers)
    }
}

/// A client's session whose fate is logged.
final class LoggedClient: HTTP2SessionDelegate {
    let log: Log<String>

    init(_ log: Log<String>) { self.log = log }

    func opened(_ session: HTTP2Session) { log.append("opened") }
    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {}
    func goAwayReceived(_ session: HTTP2Session) { log.append("goaway") }
    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) { log.append("closed: \(cause)") }
}

/// One request's fate: status, body length and checksum, trailers.
final class Exchange: HTTP2StreamDelegate {
    struct Result: Sendable, Equatable {
        var status = 0
        var body: [UInt8] = []
        var trailers: [String] = []
        var hasEnded = false
        var cause: HTTP2StreamCloseCause?
    }

    private let log: Log<Result>
    private var result = Result()
    private var unsent: [UInt8]
    /// A client that does not read: bytes are received and never consumed.
    private let isReading: Bool

    init(_ log: Log<Result>, body: [UInt8], isReading: Bool = true) {
        self.log = log
        unsent = body
        self.isReading = isReading
    }

    func pump(_ stream: HTTP2Stream) {
        while !unsent.isEmpty, stream.isWritable {
            let piece = Array(unsent.prefix(32 * 1024))
            unsent.removeFirst(piece.count)
            piece.withUnsafeBytes { stream.write($0) }
        }
        if unsent.isEmpty { stream.finish() }
    }

    func received(headers: HTTP2Headers, on stream: HTTP2Stream) { result.status = headers.status ?? -1 }

    func received(_ bytes: UnsafeRawBufferPointer, on stream: HTTP2Stream) {
        result.body.append(contentsOf: bytes)
        if isReading { stream.consume(bytes.count) }
    }

    func received(trailers: HTTP2Headers, on stream: HTTP2Stream) {
        result.trailers += trailers.all.map { "\($0.name): \($0.value)" }
    }

    func receivedEnd(on stream: HTTP2Stream) { result.hasEnded = true }

    func writable(_ stream: HTTP2Stream) { pump(stream) }

    func closed(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause) {
        result.cause = cause
        log.append(result)
    }
}

func requestHead(_ path: String = "/", extra: [(String, String)] = []) -> HTTP2Headers {
    let head = HTTP2Headers()
    head.append(":method", "POST")
    head.append(":scheme", "http")
    head.append(":path", path)
    head.append(":authority", "test")
    for (name, value) in extra { head.append(name: name, value: value) }
    return head
}

/// A plain blocking socket that speaks bytes: a peer that does what no library would.
final class RawPeer: @unchecked Sendable {
    private let descriptor: Int32

    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    init(to address: SocketAddress) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var timeout = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = address.port.bigEndian
        name.sin_addr.s_addr = (address.ip.v4 ?? 0).bigEndian
        let result = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, 16) }
        }
        guard result == 0 else { throw RigFailure("connect: \(errno)") }
    }

    deinit { close(descriptor) }

    static func frame(_ type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8] = []) -> [UInt8] {
        let count = payload.count
        return [
            UInt8(count >> 16 & 255), UInt8(count >> 8 & 255), UInt8(count & 255), type, flags,
            UInt8(stream >> 24 & 127),
            UInt8(stream >> 16 & 255), UInt8(stream >> 8 & 255), UInt8(stream & 255),
        ] + payload
    }

    /// False when the other side has gone.
    @discardableResult
    func send(_ bytes: [UInt8]) -> Bool {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count <= 0 { return false }
            sent += count
        }
        return true
    }

    /// Everything until the other side finishes, or nothing more in 20 s.
    func readToEnd() -> [UInt8] {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count <= 0 { return all }
            all += buffer[..<count]
        }
    }

    /// Types of the frames in a whole stream of bytes, and the error codes of GOAWAY.
    static func frames(_ bytes: [UInt8]) -> (types: [UInt8], goAwayCodes: [UInt32]) {
        var types: [UInt8] = []
        var codes: [UInt32] = []
        var offset = 0
        while offset + 9 <= bytes.count {
            let length = Int(bytes[offset]) << 16 | Int(bytes[offset + 1]) << 8 | Int(bytes[offset + 2])
            types.append(bytes[offset + 3])
            if bytes[offset + 3] == 7, offset + 17 <= bytes.count {
                codes.append(bytes[(offset + 13)..<(offset + 17)].reduce(0) { $0 << 8 | UInt32($1) })
            }
            offset += 9 + length
        }
        return (types, codes)
    }
}
