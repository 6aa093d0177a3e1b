package import MeshIO

/// What a client is told of its call. On the session's loop.
package protocol GRPCClientCallDelegate: AnyObject {
    /// Valid during the call.
    func received(_ message: UnsafeRawBufferPointer, on call: GRPCClientCall)
    /// `isWritable` again, after it was not.
    func writable(_ call: GRPCClientCall)
    /// Exactly once and last. Lets go of the delegate.
    func closed(_ call: GRPCClientCall, _ status: GRPCStatus)
}

/// One call on an HTTP/2 connection to a server, any of gRPC's four kinds.
package final class GRPCClientCall {
    package var delegate: (any GRPCClientCallDelegate)?
    package private(set) var isClosed = false
    /// The response's head; nil until it came.
    package private(set) var responseHead: HTTP2Headers?
    package let messageLimit: Int

    private var stream: HTTP2Stream?
    private var deframer: GRPCDeframer
    private var httpStatus: Int?
    private var status: GRPCStatus?
    private var deadline: LoopTimer?

    /// Starts a call; it may be written to at once. Nil when the connection takes no more calls.
    ///
    /// - Parameters:
    ///   - path: `/package.Service/Method`.
    ///   - timeoutMilliseconds: told to the server and kept here too: the call closes with DEADLINE_EXCEEDED.
    package init?(
        on session: HTTP2Session, path: String, authority: String, scheme: StaticString = "https",
        timeoutMilliseconds: Int? = nil, metadata: [(name: String, value: String)] = [],
        messageLimit: Int = 4 * 1024 * 1024,
        delegate: any GRPCClientCallDelegate
    ) {
        self.delegate = delegate
        self.messageLimit = messageLimit
        deframer = GRPCDeframer(limit: messageLimit)
        let headers = HTTP2Headers(minimumCapacity: 10)
        headers.append(":method", "POST")
        headers.append(":scheme", scheme)
        headers.append(":path", path)
        headers.append(":authority", authority)
        headers.append("te", "trailers")
        headers.append("content-type", "application/grpc")
        if let timeoutMilliseconds {
            headers.append("grpc-timeout", GRPCTimeout.text(milliseconds: timeoutMilliseconds))
        }
        for field in metadata { headers.append(name: field.name, value: field.value) }
        guard let stream = session.open(headers, delegate: self) else { return nil }
        self.stream = stream
        if let timeoutMilliseconds {
            let timer = LoopTimer(loop: session.loop, target: self)
            timer.arm(afterMilliseconds: timeoutMilliseconds)
            deadline = timer
        }
    }

    /// Whether more should be sent now. When it answers no, `writable` will be told.
    package var isWritable: Bool { stream?.isWritable ?? false }

    package var unsentBytes: Int { stream?.unsentBytes ?? 0 }

    /// Copies the message. Dropped when the call is closed or this side has finished.
    package func send(_ message: UnsafeRawBufferPointer) {
        guard let stream else { return }
        GRPCPrefix(length: message.count).withBytes { stream.write($0, message) }
    }

    package func send(_ message: [UInt8]) {
        message.withUnsafeBytes { send($0) }
    }

    /// No more messages follow.
    package func finishSending() {
        stream?.finish()
    }

    /// Gives the call up: it closes with CANCELLED (or the status given) on a later turn.
    package func cancel(_ status: GRPCStatus = GRPCStatus(.cancelled, "cancelled here")) {
        guard !isClosed else { return }
        if self.status == nil { self.status = status }
        stream?.reset(.cancel)
    }
}

extension GRPCClientCall: HTTP2StreamDelegate {
    package func received(headers: HTTP2Headers, on stream: HTTP2Stream) {
        guard let code = headers.status, code >= 200 else { return }
        responseHead = headers
        httpStatus = code
        if let status = GRPCStatus(trailers: headers) {
            self.status = self.status ?? status
            return
        }
        guard code == 200 else {
            cancel(GRPCStatus(httpStatus: code))
            return
        }
        guard let index = headers.firstIndex(of: "content-type"), GRPCServer.isGRPC(headers.value(at: index)) else {
            let type = headers.value(of: "content-type") ?? "none"
            cancel(GRPCStatus(.unknown, "the peer answered with the content type '\(type)', not application/grpc"))
            return
        }
        if let encoding = headers.value(of: "grpc-encoding"), encoding != "identity" {
            cancel(
                GRPCStatus(.internal, "the peer answered with the grpc-encoding '\(encoding)', which was not offered"))
        }
    }

    package func received(_ bytes: UnsafeRawBufferPointer, on stream: HTTP2Stream) {
        stream.consume(bytes.count)
        guard status == nil else { return }
        do {
            try deframer.append(bytes) { message in
                guard status == nil else { return }
                delegate?.received(message, on: self)
            }
        } catch {
            cancel(GRPCDeframer.status(error, limit: messageLimit))
        }
    }

    package func received(trailers: HTTP2Headers, on stream: HTTP2Stream) {
        if status == nil { status = GRPCStatus(trailers: trailers) }
    }

    package func receivedEnd(on stream: HTTP2Stream) {
        if status == nil {
            status = GRPCStatus(.internal, "the peer ended the stream without a status")
        } else if status == .ok, deframer.partialCount > 0 {
            status = GRPCDeframer.status(.truncated, limit: messageLimit)
        }
        // The call is over for the server: what this side still has to say would go nowhere.
        if !stream.isLocalEnded { stream.reset(.noError) }
    }

    package func writable(_ stream: HTTP2Stream) {
        if status == nil { delegate?.writable(self) }
    }

    package func closed(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause) {
        isClosed = true
        deadline?.cancel()
        deadline = nil
        self.stream = nil
        let told = delegate
        delegate = nil
        told?.closed(self, status ?? GRPCStatus(close: cause))
    }
}

extension GRPCClientCall: TimerTarget {
    package func timerFired(_ timer: LoopTimer) {
        cancel(GRPCStatus(.deadlineExceeded, "the deadline passed"))
    }
}
