import Dispatch
import MeshAddress
import MeshHTTP
import MeshIO

/// One HTTP/2 connection, as the session over libnghttp2 sees it.
///
/// The first byte of an input chooses the role (bit 0), whether what is answered is sent between the pieces (bit 1), and whether the client's
/// preface is left out (bit 2); the rest is what the peer sends. Properties: each stream has a head, then data, then trailers, then its
/// end, and one close after which nothing is heard of it; a stream's unconsumed bytes stay within its window; no more streams than permitted; the
/// session is closed once; how the bytes are cut changes nothing.
enum HTTP2SessionProperty: FuzzProperty {
    static let name = "http2"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        guard let first = input.first, let loop else { return }
        let bytes = Array(input.dropFirst())
        let done = DispatchSemaphore(value: 0)
        let result = Verdict()
        let isClient = first & 1 != 0
        let sendsBetween = first & 2 != 0
        let greeting = isClient || first & 4 != 0 ? [] : preface
        let ends = Segmentation.ends(input.part(1, input.count))
        let isAccepted = loop.submit {
            do throws(PropertyFailure) {
                let split = try exchange(loop, isClient, greeting, bytes, ends, sendsBetween)
                if !sendsBetween {
                    let whole = try exchange(loop, isClient, greeting, bytes, [bytes.count], false)
                    let isKnown = split.hadManyContinuations || whole.hadManyContinuations
                    try require(
                        isKnown || whole.tellsTheSame(as: split), "whole \(whole.story), in pieces \(split.story)")
                }
            } catch {
                result.failure = error
            }
            done.signal()
        }
        guard isAccepted else { throw PropertyFailure("the loop takes no more jobs") }
        done.wait()
        if let failure = result.failure { throw failure }
    }

    /// Written on the loop before it is read here: the semaphore is between.
    private final class Verdict: @unchecked Sendable {
        var failure: PropertyFailure?
    }

    private static let loop = try? EventLoop.spawn(name: "fuzz")
    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + [0, 0, 0, 4, 0, 0, 0, 0, 0]

    private static func exchange(
        _ loop: EventLoop, _ isClient: Bool, _ greeting: [UInt8], _ bytes: [UInt8], _ ends: [Int], _ sendsBetween: Bool
    ) throws(PropertyFailure) -> SessionObserver {
        // Never connected: what is sent is only counted. The session gets its bytes directly.
        let connection = Connection(
            connectingTo: SocketAddress(.loopback4, 1), loop: loop, connectTimeoutMilliseconds: 100, delegate: nil)
        let observer = SessionObserver()
        let session = HTTP2Session(
            over: connection, role: isClient ? .client : .server, limits: HTTP2Limits(), delegate: observer)
        session.opened(connection)
        if isClient { observer.ask(session) }
        func feed(_ piece: ArraySlice<UInt8>) {
            guard !piece.isEmpty else { return }
            _ = piece.withUnsafeBytes { session.received(connection, $0) }
        }
        feed(greeting[...])
        var from = 0
        for end in ends where from < end {
            feed(bytes[from..<end])
            from = end
            if sendsBetween { session.endOfRound() }
            observer.judge(session)
        }
        session.endOfRound()
        observer.judge(session)
        session.closed(connection, .peer)
        observer.judge(session)
        connection.delegate = nil
        connection.abort()
        if let failure = observer.failure { throw failure }
        try require(observer.isClosed, "the session was never told closed")
        try require(observer.streams.values.allSatisfy(\.isClosed), "a stream was never told closed")
        try require(session.openStreams == 0, "\(session.openStreams) streams are left")
        return observer
    }
}

/// What a session tells, in order, and what is wrong with it.
private final class SessionObserver: HTTP2SessionDelegate, HTTP2StreamDelegate {
    struct Stream {
        var hasHead = false
        var hasTrailers = false
        var hasEnded = false
        var isClosed = false
        var unconsumed = 0
        var events: [String] = []
        var data: [UInt8] = []
    }

    private(set) var streams: [Int32: Stream] = [:]
    private(set) var isClosed = false
    private(set) var failure: PropertyFailure?
    private var connectionEvents: [String] = []
    /// libnghttp2 permits eight CONTINUATION frames in a row, and counts one anew for every piece in which its header arrives: the one
    /// thing that depends on how bytes are cut.
    private(set) var hadManyContinuations = false

    /// Data by its bytes, not by its pieces. Of a stream that is broken off, a part of the data may be missing: what exceeds
    /// Content-Length is found out in the middle of a frame. With which words a connection ends, its pieces decide, too.
    func tellsTheSame(as other: SessionObserver) -> Bool {
        guard connectionEvents == other.connectionEvents, streams.count == other.streams.count else { return false }
        return streams.allSatisfy { id, stream in
            guard let twin = other.streams[id], stream.events == twin.events else { return false }
            if stream.hasEnded { return stream.data == twin.data }
            return stream.data.starts(with: twin.data) || twin.data.starts(with: stream.data)
        }
    }

    var story: [String] {
        connectionEvents + streams.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value.events) \($0.value.data)" }
    }

    func ask(_ session: HTTP2Session) {
        for isLast in [true, false] {
            let headers = HTTP2Headers()
            headers.append(":method", "POST")
            headers.append(":scheme", "http")
            headers.append(":path", "/")
            headers.append(":authority", "catalog")
            if let stream = session.open(headers, endOfStream: isLast, delegate: self) { streams[stream.id] = Stream() }
        }
    }

    func judge(_ session: HTTP2Session) {
        expect(session.openStreams <= session.limits.concurrentStreams, "\(session.openStreams) streams are open")
    }

    private func expect(_ condition: Bool, _ what: @autoclosure () -> String) {
        if !condition, failure == nil { failure = PropertyFailure(what()) }
    }

    private func change(_ stream: HTTP2Stream, _ what: String, _ body: (inout Stream) -> Void) {
        expect(!isClosed, "\(what) after the session was closed")
        expect(streams[stream.id]?.isClosed == false, "\(what) on stream \(stream.id), which is closed or unknown")
        body(&streams[stream.id, default: Stream()])
    }

    private func describe(_ headers: HTTP2Headers) -> String {
        headers.all.map { "\($0.name)=\($0.value)" }.joined(separator: "|")
    }

    func opened(_ session: HTTP2Session) {}
    func goAwayReceived(_ session: HTTP2Session) { connectionEvents.append("goaway") }

    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {
        expect(streams[stream.id] == nil, "stream \(stream.id) was accepted twice")
        streams[stream.id] = Stream(hasHead: true, events: ["head \(describe(headers))"])
        stream.delegate = self
        let names = (0..<headers.count).map { Array(headers.name(at: $0)) }
        expect(
            names.allSatisfy { !$0.contains { (65...90).contains($0) || $0 <= 32 || $0 >= 127 } },
            "a field's name in \(describe(headers).debugDescription)")
        let values = (0..<headers.count).map { Array(headers.value(at: $0)) }
        expect(
            values.allSatisfy { !$0.contains { $0 == 0 || $0 == 10 || $0 == 13 } },
            "a line end within a field of \(describe(headers).debugDescription)")
    }

    func received(headers: HTTP2Headers, on stream: HTTP2Stream) {
        change(stream, "a head") {
            expect(!$0.hasHead && !$0.hasEnded, "a second head")
            $0.hasHead = headers.status.map { $0 >= 200 } ?? true
            $0.events.append("head \(describe(headers))")
        }
    }

    func received(_ bytes: UnsafeRawBufferPointer, on stream: HTTP2Stream) {
        change(stream, "data") {
            expect($0.hasHead && !$0.hasEnded && !$0.hasTrailers, "data before a head or behind the end")
            $0.data += bytes
            $0.unconsumed += bytes.count
            expect($0.unconsumed <= HTTP2Limits().streamWindowBytes, "\($0.unconsumed) bytes are not consumed")
            if stream.id % 4 == 1 {
                stream.consume($0.unconsumed)
                $0.unconsumed = 0
            }
        }
    }

    func received(trailers: HTTP2Headers, on stream: HTTP2Stream) {
        change(stream, "trailers") {
            expect($0.hasHead && !$0.hasEnded && !$0.hasTrailers, "trailers before a head or behind the end")
            $0.hasTrailers = true
            $0.events.append("trailers \(describe(trailers))")
        }
    }

    func receivedEnd(on stream: HTTP2Stream) {
        change(stream, "an end") {
            expect($0.hasHead && !$0.hasEnded, "an end before a head or behind the end")
            $0.hasEnded = true
            $0.events.append("end")
        }
        guard stream.id % 2 == 1 else { return }
        let headers = HTTP2Headers()
        headers.append(":status", "200")
        stream.respond(headers)
        Array("hello".utf8).withUnsafeBytes { stream.write($0) }
        stream.finish()
    }

    func writable(_ stream: HTTP2Stream) { change(stream, "writable") { _ in } }

    func closed(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause) {
        change(stream, "a close") { $0.isClosed = true }
    }

    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) {
        expect(!isClosed, "the session was closed twice")
        if case .protocolViolation(let reason) = cause { hadManyContinuations = reason.contains("CONTINUATION") }
        isClosed = true
    }
}
