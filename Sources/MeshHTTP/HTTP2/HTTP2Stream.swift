internal import CApus
internal import Glibc
internal import MeshIO

/// What happens on one stream. On its session's loop, never while the session is in the middle of writing. `closed`
/// comes exactly once and last, and lets go of the delegate.
package protocol HTTP2StreamDelegate: AnyObject {
    /// A response's head (client): an informational one (1xx) is followed by another.
    func received(headers: HTTP2Headers, on stream: HTTP2Stream)
    /// Body bytes, valid during the call. The peer may send as many again only after `consume`.
    func received(_ bytes: UnsafeRawBufferPointer, on stream: HTTP2Stream)
    func received(trailers: HTTP2Headers, on stream: HTTP2Stream)
    /// The peer has said all it had to say: after head, body and trailers.
    func receivedEnd(on stream: HTTP2Stream)
    /// The stream is writable again, after it was not.
    func writable(_ stream: HTTP2Stream)
    /// The peer has taken nothing of what was written for as long as the limits allow. Left alone, the stream is reset.
    func stalled(_ stream: HTTP2Stream)
    func closed(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause)
}

extension HTTP2StreamDelegate {
    package func stalled(_ stream: HTTP2Stream) { stream.reset(.cancel) }
}

/// One exchange of an HTTP/2 connection.
///
/// What is written is kept here until flow control lets it go: `isWritable` says when to stop, `writable` when to go
/// on. All calls after the close do nothing.
package final class HTTP2Stream {
    /// Assigned by the peer or, on a client, when the stream is opened.
    package internal(set) var id: Int32 = 0
    /// Let go of at the close.
    package var delegate: (any HTTP2StreamDelegate)?
    /// Free for the owner.
    package var userData = 0
    package internal(set) var isClosed = false
    /// Whether the peer has said all it had to say.
    package internal(set) var isRemoteEnded = false
    /// Whether the head that is being told has nothing behind it: `receivedEnd` follows at once.
    package internal(set) var endsWithHead = false
    /// Whether the peer may have seen anything of it. A stream that ended before was not processed.
    package internal(set) var isHeadSent = false
    /// Whether this side's end has left: nothing of it is waiting any more.
    package internal(set) var isEndSent = false
    /// Whether it was the peer that reset it.
    package internal(set) var isResetByPeer = false
    /// Whether a header block of the peer was longer than the limit.
    package internal(set) var isHeadTooLarge = false
    /// The stream whose peer sends what is written here: its window is given back as the bytes leave, so that a slow reader
    /// slows its writer.
    package var windowSource: HTTP2Stream?
    /// So many bytes leave without that: they were written to another stream before, which gave their window back.
    package var creditedBytes = 0
    /// Written bytes that have left.
    package private(set) var takenBytes = 0
    unowned let session: HTTP2Session

    /// In the session's list of open streams.
    var index = 0
    var hasReceivedHead = false
    let openedAt: MonotonicTime
    /// This side has reset it: nothing of it is told any more but its end.
    private(set) var isReset = false
    /// What had left when it was last looked at, and since when there was more to send and nothing left.
    private var stalledAtBytes = 0
    private var stalledSince: MonotonicTime?
    /// Received and neither consumed nor given back.
    var unconsumedBytes = 0

    /// The library reads header bytes when the frame is built, so what was given to it lives as long as the stream.
    private var sentHead: HTTP2Headers?
    private var sentInformational: [HTTP2Headers] = []
    private var trailers: HTTP2Headers?
    private var areTrailersSubmitted = false
    private var outgoing = OutgoingBytes()
    private(set) var isLocalEnded = false
    private var isDeferred = false
    private var hasBody = false
    /// It was found not writable, so somebody waits for `writable`.
    private(set) var isAwaitingWritable = false

    init(session: HTTP2Session) {
        self.session = session
        openedAt = session.loop.now
    }

    deinit {
        outgoing.clear()
    }

    // MARK: Sending

    /// A server's response head, once. With `endOfStream` nothing follows.
    package func respond(_ headers: HTTP2Headers, endOfStream: Bool = false) {
        guard !isClosed, !isLocalEnded, !hasBody else { return }
        sentHead = headers
        isLocalEnded = endOfStream
        hasBody = !endOfStream
        session.submitResponse(self, headers, hasBody: hasBody)
    }

    /// A server's informational head (1xx), before `respond`.
    package func inform(_ headers: HTTP2Headers) {
        guard !isClosed, !isLocalEnded, !hasBody else { return }
        sentInformational.append(headers)
        session.submitInformational(self, headers)
    }

    /// Copies the bytes and sends them when flow control permits. Nothing is written after the end or before the head.
    package func write(_ bytes: UnsafeRawBufferPointer) {
        guard !isClosed, !isLocalEnded, hasBody, !bytes.isEmpty else { return }
        outgoing.append(bytes)
        wake()
    }

    /// Two pieces as one write: a message's prefix and its body.
    package func write(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) {
        guard !isClosed, !isLocalEnded, hasBody else { return }
        outgoing.append(first)
        outgoing.append(second)
        wake()
    }

    /// Ends this side after what was written, with trailers if given.
    package func finish(trailers: HTTP2Headers? = nil) {
        guard !isClosed, !isLocalEnded, hasBody else { return }
        isLocalEnded = true
        self.trailers = trailers
        wake()
    }

    /// Drops what was not sent, so that what ends the stream does not wait for the peer's window.
    package func discardUnsent() {
        windowSource = nil
        outgoing.clear()
    }

    /// Ends both sides at once and drops what was not sent.
    package func reset(_ code: HTTP2ErrorCode) {
        guard !isClosed else { return }
        outgoing.clear()
        isLocalEnded = true
        isReset = true
        session.submitReset(self, code)
    }

    package var unsentBytes: Int { outgoing.count }

    /// Whether more should be written now. When it answers no, `writable` will be told.
    package var isWritable: Bool {
        if isClosed || isLocalEnded { return false }
        if outgoing.count < session.limits.streamHighWaterBytes && !session.isCongested { return true }
        isAwaitingWritable = true
        session.hasWaitingWriters = true
        return false
    }

    func takeWritable() -> Bool {
        guard outgoing.count < session.limits.streamHighWaterBytes / 2 else { return false }
        isAwaitingWritable = false
        return !isLocalEnded
    }

    // MARK: Receiving

    /// Gives the window of so many received bytes back to the peer. More than were received counts as all.
    package func consume(_ count: Int) {
        let given = min(count, unconsumedBytes)
        guard given > 0, !isClosed else { return }
        unconsumedBytes -= given
        session.consume(self, given)
    }

    // MARK: For the session

    /// Whether nothing has left since `deadline`, though there was something to send.
    func isStalled(since deadline: MonotonicTime, now: MonotonicTime) -> Bool {
        guard outgoing.count > 0 else {
            stalledSince = nil
            return false
        }
        guard let since = stalledSince, stalledAtBytes == takenBytes else {
            stalledSince = now
            stalledAtBytes = takenBytes
            return false
        }
        return since <= deadline
    }

    func opened(_ headers: HTTP2Headers, endOfStream: Bool) {
        sentHead = headers
        isLocalEnded = endOfStream
        hasBody = !endOfStream
    }

    private func wake() {
        if isDeferred {
            isDeferred = false
            session.resume(self)
        } else {
            session.markDirty()
        }
    }

    /// The library asks for body bytes of at most `capacity`.
    func read(into buffer: UnsafeMutablePointer<UInt8>, capacity: Int, flags: UnsafeMutablePointer<UInt32>) -> Int {
        let count = outgoing.take(into: buffer, capacity)
        takenBytes += count
        if let windowSource, count > 0 {
            let credited = min(creditedBytes, count)
            creditedBytes -= credited
            windowSource.consume(count - credited)
        }
        if outgoing.count == 0 && isLocalEnded {
            flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
            if let trailers, !areTrailersSubmitted {
                flags.pointee |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
                areTrailersSubmitted = true
                if !session.submitTrailers(self, trailers) {
                    return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
                }
            }
            return count
        }
        if count == 0 {
            isDeferred = true
            return Int(NGHTTP2_ERR_DEFERRED.rawValue)
        }
        return count
    }

    func becomeClosed() {
        isClosed = true
        windowSource = nil
        outgoing.clear()
    }

    /// The library is done with them: not before, because it frees a stream's frames after the close callback.
    func releaseBlocks() {
        sentHead = nil
        if !sentInformational.isEmpty { sentInformational.removeAll() }
        trailers = nil
    }
}

/// Bytes waiting to be sent: memory is held only while there are some.
struct OutgoingBytes {
    private var base: UnsafeMutableRawPointer?
    private var capacity = 0
    private var offset = 0
    private(set) var count = 0

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        if offset + count + bytes.count > capacity { makeRoom(bytes.count) }
        if let base { memcpy(base + offset + count, source, bytes.count) }
        count += bytes.count
    }

    private mutating func makeRoom(_ more: Int) {
        let needed = count + more
        if needed <= capacity / 2, let base {
            memmove(base, base + offset, count)
            offset = 0
            return
        }
        let larger = max(512, needed + needed / 2)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 1)
        if let base {
            memcpy(memory, base + offset, count)
            base.deallocate()
        }
        base = memory
        capacity = larger
        offset = 0
    }

    mutating func take(into target: UnsafeMutablePointer<UInt8>, _ room: Int) -> Int {
        guard let base, count > 0 else { return 0 }
        let taken = min(room, count)
        memcpy(target, base + offset, taken)
        offset += taken
        count -= taken
        if count == 0 { clear() }
        return taken
    }

    mutating func clear() {
        base?.deallocate()
        base = nil
        capacity = 0
        offset = 0
        count = 0
    }
}
