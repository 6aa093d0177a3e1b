internal import CNIOBoringSSL

/// One connection's BoringSSL session over its loop's buffers: it moves bytes between ciphertext and plaintext and does
/// no input or output of its own. Every call of BoringSSL's used here empties the thread's error queue before it begins.
final class TLSSession {
    enum Role {
        case client(serverName: String?)
        case server
    }

    enum HandshakeResult {
        case done, needsInput
        case failed(TLSFailure)
    }

    /// Why a read gave no more.
    enum ReadEnd {
        case bufferFull, needsInput, closeNotify
        case failed(TLSFailure)
    }

    /// The most that one call of `write` takes: its ciphertext fits into the loop's buffer.
    static let largestWrite = 4 * TLSBuffers.recordCapacity

    private let ssl: OpaquePointer
    private let bio: OpaquePointer
    private let buffers: TLSBuffers
    /// Kept because the session's certificates and callbacks are the context's.
    private let context: TLSContext
    private var isOpen = false
    private var hasSentCloseNotify = false
    private var knownInformation: TLSInformation?

    init(_ context: TLSContext, _ role: Role, _ buffers: TLSBuffers) throws(TLSFailure) {
        guard let ssl = SSL_new(context.pointer) else { throw .fromErrorQueue(.configuration) }
        guard let bio = buffers.makeBIO() else {
            SSL_free(ssl)
            throw .fromErrorQueue(.configuration)
        }
        SSL_set_bio(ssl, bio, bio)
        SSL_set_shed_handshake_config(ssl, 1)
        switch role {
        case .server:
            SSL_set_accept_state(ssl)
        case .client(let serverName):
            SSL_set_connect_state(ssl)
            if let serverName, SSL_set_tlsext_host_name(ssl, serverName) != 1 {
                SSL_free(ssl)
                throw TLSFailure(stage: .configuration, reason: "\"\(serverName)\" is no host name for SNI")
            }
        }
        self.ssl = ssl
        self.bio = bio
        self.buffers = buffers
        self.context = context
    }

    deinit { SSL_free(ssl) }

    // MARK: Ciphertext

    /// Makes `bytes` the session's input until `withdraw()`.
    func offer(_ bytes: UnsafeRawBufferPointer) {
        buffers.state.pointee.reader = UnsafeMutableRawPointer(bio)
        buffers.state.pointee.input = bytes.baseAddress
        buffers.state.pointee.inputCount = bytes.count
    }

    func withdraw() {
        buffers.state.pointee.reader = nil
        buffers.state.pointee.input = nil
        buffers.state.pointee.inputCount = 0
    }

    /// What the last call made for the wire; valid until the next call into any session of the loop.
    func takeOutput() -> UnsafeRawBufferPointer {
        let count = buffers.state.pointee.outputCount
        buffers.state.pointee.outputCount = 0
        return UnsafeRawBufferPointer(start: count > 0 ? buffers.state.pointee.output : nil, count: count)
    }

    // MARK: Handshake

    func handshake() -> HandshakeResult {
        buffers.state.pointee.alertSent = nil
        let result = SSL_do_handshake(ssl)
        if result == 1 {
            if !context.applicationProtocols.isEmpty, selectedProtocol() == nil {
                SSL_send_fatal_alert(ssl, UInt8(SSL_AD_NO_APPLICATION_PROTOCOL))
                return .failed(
                    TLSFailure(
                        stage: .handshake,
                        reason: "the peer agreed on none of the protocols "
                            + context.applicationProtocols.joined(separator: ", "),
                        alertSent: UInt8(SSL_AD_NO_APPLICATION_PROTOCOL)))
            }
            isOpen = true
            return .done
        }
        switch SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE:
            return .needsInput
        default:
            return .failed(failure(.handshake))
        }
    }

    func endedDuringHandshake() -> TLSFailure {
        TLSFailure(stage: .handshake, reason: "the peer closed the connection during the handshake")
    }

    /// What the error queue says about the call that has just failed.
    func failure(_ stage: TLSFailure.Stage) -> TLSFailure {
        let result = SSL_get_verify_result(ssl)
        let isRefused = result != X509_V_OK && result != X509_V_ERR_INVALID_CALL
        let verification = isRefused ? X509_verify_cert_error_string(result).map { String(cString: $0) } : nil
        return .fromErrorQueue(stage, verification: verification, alertSent: buffers.state.pointee.alertSent)
    }

    // MARK: Payload

    /// Decrypts as many records as the buffer takes.
    func read(into buffer: UnsafeMutableRawBufferPointer) -> (count: Int, end: ReadEnd) {
        guard let start = buffer.baseAddress else { return (0, .bufferFull) }
        buffers.state.pointee.alertSent = nil
        var filled = 0
        while filled < buffer.count {
            let result = SSL_read(ssl, start + filled, Int32(clamping: buffer.count - filled))
            if result > 0 {
                filled += Int(result)
                // It reads no further ahead than the record it is at, so that asking once more would be in vain.
                if buffers.state.pointee.inputCount == 0, SSL_pending(ssl) == 0 { return (filled, .needsInput) }
                continue
            }
            switch SSL_get_error(ssl, result) {
            case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return (filled, .needsInput)
            case SSL_ERROR_ZERO_RETURN: return (filled, .closeNotify)
            default: return (filled, .failed(failure(.read)))
            }
        }
        return (filled, .bufferFull)
    }

    /// Encrypts all of it; at most `largestWrite` bytes.
    func write(_ start: UnsafeRawPointer, _ count: Int) -> Bool {
        SSL_write(ssl, start, Int32(clamping: count)) == Int32(clamping: count)
    }

    /// Both pieces one after the other in memory of the loop; nil when they are more than one record.
    func join(
        _ first: UnsafeRawPointer, _ firstCount: Int, _ second: UnsafeRawPointer, _ secondCount: Int
    ) -> UnsafeRawPointer? {
        guard firstCount <= TLSBuffers.recordCapacity, secondCount <= TLSBuffers.recordCapacity - firstCount else {
            return nil
        }
        buffers.joined.copyMemory(from: first, byteCount: firstCount)
        (buffers.joined + firstCount).copyMemory(from: second, byteCount: secondCount)
        return UnsafeRawPointer(buffers.joined)
    }

    func sendCloseNotify() {
        guard !hasSentCloseNotify else { return }
        hasSentCloseNotify = true
        SSL_shutdown(ssl)
    }

    // MARK: Result

    /// Nil until the handshake is done.
    var information: TLSInformation? {
        if !isOpen { return nil }
        if let knownInformation { return knownInformation }
        let made = makeInformation()
        knownInformation = made
        return made
    }

    private func selectedProtocol() -> String? {
        var bytes: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(ssl, &bytes, &count)
        guard let bytes, count > 0 else { return nil }
        return String(decoding: UnsafeBufferPointer(start: bytes, count: Int(count)), as: UTF8.self)
    }

    private func makeInformation() -> TLSInformation {
        let leaf = SSL_get_peer_certificate(ssl)
        defer { X509_free(leaf) }
        return TLSInformation(
            applicationProtocol: selectedProtocol(),
            version: SSL_get_version(ssl).map { String(cString: $0) } ?? "",
            cipherSuite: SSL_get_current_cipher(ssl).flatMap { SSL_CIPHER_standard_name($0) }
                .map { String(cString: $0) } ?? "",
            peerCertificates: PeerCertificate.chain(ssl),
            peerURISANs: leaf.map(PeerCertificate.uniformResourceIdentifiers) ?? [],
            peerNotAfter: leaf.flatMap(PeerCertificate.notAfter))
    }
}
