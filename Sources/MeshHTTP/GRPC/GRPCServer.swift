package import MeshIO

/// gRPC over HTTP/2 for any number of services on one loop. Handlers are found by the request's path.
package final class GRPCServer {
    package struct Limits: Sendable {
        package var http2 = HTTP2Limits()
        /// Of one message.
        package var messageBytes = 4 * 1024 * 1024
        /// Beyond it a new connection is closed at once.
        package var connections = 20_000
        /// SO_SNDBUF of a connection in bytes; 0 leaves it to the kernel. A bounded one lets a slow peer be noticed
        /// early.
        package var sendBufferBytes = 0
        /// Unsent bytes of a connection above which its streams are not writable.
        package var connectionHighWaterBytes = 256 * 1024

        package init() {}
    }

    package struct Statistics: Sendable, Hashable {
        package var connectionsAccepted: UInt64 = 0
        package var connectionsRefused: UInt64 = 0
        package var connectionsFailed: UInt64 = 0
        package var openConnections = 0
        package var calls: UInt64 = 0
        package var callsRefused: UInt64 = 0
        package var messagesReceived: UInt64 = 0
        package var messagesSent: UInt64 = 0
        package var deadlinesExceeded: UInt64 = 0
    }

    /// Makes the handler of a call. Nil when it has finished the call itself, with the reason.
    package typealias Acceptor = (GRPCServerCall) -> (any GRPCServerHandler)?

    package let loop: EventLoop
    /// For connections accepted from now on: replace it when certificates rotate. Nil is plaintext.
    package var tls: TLSContext?
    package let limits: Limits
    package internal(set) var statistics = Statistics()
    /// Told why a connection failed, for a log.
    package var connectionFailed: ((_ reason: String) -> Void)?

    private var acceptors: [String: Acceptor] = [:]
    private var sessions: [ObjectIdentifier: HTTP2Session] = [:]
    private var isShutDown = false
    private var shutdownFinished: (() -> Void)?
    let responseHead: HTTP2Headers

    package init(loop: EventLoop, tls: TLSContext?, limits: Limits = Limits()) {
        self.loop = loop
        self.tls = tls
        self.limits = limits
        responseHead = HTTP2Headers(minimumCapacity: 4)
        responseHead.append(":status", "200")
        responseHead.append("content-type", "application/grpc")
    }

    /// - Parameter path: `/package.Service/Method`.
    package func register(_ path: String, _ acceptor: @escaping Acceptor) {
        acceptors[path] = acceptor
    }

    /// Says GOAWAY on every connection, waits for the calls that are open, and closes what is left after
    /// `graceMilliseconds`. Close the listener first.
    package func shutdown(graceMilliseconds: Int, _ finished: @escaping () -> Void) {
        guard shutdownFinished == nil else { return finished() }
        isShutDown = true
        if sessions.isEmpty { return finished() }
        shutdownFinished = finished
        for session in Array(sessions.values) { session.shutdown(graceMilliseconds: graceMilliseconds) }
    }

    private func refuse(_ stream: HTTP2Stream, httpStatus: StaticString) {
        statistics.callsRefused += 1
        let headers = HTTP2Headers(minimumCapacity: 4)
        headers.append(":status", httpStatus)
        stream.delegate = RefusedStream.shared
        stream.respond(headers, endOfStream: true)
    }

    private func refuse(_ stream: HTTP2Stream, _ status: GRPCStatus) {
        statistics.callsRefused += 1
        let headers = HTTP2Headers(minimumCapacity: 6)
        headers.append(":status", "200")
        headers.append("content-type", "application/grpc")
        headers.append("grpc-accept-encoding", "identity")
        status.appendTrailers(to: headers)
        stream.delegate = RefusedStream.shared
        stream.respond(headers, endOfStream: true)
    }

    /// `application/grpc`, alone or with `+format` or parameters.
    static func isGRPC(_ contentType: UnsafeRawBufferPointer) -> Bool {
        let expected: StaticString = "application/grpc"
        let length = expected.utf8CodeUnitCount
        guard contentType.count >= length,
            contentType[..<length].elementsEqual(UnsafeRawBufferPointer(start: expected.utf8Start, count: length))
        else { return false }
        guard contentType.count > length else { return true }
        return contentType[length] == UInt8(ascii: "+") || contentType[length] == UInt8(ascii: ";")
    }
}

extension GRPCServer: ListenerDelegate {
    package func accepted(_ socket: AcceptedSocket, from listener: Listener) {
        serve(socket)
    }

    /// For a socket that was accepted elsewhere, on another loop for instance.
    package func serve(_ socket: AcceptedSocket) {
        guard !isShutDown, sessions.count < limits.connections else {
            statistics.connectionsRefused += 1
            socket.close()
            return
        }
        statistics.connectionsAccepted += 1
        if limits.sendBufferBytes > 0 { socket.setSendBuffer(bytes: limits.sendBufferBytes) }
        let session = HTTP2Session(accepting: socket, loop: loop, tls: tls, limits: limits.http2, delegate: self)
        session.connection.highWater = limits.connectionHighWaterBytes
        session.connection.lowWater = limits.connectionHighWaterBytes / 4
        sessions[ObjectIdentifier(session)] = session
        statistics.openConnections = sessions.count
    }
}

extension GRPCServer: HTTP2SessionDelegate {
    package func opened(_ session: HTTP2Session) {}

    package func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {
        guard let method = headers.value(of: ":method"), method == "POST" else {
            return refuse(stream, httpStatus: "405")
        }
        guard let contentType = headers.firstIndex(of: "content-type"),
            GRPCServer.isGRPC(headers.value(at: contentType))
        else {
            return refuse(stream, httpStatus: "415")
        }
        let path = headers.value(of: ":path") ?? ""
        guard let acceptor = acceptors[path] else {
            return refuse(stream, GRPCStatus(.unimplemented, "no method \(path)"))
        }
        if let encoding = headers.value(of: "grpc-encoding"), encoding != "identity" {
            return refuse(
                stream, GRPCStatus(.unimplemented, "grpc-encoding '\(encoding)' is not supported; send identity"))
        }
        statistics.calls += 1
        let call = GRPCServerCall(path: path, metadata: headers, stream: stream, session: session, server: self)
        let handler = acceptor(call)
        call.handler = handler
        if handler == nil { call.finish(GRPCStatus(.internal, "the call was not taken")) }
    }

    package func goAwayReceived(_ session: HTTP2Session) {}

    package func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) {
        sessions[ObjectIdentifier(session)] = nil
        statistics.openConnections = sessions.count
        switch cause {
        case .finished, .transport(.peer), .transport(.local), .transport(.reset):
            break
        default:
            statistics.connectionsFailed += 1
            connectionFailed?("\(session.connection.peer): \(cause)")
        }
        if sessions.isEmpty, let finished = shutdownFinished {
            shutdownFinished = nil
            finished()
        }
    }
}

/// Takes what still comes on a stream that was answered at once.
private final class RefusedStream: HTTP2StreamDelegate {
    /// Without state, so that all loops may share it.
    nonisolated(unsafe) static let shared = RefusedStream()

    func received(headers: HTTP2Headers, on stream: HTTP2Stream) {}
    func received(_ bytes: UnsafeRawBufferPointer, on stream: HTTP2Stream) { stream.consume(bytes.count) }
    func received(trailers: HTTP2Headers, on stream: HTTP2Stream) {}
    func receivedEnd(on stream: HTTP2Stream) {}
    func writable(_ stream: HTTP2Stream) {}
    func closed(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause) {}
}
