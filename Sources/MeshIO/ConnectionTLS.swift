extension Connection {
    /// Begins the server's side of a handshake. Bytes retained so far are its first ones, so that a protocol detector returns
    /// 0 from `received` for the ClientHello and calls this, from there or later. `opened` or `closed` follows.
    package func startTLS(_ context: TLSContext, handshakeTimeoutMilliseconds: Int = 10_000) {
        assert(loop.isCurrent, "called on another thread")
        guard phase == .open, session == nil else {
            assert(isClosed, "TLS was started twice, or before the connection stood")
            return
        }
        do {
            session = try TLSSession(context, .server, loop.tlsBuffers)
        } catch {
            finish(.tls(error))
            return
        }
        phase = .handshaking
        arm(afterMilliseconds: handshakeTimeoutMilliseconds)
        attendLater()
    }

    /// Ciphertext from the peer, in any memory but `loop.readBuffer`.
    func decrypt(_ bytes: UnsafeRawBufferPointer) {
        guard let session else { return }
        session.offer(bytes)
        defer { session.withdraw() }
        if phase == .handshaking, !continueHandshake() { return }
        readPlaintext(session)
    }

    /// True when the handshake is done and the connection still open.
    @discardableResult
    func continueHandshake() -> Bool {
        guard let session else { return false }
        let result = session.handshake()
        flush(session)
        guard phase == .handshaking else { return false }
        switch result {
        case .needsInput:
            return false
        case .failed(let failure):
            failHandshake(failure)
            return false
        case .done:
            deadline?.cancel()
            deadline = nil
            phase = .open
            tellOpened()
            return phase == .open
        }
    }

    private func readPlaintext(_ session: TLSSession) {
        let buffer = UnsafeMutableRawBufferPointer(start: loop.readBuffer, count: EventLoop.bufferSize)
        while true {
            let (count, end) = session.read(into: buffer)
            // Before anything is told: what a delegate writes uses the same buffer.
            flush(session)
            if count > 0, !hasReadEnded, !isClosed {
                bytesReceived &+= UInt64(count)
                deliver(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<count]))
            }
            if isClosed { return }
            switch end {
            case .bufferFull:
                continue
            case .needsInput:
                return
            case .closeNotify:
                endReading()
                return
            case .failed(let failure):
                finish(.tls(failure))
                return
            }
        }
    }

    func encrypt(_ session: TLSSession, _ start: UnsafeRawPointer, _ count: Int) {
        var offset = 0
        while offset < count, phase == .open, !hasWriteFailed {
            let size = min(count - offset, TLSSession.largestWrite)
            guard session.write(start + offset, size) else { return finish(.tls(session.failure(.write))) }
            offset += size
            flush(session)
        }
    }

    /// One record where both fit into one.
    func encrypt(
        _ session: TLSSession, _ first: UnsafeRawPointer, _ firstCount: Int, _ second: UnsafeRawPointer,
        _ secondCount: Int
    ) {
        if let joined = session.join(first, firstCount, second, secondCount) {
            encrypt(session, joined, firstCount + secondCount)
        } else {
            encrypt(session, first, firstCount)
            encrypt(session, second, secondCount)
        }
    }

    func sendCloseNotify(_ session: TLSSession) {
        session.sendCloseNotify()
        flush(session)
    }

    private func flush(_ session: TLSSession) {
        let bytes = session.takeOutput()
        if let start = bytes.baseAddress, !isClosed { transmit(start, bytes.count) }
    }
}
