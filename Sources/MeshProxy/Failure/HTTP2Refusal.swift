import MeshCore
import MeshHTTP
import MeshIO

/// The end of an HTTP/2 connection that is not served: each request on it is answered with the reason.
final class HTTP2Refusal: HTTP2SessionDelegate, LoopMember {
    private let loop: ProxyLoop
    private let refused: RefusedRequests
    private var session: HTTP2Session!
    var memberIndex = -1

    /// Takes over a connection whose first unread bytes are HTTP/2's preface, and reads those. Answers how many it took.
    static func start(
        loop: ProxyLoop, connection: Connection, refused: RefusedRequests, bytes: UnsafeRawBufferPointer
    ) -> Int {
        let refusal = HTTP2Refusal(loop, refused)
        let session = HTTP2Session(
            over: connection, role: .server, limits: ProxyLimits.http2Downstream, delegate: refusal)
        refusal.session = session
        loop.add(refusal)
        session.opened(connection)
        let count = session.received(connection, bytes)
        session.shutdown(graceMilliseconds: ProxyLimits.lingerMilliseconds)
        return count
    }

    private init(_ loop: ProxyLoop, _ refused: RefusedRequests) {
        self.loop = loop
        self.refused = refused
    }

    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {
        stream.delegate = Refused()
        let head = HTTP2RequestHead(headers)
        let reply = HTTP2Reply(refused.error, isGRPC: head.isGRPC)
        guard let reply else { return stream.reset(.refusedStream) }
        refused.record(
            on: loop, head.isGRPC ? .grpc : .http2, status: reply.status, grpcStatus: reply.grpcStatus,
            subject: loop.accessLog != nil ? RequestSubject(headers) : nil)
        reply.send(on: stream, isHead: head.method == .head)
    }

    func opened(_ session: HTTP2Session) {}
    func goAwayReceived(_ session: HTTP2Session) {}
    func drainStarted() {}

    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) {
        loop.countEnd(cause)
        loop.remove(self)
    }

    /// What comes of a request after its answer is dropped.
    private final class Refused: HTTP2StreamDelegate {
        func received(headers: HTTP2Headers, on stream: HTTP2Stream) {}
        func received(_ bytes: UnsafeRawBufferPointer, on stream: HTTP2Stream) { stream.consume(bytes.count) }
        func received(trailers: HTTP2Headers, on stream: HTTP2Stream) {}
        func receivedEnd(on stream: HTTP2Stream) {}
        func writable(_ stream: HTTP2Stream) {}
        func closed(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause) {}
    }
}
