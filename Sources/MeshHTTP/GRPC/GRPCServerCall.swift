package import MeshAddress
package import MeshIO

/// What a handler is told of its call. On the server's loop.
package protocol GRPCServerHandler: AnyObject {
    /// Valid during the call.
    func received(_ message: UnsafeRawBufferPointer, on call: GRPCServerCall)
    /// The client will send no more messages.
    func receivedEnd(on call: GRPCServerCall)
    /// `isWritable` again, after it was not.
    func writable(_ call: GRPCServerCall)
    /// Exactly once and last: the call is finished, or the client is gone or out of time (then `isFinished` was false).
    /// Lets go of the handler.
    func closed(_ call: GRPCServerCall)
}

/// One call of a client, any of gRPC's four kinds: a handler sends as many messages as its method has, then a status.
package final class GRPCServerCall {
    /// `/package.Service/Method`.
    package let path: String
    package let peer: SocketAddress
    /// Of the client's certificate; empty without TLS or without one.
    package let peerURISANs: [String]
    /// The request's head.
    package let metadata: HTTP2Headers
    package var handler: (any GRPCServerHandler)?
    /// A status was sent, or the call is closed.
    package private(set) var isFinished = false
    package let loop: EventLoop

    private let stream: HTTP2Stream
    private let server: GRPCServer
    private var deframer: GRPCDeframer
    private var hasSentHead = false
    private var deadline: LoopTimer?

    init(path: String, metadata: HTTP2Headers, stream: HTTP2Stream, session: HTTP2Session, server: GRPCServer) {
        self.path = path
        self.metadata = metadata
        self.stream = stream
        self.server = server
        loop = session.loop
        peer = session.connection.peer
        peerURISANs = session.connection.tls?.peerURISANs ?? []
        deframer = GRPCDeframer(limit: server.limits.messageBytes)
        stream.delegate = self
        guard let index = metadata.firstIndex(of: "grpc-timeout") else { return }
        if let milliseconds = GRPCTimeout.parse(metadata.value(at: index)) {
            let timer = LoopTimer(loop: loop, target: self)
            timer.arm(afterMilliseconds: milliseconds)
            deadline = timer
        }
    }

    /// Whether more should be sent now. When it answers no, `writable` will be told.
    package var isWritable: Bool { !isFinished && stream.isWritable }

    /// Sent and still held back by flow control or by the socket's pace.
    package var unsentBytes: Int { stream.unsentBytes }

    /// Copies the message. Dropped when the call is finished.
    package func send(_ message: UnsafeRawBufferPointer) {
        guard !isFinished else { return }
        sendHead()
        server.statistics.messagesSent += 1
        GRPCPrefix(length: message.count).withBytes { stream.write($0, message) }
    }

    package func send(_ message: [UInt8]) {
        message.withUnsafeBytes { send($0) }
    }

    /// Ends the call. The first status counts.
    package func finish(_ status: GRPCStatus) {
        guard !isFinished else { return }
        isFinished = true
        deadline?.cancel()
        let trailers = HTTP2Headers(minimumCapacity: 4)
        if hasSentHead {
            status.appendTrailers(to: trailers)
            stream.finish(trailers: trailers)
        } else {
            trailers.append(":status", "200")
            trailers.append("content-type", "application/grpc")
            status.appendTrailers(to: trailers)
            stream.respond(trailers, endOfStream: true)
        }
    }

    /// Has the response's head sent now: a client may wait for it before it says more.
    package func sendHead() {
        guard !hasSentHead, !isFinished else { return }
        hasSentHead = true
        stream.respond(server.responseHead)
    }
}

extension GRPCServerCall: HTTP2StreamDelegate {
    package func received(_ bytes: UnsafeRawBufferPointer, on stream: HTTP2Stream) {
        stream.consume(bytes.count)
        guard !isFinished else { return }
        do {
            try deframer.append(bytes) { message in
                guard !isFinished else { return }
                server.statistics.messagesReceived += 1
                handler?.received(message, on: self)
            }
        } catch {
            finish(GRPCDeframer.status(error, limit: server.limits.messageBytes))
        }
    }

    package func receivedEnd(on stream: HTTP2Stream) {
        guard !isFinished else { return }
        do {
            try deframer.finish()
            handler?.receivedEnd(on: self)
        } catch {
            finish(GRPCDeframer.status(error, limit: server.limits.messageBytes))
        }
    }

    package func received(headers: HTTP2Headers, on stream: HTTP2Stream) {}

    package func received(trailers: HTTP2Headers, on stream: HTTP2Stream) {}

    package func writable(_ stream: HTTP2Stream) {
        handler?.writable(self)
    }

    package func closed(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause) {
        deadline?.cancel()
        deadline = nil
        let told = handler
        handler = nil
        told?.closed(self)
        isFinished = true
    }
}

extension GRPCServerCall: TimerTarget {
    package func timerFired(_ timer: LoopTimer) {
        server.statistics.deadlinesExceeded += 1
        finish(GRPCStatus(.deadlineExceeded, "the deadline passed"))
        // The client has given up: nothing of what is held back is of use to it.
        if stream.unsentBytes > 0 { stream.reset(.cancel) }
    }
}
