internal import CApus
internal import MeshIO

/// The callbacks and options of libnghttp2, the same for every session.
///
/// A callback's `user_data` is the session, a stream's user data the `HTTP2Stream`; both are kept alive by Swift while
/// the library may call, since callbacks come only from calls that a session makes.
enum HTTP2Library {
    /// Made once and only read afterwards, so that loops may share it.
    private nonisolated(unsafe) static let callbacks: OpaquePointer? = makeCallbacks()
    private nonisolated(unsafe) static let options: OpaquePointer? = makeOptions()

    static func makeSession(for session: HTTP2Session) -> OpaquePointer? {
        var library: OpaquePointer?
        let user = Unmanaged.passUnretained(session).toOpaque()
        let result =
            session.role == .server
            ? nghttp2_session_server_new2(&library, callbacks, user, options)
            : nghttp2_session_client_new2(&library, callbacks, user, options)
        guard result == 0, let library else { return nil }
        let limits = session.limits
        var settings = [
            setting(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.concurrentStreams),
            setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, min(limits.streamWindowBytes, 0x7fff_ffff)),
            setting(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.headerListBytes),
        ]
        if session.role == .client { settings.append(setting(NGHTTP2_SETTINGS_ENABLE_PUSH, 0)) }
        nghttp2_submit_settings(library, 0, settings, settings.count)
        nghttp2_session_set_local_window_size(library, 0, 0, Int32(clamping: max(limits.connectionWindowBytes, 65_535)))
        return library
    }

    static func provider(_ stream: UnsafeMutableRawPointer) -> nghttp2_data_provider {
        var provider = nghttp2_data_provider()
        provider.source.ptr = stream
        provider.read_callback = { _, _, buffer, capacity, flags, source, _ in
            guard let buffer, let flags, let pointer = source?.pointee.ptr else {
                return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
            }
            return Unmanaged<HTTP2Stream>.fromOpaque(pointer)._withUnsafeGuaranteedRef {
                $0.read(into: buffer, capacity: capacity, flags: flags)
            }
        }
        return provider
    }

    static func text(_ error: Int32) -> String {
        guard let text = nghttp2_strerror(error) else { return "error \(error)" }
        return String(cString: text)
    }

    private static func setting(_ id: nghttp2_settings_id, _ value: Int) -> nghttp2_settings_entry {
        nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: UInt32(clamping: value))
    }

    private static func makeOptions() -> OpaquePointer? {
        var options: OpaquePointer?
        guard nghttp2_option_new(&options) == 0 else { return nil }
        nghttp2_option_set_no_auto_window_update(options, 1)
        nghttp2_option_set_no_closed_streams(options, 1)
        // White space around a value is passed on as it came; a gRPC client may send it.
        nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(options, 1)
        // The library counts every reset, also of streams that a client had reason to give up: ours tells them apart.
        nghttp2_option_set_stream_reset_rate_limit(options, 1 << 32, 1 << 20)
        return options
    }

    // MARK: Callbacks

    private static let proceed: Int32 = 0
    private static let failSession = Int32(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue)

    private static func session(_ user: UnsafeMutableRawPointer?) -> HTTP2Session? {
        user.map { Unmanaged<HTTP2Session>.fromOpaque($0).takeUnretainedValue() }
    }

    private static func stream(_ library: OpaquePointer?, _ id: Int32) -> HTTP2Stream? {
        nghttp2_session_get_stream_user_data(library, id).map {
            Unmanaged<HTTP2Stream>.fromOpaque($0).takeUnretainedValue()
        }
    }

    private static func makeCallbacks() -> OpaquePointer? {
        var callbacks: OpaquePointer?
        guard nghttp2_session_callbacks_new(&callbacks) == 0 else { return nil }
        nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks) { _, header, user in
            guard let header, let session = HTTP2Library.session(user) else { return HTTP2Library.failSession }
            return HTTP2Library.frameBegan(header.pointee, session)
        }
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { library, frame, user in
            guard let library, let frame, let session = HTTP2Library.session(user) else {
                return HTTP2Library.failSession
            }
            return HTTP2Library.headersBegan(library, frame.pointee, session)
        }
        nghttp2_session_callbacks_set_on_header_callback2(callbacks) { _, _, name, value, flags, user in
            guard let name, let value, let user else { return HTTP2Library.failSession }
            // Called for every field: without a reference counted up and down.
            return Unmanaged<HTTP2Session>.fromOpaque(user)._withUnsafeGuaranteedRef { session in
                session.headerCame(name, value, flags) ? HTTP2Library.proceed : HTTP2Library.failSession
            }
        }
        // Left to itself the library drops a field that is not valid and passes on the rest (RFC 9113 §8.2.1).
        nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks) { _, _, _, _, _, _ in
            Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
        }
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks) { library, frame, _, user in
            if let frame, UInt32(frame.pointee.hd.type) == NGHTTP2_HEADERS.rawValue,
                let session = HTTP2Library.session(user), session.role == .server,
                HTTP2Library.stream(library, frame.pointee.hd.stream_id)?.hasReceivedHead == false
            {
                session.delegate?.requestRefused(session)
            }
            return HTTP2Library.proceed
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { library, _, id, bytes, count, user in
            guard let library, let session = HTTP2Library.session(user) else { return HTTP2Library.failSession }
            guard let stream = HTTP2Library.stream(library, id), !stream.isClosed, let delegate = stream.delegate else {
                session.consumeForConnection(count)
                return HTTP2Library.proceed
            }
            stream.unconsumedBytes += count
            session.hold(count)
            delegate.received(UnsafeRawBufferPointer(start: bytes, count: count), on: stream)
            return HTTP2Library.proceed
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { library, frame, user in
            guard let library, let frame, let session = HTTP2Library.session(user) else {
                return HTTP2Library.failSession
            }
            HTTP2Library.frameCame(library, frame.pointee, session)
            return HTTP2Library.proceed
        }
        nghttp2_session_callbacks_set_before_frame_send_callback(callbacks) { library, frame, _ in
            guard let frame, UInt32(frame.pointee.hd.type) == NGHTTP2_HEADERS.rawValue,
                let stream = HTTP2Library.stream(library, frame.pointee.hd.stream_id)
            else { return HTTP2Library.proceed }
            stream.isHeadSent = true
            return HTTP2Library.proceed
        }
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks) { library, frame, user in
            guard let library, let frame, let session = HTTP2Library.session(user) else {
                return HTTP2Library.failSession
            }
            HTTP2Library.frameSent(library, frame.pointee, session)
            return HTTP2Library.proceed
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { library, id, code, user in
            guard let session = HTTP2Library.session(user), let stream = HTTP2Library.stream(library, id) else {
                return HTTP2Library.proceed
            }
            let isFinished = code == 0 && stream.isRemoteEnded && stream.isLocalEnded
            session.streamEnded(stream, isFinished ? .finished : .reset(HTTP2ErrorCode(rawValue: code)))
            nghttp2_session_set_stream_user_data(library, id, nil)
            return HTTP2Library.proceed
        }
        nghttp2_session_callbacks_set_error_callback2(callbacks) { _, _, text, count, user in
            guard let text, let session = HTTP2Library.session(user) else { return HTTP2Library.proceed }
            session.diagnosis = String(
                decoding: UnsafeRawBufferPointer(start: text, count: min(count, 200)), as: UTF8.self)
            return HTTP2Library.proceed
        }
        return callbacks
    }

    private static let endStreamFlag = UInt8(truncatingIfNeeded: NGHTTP2_FLAG_END_STREAM.rawValue)

    /// Frames that carry nothing cost the peer little and us much, so they are counted.
    private static func frameBegan(_ header: nghttp2_frame_hd, _ session: HTTP2Session) -> Int32 {
        let isAdmitted: Bool
        let now = session.loop.now.nanoseconds
        switch UInt32(header.type) {
        case NGHTTP2_RST_STREAM.rawValue, NGHTTP2_PRIORITY.rawValue, NGHTTP2_SETTINGS.rawValue:
            isAdmitted = session.idleFrames.admit(nowNanoseconds: now)
        // Larger ones come to an end at the limit of a block's size.
        case NGHTTP2_CONTINUATION.rawValue where header.length < 1024:
            isAdmitted = session.idleFrames.admit(nowNanoseconds: now)
        case NGHTTP2_DATA.rawValue where header.length == 0 && header.flags & endStreamFlag == 0:
            isAdmitted = session.idleFrames.admit(nowNanoseconds: now)
        case NGHTTP2_PING.rawValue:
            isAdmitted = session.pings.admit(nowNanoseconds: now)
        case NGHTTP2_WINDOW_UPDATE.rawValue:
            isAdmitted = session.windowUpdates.admit(nowNanoseconds: now)
        default:
            return proceed
        }
        guard !isAdmitted else { return proceed }
        session.fail(.flood, .enhanceYourCalm)
        return failSession
    }

    private static func headersBegan(_ library: OpaquePointer, _ frame: nghttp2_frame, _ session: HTTP2Session) -> Int32
    {
        let id = frame.hd.stream_id
        if session.role == .server, frame.headers.cat == NGHTTP2_HCAT_REQUEST {
            let stream = HTTP2Stream(session: session)
            stream.id = id
            session.insert(stream)
            nghttp2_session_set_stream_user_data(library, id, Unmanaged.passUnretained(stream).toOpaque())
            session.beginBlock(HTTP2Headers())
        } else {
            session.beginBlock(stream(library, id) == nil ? nil : HTTP2Headers())
        }
        return proceed
    }

    private static func frameCame(_ library: OpaquePointer, _ frame: nghttp2_frame, _ session: HTTP2Session) {
        let header = frame.hd
        switch UInt32(header.type) {
        case NGHTTP2_HEADERS.rawValue:
            guard let stream = stream(library, header.stream_id) else { return }
            stream.endsWithHead = header.flags & endStreamFlag != 0
            headersCame(stream, session)
            if header.flags & endStreamFlag != 0 { remoteEnded(stream) }
        case NGHTTP2_DATA.rawValue:
            guard header.flags & endStreamFlag != 0, let stream = stream(library, header.stream_id) else { return }
            remoteEnded(stream)
        case NGHTTP2_SETTINGS.rawValue:
            if header.flags & UInt8(truncatingIfNeeded: NGHTTP2_FLAG_ACK.rawValue) == 0 { session.settingsCame() }
        case NGHTTP2_PING.rawValue:
            if header.flags & UInt8(truncatingIfNeeded: NGHTTP2_FLAG_ACK.rawValue) != 0 { session.pingAnswered() }
        case NGHTTP2_GOAWAY.rawValue:
            session.goAwayCame(
                HTTP2ErrorCode(rawValue: frame.goaway.error_code), lastStream: frame.goaway.last_stream_id)
        case NGHTTP2_RST_STREAM.rawValue:
            stream(library, header.stream_id)?.isResetByPeer = true
        default:
            break
        }
    }

    private static func headersCame(_ stream: HTTP2Stream, _ session: HTTP2Session) {
        guard let block = session.endBlock(), !stream.isClosed, !stream.isReset else { return }
        if session.isBlockTooLarge { stream.isHeadTooLarge = true }
        if stream.isHeadTooLarge, session.role == .client || stream.hasReceivedHead {
            stream.reset(.enhanceYourCalm)
            return
        }
        if session.role == .server, !stream.hasReceivedHead {
            stream.hasReceivedHead = true
            if stream.isHeadTooLarge {
                session.delegate?.acceptedTooLarge(stream, headers: block, on: session)
            } else {
                session.delegate?.accepted(stream, headers: block, on: session)
            }
            if stream.delegate == nil { stream.reset(.refusedStream) }
        } else if session.role == .client, !stream.hasReceivedHead {
            if let status = block.status, status >= 200 { stream.hasReceivedHead = true }
            stream.delegate?.received(headers: block, on: stream)
        } else {
            stream.delegate?.received(trailers: block, on: stream)
        }
    }

    private static func remoteEnded(_ stream: HTTP2Stream) {
        guard !stream.isRemoteEnded, !stream.isClosed, !stream.isReset else { return }
        stream.isRemoteEnded = true
        stream.delegate?.receivedEnd(on: stream)
    }

    private static func frameSent(_ library: OpaquePointer, _ frame: nghttp2_frame, _ session: HTTP2Session) {
        let header = frame.hd
        switch UInt32(header.type) {
        case NGHTTP2_GOAWAY.rawValue:
            session.goAwaySent(HTTP2ErrorCode(rawValue: frame.goaway.error_code))
        case NGHTTP2_DATA.rawValue, NGHTTP2_HEADERS.rawValue:
            if UInt32(header.type) == NGHTTP2_DATA.rawValue { session.windowUpdates.refund(2) }
            guard header.flags & endStreamFlag != 0, let stream = stream(library, header.stream_id) else { return }
            stream.isEndSent = true
            guard session.role == .server, !stream.isRemoteEnded else { return }
            // Answered in full, so the rest of the request is not needed (RFC 9113 §8.1).
            nghttp2_submit_rst_stream(library, 0, header.stream_id, HTTP2ErrorCode.noError.rawValue)
        default:
            break
        }
    }
}
