internal import CApus
internal import Glibc
package import MeshAddress
package import MeshIO

/// What happens on one HTTP/2 connection. On its loop. `closed` comes exactly once and last.
package protocol HTTP2SessionDelegate: AnyObject {
    /// The connection (and its TLS) stands, and nothing was read or written yet: the peer's identity can be judged, and
    /// the session refused by `abort(reason:)`.
    func opened(_ session: HTTP2Session)
    /// A request's head (server). Set `stream.delegate` before returning, or reset the stream; `receivedEnd` follows
    /// also where the request has no body.
    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session)
    /// A request's head that is longer than the limit (server); `headers` is its beginning. Left alone, it is reset.
    func acceptedTooLarge(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session)
    /// A request that breaks the rules of HTTP (server) was reset without another word.
    func requestRefused(_ session: HTTP2Session)
    /// The peer's limits are known, or have changed.
    func settingsReceived(_ session: HTTP2Session)
    /// The peer takes no new streams on this connection; those open go on.
    func goAwayReceived(_ session: HTTP2Session)
    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause)
}

extension HTTP2SessionDelegate {
    package func acceptedTooLarge(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {
        stream.reset(.enhanceYourCalm)
    }

    package func requestRefused(_ session: HTTP2Session) {}
    package func settingsReceived(_ session: HTTP2Session) {}
}

/// One HTTP/2 connection, client or server, over libnghttp2 and a `Connection` of the event loop.
///
/// The library is fed in `received` and asked for output once a round, in `endOfRound`, so that all that was written in
/// the round leaves in one send. It is never asked for output from one of its callbacks, nor is a delegate called while
/// it writes. Its connection keeps a session alive until `closed`, and the session its delegate.
package final class HTTP2Session {
    package enum Role: Sendable {
        case client
        case server
    }

    package let role: Role
    package let loop: EventLoop
    package let limits: HTTP2Limits
    package let connection: Connection
    /// Free for the owner.
    package var userData = 0
    /// The connection stands and is not being closed.
    package private(set) var isOpen = false
    package private(set) var isClosed = false
    /// Either side said GOAWAY, or the owner asked to finish: no new streams.
    package private(set) var isDraining = false
    /// The peer is about to stop, and has said so before it counts what it still serves (RFC 9113 §6.8).
    package private(set) var isPeerLeaving = false
    /// The peer has seen that this side is shutting down: all that it sent before is here.
    package private(set) var isShutdownKnown = false

    var delegate: (any HTTP2SessionDelegate)?
    private(set) var library: OpaquePointer?
    private(set) var streams: ContiguousArray<HTTP2Stream> = []
    private var endedStreams: [(HTTP2Stream, HTTP2StreamCloseCause)] = []
    private var isDirty = false
    private var isInLibrary = false
    private var closeRequest: HTTP2CloseCause?
    /// The library has given the connection up: nothing more is read.
    private var hasFailed = false
    private var hasGoAwayToTell = false
    private var hasSettingsToTell = false
    /// Some stream was found not writable and waits to be told.
    var hasWaitingWriters = false
    /// Received body bytes that are not consumed, and how many of them the connection's window still lacks.
    private(set) var heldBytes = 0
    private var owedBytes = 0

    // For the callbacks.
    var idleFrames: FloodGuard
    var pings: FloodGuard
    var windowUpdates: FloodGuard
    /// The library's last complaint, in its words.
    package internal(set) var diagnosis = ""
    /// The header block that is being received; nil when it is of no stream that is known.
    private var block: HTTP2Headers?
    private var blockBytes = 0
    var isBlockTooLarge: Bool { blockBytes > limits.headerListBytes }
    /// The peer's first SETTINGS have come.
    package private(set) var hasSettings = false

    private var timer: LoopTimer?
    private var drainTimer: LoopTimer?
    private var openedAt: MonotonicTime
    private var lastReceived: MonotonicTime
    private var pingSent: MonotonicTime?
    private var idleSince: MonotonicTime

    // MARK: Making

    /// Connects. A failure arrives as `closed`.
    package convenience init(
        connectingTo address: SocketAddress, loop: EventLoop, tls: (TLSContext, serverName: String?)? = nil,
        connectTimeoutMilliseconds: Int = 5000, limits: HTTP2Limits = HTTP2Limits(), delegate: any HTTP2SessionDelegate
    ) {
        let connection = Connection(
            connectingTo: address, loop: loop, tls: tls, connectTimeoutMilliseconds: connectTimeoutMilliseconds,
            delegate: nil)
        self.init(over: connection, role: .client, limits: limits, delegate: delegate)
    }

    /// Serves an accepted connection.
    package convenience init(
        accepting socket: AcceptedSocket, loop: EventLoop, tls: TLSContext?, limits: HTTP2Limits = HTTP2Limits(),
        delegate: any HTTP2SessionDelegate
    ) {
        let connection = Connection(accepting: socket, loop: loop, delegate: nil)
        self.init(over: connection, role: .server, limits: limits, delegate: delegate)
        if let tls {
            connection.startTLS(tls)
        } else {
            opened(connection)
        }
    }

    /// Takes over a connection, of which nothing was consumed that belongs to HTTP/2. `opened` is told by the
    /// connection, or must be called by the owner when the connection is open already.
    package init(over connection: Connection, role: Role, limits: HTTP2Limits, delegate: any HTTP2SessionDelegate) {
        self.connection = connection
        self.role = role
        self.limits = limits
        self.delegate = delegate
        loop = connection.loop
        openedAt = loop.now
        lastReceived = loop.now
        idleSince = loop.now
        let now = loop.now.nanoseconds
        idleFrames = FloodGuard(
            burst: limits.idleFrameBurst, perSecond: limits.idleFramesPerSecond, nowNanoseconds: now)
        pings = FloodGuard(burst: limits.pingBurst, perSecond: limits.pingsPerSecond, nowNanoseconds: now)
        windowUpdates = FloodGuard(
            burst: limits.windowUpdateBurst, perSecond: limits.windowUpdatesPerSecond, nowNanoseconds: now)
        library = HTTP2Library.makeSession(for: self)
        connection.delegate = self
        timer = LoopTimer(loop: loop, target: self, tag: HTTP2Session.watchTag)
    }

    deinit {
        if let library { nghttp2_session_del(library) }
    }

    // MARK: Streams

    package var openStreams: Int { streams.count }

    /// How many streams the peer permits at a time; more than anybody opens when it has not said.
    package var peerStreamLimit: Int {
        library.map { Int(nghttp2_session_get_remote_settings($0, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)) } ?? 0
    }

    /// As much is held for readers that are slow as may be: what else comes waits for them.
    private var isHoldingAll: Bool { limits.heldBytes > 0 && heldBytes > limits.heldBytes }

    /// Whether `open` would take a stream now: beyond the peer's limit it does not, so that the wait is its owner's.
    package var canOpenStream: Bool {
        guard let library, role == .client, !isClosed, !isDraining, closeRequest == nil, !isHoldingAll else {
            return false
        }
        return streams.count < min(peerStreamLimit, limits.concurrentStreams)
            && nghttp2_session_check_request_allowed(library) != 0
    }

    /// Sends a request's head, also before the connection stands. Nil when `canOpenStream` is false.
    package func open(_ headers: HTTP2Headers, endOfStream: Bool = false, delegate: any HTTP2StreamDelegate)
        -> HTTP2Stream?
    {
        guard let library, canOpenStream else { return nil }
        let stream = HTTP2Stream(session: self)
        let opaque = Unmanaged.passUnretained(stream).toOpaque()
        let id: Int32
        if endOfStream {
            id = nghttp2_submit_request(library, nil, headers.pointer, headers.count, nil, opaque)
        } else {
            var provider = HTTP2Library.provider(opaque)
            id = nghttp2_submit_request(library, nil, headers.pointer, headers.count, &provider, opaque)
        }
        guard id > 0 else { return nil }
        stream.id = id
        stream.delegate = delegate
        stream.opened(headers, endOfStream: endOfStream)
        insert(stream)
        markDirty()
        return stream
    }

    func insert(_ stream: HTTP2Stream) {
        stream.index = streams.count
        streams.append(stream)
    }

    private func remove(_ stream: HTTP2Stream) {
        let last = streams.count - 1
        guard stream.index <= last, streams[stream.index] === stream else { return }
        streams[stream.index] = streams[last]
        streams[stream.index].index = stream.index
        streams.removeLast()
        if streams.isEmpty { idleSince = loop.now }
    }

    func submitResponse(_ stream: HTTP2Stream, _ headers: HTTP2Headers, hasBody: Bool) {
        guard let library else { return }
        var provider = HTTP2Library.provider(Unmanaged.passUnretained(stream).toOpaque())
        let result = withUnsafePointer(to: &provider) {
            nghttp2_submit_response(library, stream.id, headers.pointer, headers.count, hasBody ? $0 : nil)
        }
        if result != 0 { submitReset(stream, .internalError) }
        markDirty()
    }

    func submitInformational(_ stream: HTTP2Stream, _ headers: HTTP2Headers) {
        guard let library else { return }
        nghttp2_submit_headers(library, 0, stream.id, nil, headers.pointer, headers.count, nil)
        markDirty()
    }

    func submitTrailers(_ stream: HTTP2Stream, _ trailers: HTTP2Headers) -> Bool {
        guard let library else { return false }
        return nghttp2_submit_trailer(library, stream.id, trailers.pointer, trailers.count) == 0
    }

    func submitReset(_ stream: HTTP2Stream, _ code: HTTP2ErrorCode) {
        guard let library else { return }
        nghttp2_submit_rst_stream(library, 0, stream.id, code.rawValue)
        // The peer's own reset may be on its way.
        if role == .client { idleFrames.refund(1) }
        markDirty()
    }

    func resume(_ stream: HTTP2Stream) {
        guard let library else { return }
        nghttp2_session_resume_data(library, stream.id)
        markDirty()
    }

    // From the library: a header block, field by field.

    func beginBlock(_ headers: HTTP2Headers?) {
        block = headers
        blockBytes = 0
    }

    /// False when the block is so large that the connection must end.
    @inline(__always)
    func headerCame(_ name: OpaquePointer, _ value: OpaquePointer, _ flags: UInt8) -> Bool {
        guard let block else { return true }
        let limit = limits.headerListBytes
        blockBytes += nghttp2_rcbuf_get_buf(name).len + nghttp2_rcbuf_get_buf(value).len + 32
        if blockBytes > limit * 4 {
            diagnosis = "a header block exceeds \(limit * 4) bytes"
            return false
        }
        if blockBytes <= limit { block.append(received: name, value, flags: flags) }
        return true
    }

    func endBlock() -> HTTP2Headers? {
        defer { block = nil }
        return block
    }

    /// From the library: body bytes for a stream that has a reader.
    func hold(_ count: Int) {
        heldBytes += count
        if heldBytes <= limits.heldBytes {
            consumeForConnection(count)
        } else {
            owedBytes += count
        }
    }

    private func letGo(_ count: Int) {
        heldBytes -= count
        let due = min(owedBytes, count)
        owedBytes -= due
        consumeForConnection(due)
    }

    func consume(_ stream: HTTP2Stream, _ count: Int) {
        guard let library else { return }
        nghttp2_session_consume_stream(library, stream.id, count)
        letGo(count)
        markDirtyIfDue(library)
    }

    /// Bytes that nobody will consume: their stream is unknown or closed.
    func consumeForConnection(_ count: Int) {
        guard let library, count > 0 else { return }
        nghttp2_session_consume_connection(library, count)
        markDirtyIfDue(library)
    }

    /// A window grows by half of itself before the peer is told, so most of what is consumed asks for no frame.
    private func markDirtyIfDue(_ library: OpaquePointer) {
        if !isDirty, nghttp2_session_want_write(library) != 0 { markDirty() }
    }

    /// From the library: told to the delegate when it is out of the library again.
    func streamEnded(_ stream: HTTP2Stream, _ cause: HTTP2StreamCloseCause) {
        guard !stream.isClosed else { return }
        letGo(stream.unconsumedBytes)
        stream.unconsumedBytes = 0
        if role == .client || cause == .finished || stream.isHeadSent || isOld(stream) { idleFrames.refund(1) }
        stream.becomeClosed()
        remove(stream)
        endedStreams.append((stream, cause))
    }

    /// Opening streams and giving them up at once costs a client nothing and goes round the limit of streams; one that lasted
    /// this long was within it.
    private func isOld(_ stream: HTTP2Stream) -> Bool {
        loop.now.nanoseconds(since: stream.openedAt) >= HTTP2Session.rapidResetNanoseconds
    }

    private static let rapidResetNanoseconds: Int64 = 100_000_000

    /// From the library.
    func goAwayCame(_ code: HTTP2ErrorCode, lastStream: Int32) {
        if code != .noError, closeRequest == nil { closeRequest = .goAway(code) }
        if code == .noError, lastStream == Int32.max { isPeerLeaving = true }
        guard !isDraining else { return }
        isDraining = true
        hasGoAwayToTell = true
    }

    /// From the library.
    func settingsCame() {
        hasSettings = true
        hasSettingsToTell = true
    }

    /// From the library: it has found the peer at fault and told it so.
    func goAwaySent(_ code: HTTP2ErrorCode) {
        guard code != .noError, closeRequest == nil else { return }
        closeRequest = .protocolViolation(diagnosis.isEmpty ? code.description : diagnosis)
    }

    // MARK: Ending

    /// Takes no new streams and closes when those open have ended, or at the deadline.
    package func shutdown(graceMilliseconds: Int) {
        guard !isClosed, drainTimer == nil else { return }
        isDraining = true
        let timer = LoopTimer(loop: loop, target: self, tag: HTTP2Session.drainTag)
        timer.arm(afterMilliseconds: graceMilliseconds)
        drainTimer = timer
        guard let library, isOpen else { return abort(reason: "closed before it was open") }
        switch role {
        case .server:
            // A client may have requests on their way: they count until it has seen this.
            nghttp2_submit_shutdown_notice(library)
            nghttp2_submit_ping(library, 0, nil)
        case .client:
            nghttp2_submit_goaway(library, 0, 0, HTTP2ErrorCode.noError.rawValue, nil, 0)
        }
        markDirty()
    }

    /// Closes at once, with a GOAWAY that says why where one can be sent.
    package func close(_ code: HTTP2ErrorCode = .noError) {
        fail(.finished, code)
    }

    /// Closes at once without another byte: the peer is not whom it should be, or does not answer.
    package func abort(reason: String) {
        guard !isClosed else { return }
        if closeRequest == nil { closeRequest = .refused(reason) }
        isOpen = false
        connection.abort()
    }

    func fail(_ cause: HTTP2CloseCause, _ code: HTTP2ErrorCode) {
        guard !isClosed, !hasFailed else { return }
        if closeRequest == nil { closeRequest = cause }
        hasFailed = true
        isDraining = true
        if let library { nghttp2_session_terminate_session(library, code.rawValue) }
        markDirty()
        guard isOpen else { return connection.abort() }
        // A peer that does not read holds its connection no longer than this.
        let timer = drainTimer ?? LoopTimer(loop: loop, target: self, tag: HTTP2Session.drainTag)
        timer.arm(afterMilliseconds: HTTP2Session.farewellMilliseconds)
        drainTimer = timer
    }

    private static let farewellMilliseconds = 1_000

    // MARK: Output

    func markDirty() {
        guard !isDirty, isOpen else { return }
        isDirty = true
        loop.atEndOfRound(self)
    }

    /// Whether the socket does not keep up.
    var isCongested: Bool { connection.isAboveHighWater }

    private func flush() {
        guard isOpen, let library else { return }
        isDirty = false
        isInLibrary = true
        let buffer = loop.scratch
        var used = 0
        var failure: Int = 0
        while !connection.isAboveHighWater {
            var bytes: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(library, &bytes)
            guard count > 0, let bytes else {
                failure = count
                break
            }
            if used + count > buffer.count {
                connection.write(UnsafeRawBufferPointer(rebasing: buffer[..<used]))
                used = 0
            }
            if count > buffer.count {
                connection.write(UnsafeRawBufferPointer(start: bytes, count: count))
            } else if let base = buffer.baseAddress {
                memcpy(base + used, bytes, count)
                used += count
            }
        }
        if used > 0 { connection.write(UnsafeRawBufferPointer(rebasing: buffer[..<used])) }
        isInLibrary = false
        if failure < 0 {
            closeRequest = closeRequest ?? .protocolViolation(HTTP2Library.text(Int32(truncatingIfNeeded: failure)))
            isOpen = false
            connection.abort()
        }
        leaveLibrary()
        closeIfDone()
    }

    private func closeIfDone() {
        guard isOpen, let library, !isInLibrary else { return }
        guard nghttp2_session_want_read(library) == 0, nghttp2_session_want_write(library) == 0 else { return }
        if closeRequest == nil { closeRequest = .finished }
        isOpen = false
        connection.close()
    }

    /// Tells what the library's callbacks only noted.
    private func leaveLibrary() {
        if !endedStreams.isEmpty {
            let ended = endedStreams
            endedStreams.removeAll(keepingCapacity: true)
            for (stream, cause) in ended {
                let told = stream.delegate
                stream.delegate = nil
                stream.releaseBlocks()
                told?.closed(stream, cause)
            }
        }
        if hasSettingsToTell {
            hasSettingsToTell = false
            delegate?.settingsReceived(self)
        }
        if hasGoAwayToTell {
            hasGoAwayToTell = false
            delegate?.goAwayReceived(self)
        }
        if hasWaitingWriters, !isCongested {
            hasWaitingWriters = false
            for stream in Array(streams) where stream.isAwaitingWritable {
                if stream.takeWritable() {
                    stream.delegate?.writable(stream)
                } else {
                    hasWaitingWriters = true
                }
            }
        }
    }

    // MARK: Time

    private static let watchTag = 0
    private static let drainTag = 1

    private func watch() {
        guard isOpen else { return }
        let now = loop.now
        func elapsedMilliseconds(_ since: MonotonicTime) -> Int { Int(now.nanoseconds(since: since) / 1_000_000) }
        if !hasSettings {
            let left = limits.settingsTimeoutMilliseconds - elapsedMilliseconds(openedAt)
            if left <= 0 { return fail(.settingsTimeout, .settingsTimeout) }
            timer?.arm(afterMilliseconds: left)
            return
        }
        var next = Int.max
        if limits.idleTimeoutMilliseconds > 0 {
            if streams.isEmpty {
                let left = limits.idleTimeoutMilliseconds - elapsedMilliseconds(idleSince)
                if left <= 0 { return fail(.finished, .noError) }
                next = min(next, left)
            } else {
                next = min(next, limits.idleTimeoutMilliseconds)
            }
        }
        if limits.pingIntervalMilliseconds > 0 {
            if let pingSent {
                let left = limits.pingTimeoutMilliseconds - elapsedMilliseconds(pingSent)
                if left <= 0 {
                    if closeRequest == nil { closeRequest = .pingTimeout }
                    isOpen = false
                    connection.abort()
                    return
                }
                next = min(next, left)
            } else {
                let left = limits.pingIntervalMilliseconds - elapsedMilliseconds(lastReceived)
                if left <= 0 {
                    sendPing()
                    next = min(next, limits.pingTimeoutMilliseconds)
                } else {
                    next = min(next, left)
                }
            }
        }
        if limits.stallTimeoutMilliseconds > 0 {
            findStalled(now)
            next = min(next, limits.stallTimeoutMilliseconds / HTTP2Session.stallChecks + 1)
        }
        if next < Int.max { timer?.arm(afterMilliseconds: next) }
    }

    private static let stallChecks = 4

    private func findStalled(_ now: MonotonicTime) {
        let deadline = MonotonicTime(
            nanoseconds: now.nanoseconds &- Int64(limits.stallTimeoutMilliseconds) &* 1_000_000)
        for stream in streams.filter({ $0.isStalled(since: deadline, now: now) }) {
            if let delegate = stream.delegate { delegate.stalled(stream) } else { stream.reset(.cancel) }
        }
    }

    private func sendPing() {
        guard let library else { return }
        pingSent = loop.now
        nghttp2_submit_ping(library, 0, nil)
        markDirty()
    }

    /// From the library. A server that is shutting down knows now that the client has seen the notice.
    func pingAnswered() {
        if role == .server, drainTimer != nil, let library {
            isShutdownKnown = true
            let last = nghttp2_session_get_last_proc_stream_id(library)
            nghttp2_submit_goaway(library, 0, last, HTTP2ErrorCode.noError.rawValue, nil, 0)
            markDirty()
        }
    }
}

extension HTTP2Session: TimerTarget {
    package func timerFired(_ timer: LoopTimer) {
        if timer.tag == HTTP2Session.drainTag {
            fail(.finished, .noError)
            // Nothing is waited for any more, so a peer that does not read cannot hold it.
            isOpen = false
            connection.close()
        } else {
            watch()
        }
    }
}

extension HTTP2Session: EndOfRoundTarget {
    package func endOfRound() { flush() }
}

extension HTTP2Session: ConnectionDelegate {
    package func opened(_ connection: Connection) {
        guard !isClosed, closeRequest == nil else { return }
        isOpen = true
        openedAt = loop.now
        lastReceived = loop.now
        idleSince = loop.now
        delegate?.opened(self)
        guard isOpen else { return }
        markDirty()
        watch()
    }

    package func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard isOpen, !hasFailed, let library, let base = bytes.baseAddress else { return bytes.count }
        lastReceived = loop.now
        pingSent = nil
        let hadSettings = hasSettings
        isInLibrary = true
        let count = nghttp2_session_mem_recv(library, base.assumingMemoryBound(to: UInt8.self), bytes.count)
        isInLibrary = false
        if count < 0 {
            let error = Int32(truncatingIfNeeded: count)
            if error == NGHTTP2_ERR_FLOODED.rawValue {
                fail(.flood, .enhanceYourCalm)
            } else {
                fail(.protocolViolation(diagnosis.isEmpty ? HTTP2Library.text(error) : diagnosis), .protocolError)
            }
        } else if isCongested, nghttp2_session_get_outbound_queue_size(library) > limits.queuedFrames {
            fail(.flood, .enhanceYourCalm)
        }
        leaveLibrary()
        markDirty()
        // The timer waited for the settings; from now on it watches for silence.
        if hasSettings != hadSettings { watch() }
        return bytes.count
    }

    package func readEnded(_ connection: Connection) {
        isOpen = false
        connection.close()
        if closeRequest == nil { closeRequest = isDraining ? .finished : .transport(.peer) }
    }

    package func drained(_ connection: Connection) {
        markDirty()
        leaveLibrary()
    }

    package func closed(_ connection: Connection, _ cause: CloseCause) {
        guard !isClosed else { return }
        isOpen = false
        isClosed = true
        isDraining = true
        timer?.cancel()
        timer = nil
        drainTimer?.cancel()
        drainTimer = nil
        // Deleting the session tells nothing of its streams.
        for stream in Array(streams) { streamEnded(stream, .connectionLost) }
        if let library { nghttp2_session_del(library) }
        library = nil
        hasGoAwayToTell = false
        hasSettingsToTell = false
        leaveLibrary()
        let told = delegate
        delegate = nil
        told?.closed(self, closeRequest ?? .transport(cause))
    }
}
