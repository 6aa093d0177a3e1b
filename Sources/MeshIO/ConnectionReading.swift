internal import CApus
internal import Glibc

extension Connection {
    /// Reads of 128 KiB before other descriptors have their turn.
    private static let readsPerRound = 4

    // MARK: For the owner

    /// Stops deliveries after the present one. A TLS handshake goes on.
    package func pauseReading() {
        assert(loop.isCurrent, "called on another thread")
        isReadingPaused = true
    }

    /// Goes on reading; retained bytes are delivered first, from the loop's next turn.
    package func resumeReading() {
        assert(loop.isCurrent, "called on another thread")
        guard isReadingPaused else { return }
        isReadingPaused = false
        if !retained.isEmpty { mustOfferRetained = true }
        if !isClosed, mustOfferRetained || isReadable || isReadEndPending { attendLater() }
    }

    /// Offers the retained bytes again, from the loop's next turn.
    package func deliverRetained() {
        assert(loop.isCurrent, "called on another thread")
        mustOfferRetained = true
        if !isClosed { attendLater() }
    }

    /// Received and not consumed; zero while they are being offered.
    package var retainedBytes: Int { retained.count }

    // MARK: Reading

    var mayRead: Bool {
        switch phase {
        case .handshaking: true
        case .open: !isReadingPaused && !hasReadEnded && retained.count < retainedLimit && !isForwardingBlocked
        case .connecting, .lingering, .closed: false
        }
    }

    func readRound() {
        if mustOfferRetained || !retained.isEmpty && phase == .handshaking { offerRetained() }
        if isReadEndPending { endReading() }
        if isForwardingBlocked, phase == .open { goOnForwarding() }
        var remaining = Connection.readsPerRound
        while isReadable, mayRead {
            if remaining == 0 {
                attendLater()
                return
            }
            remaining -= 1
            receive()
        }
    }

    private func receive() {
        if let forwarding, retained.isEmpty { return forwardOnce(forwarding.target) }
        let buffer = session == nil ? loop.readBuffer : loop.cipherBuffer
        let count = apus_receive(descriptor, buffer, EventLoop.bufferSize)
        if count > 0 {
            // A short read means that the kernel has no more: the next bytes are a new event.
            if count < EventLoop.bufferSize, !mustReadToEnd { isReadable = false }
            let bytes = UnsafeRawBufferPointer(start: buffer, count: count)
            if session == nil {
                bytesReceived &+= UInt64(count)
                deliver(bytes)
            } else {
                decrypt(bytes)
            }
        } else if count == 0 {
            isReadable = false
            receivedEnd()
        } else {
            receiveFailed(errno)
        }
    }

    func receiveFailed(_ code: Int32) {
        if code == EINTR { return }
        isReadable = false
        if code != EAGAIN {
            finish(Connection.cause(of: SystemError(code: code, operation: "recv")))
        } else if hasWriteFailed {
            finish(.reset)
        }
    }

    func receivedEnd() {
        hasPeerFinished = true
        if hasWriteFailed {
            finish(.reset)
        } else if let session {
            if phase == .handshaking {
                failHandshake(session.endedDuringHandshake())
            } else if !hasReadEnded && !isReadEndPending {
                finish(.truncated)
            }
        } else {
            endReading()
        }
    }

    func endReading() {
        guard !hasReadEnded, phase == .open else { return }
        if isReadingPaused {
            isReadEndPending = true
            return
        }
        isReadEndPending = false
        hasReadEnded = true
        delegate?.readEnded(self)
        finishIfBothEnded()
    }

    func finishIfBothEnded() {
        if phase == .open, hasReadEnded, hasFinished { finish(.peer) }
    }

    // MARK: Delivering

    /// Payload that is held by a shared buffer.
    func deliver(_ bytes: UnsafeRawBufferPointer) {
        guard retained.isEmpty, !isReadingPaused, let delegate else {
            retained.append(bytes)
            if !isReadingPaused { offerRetained() }
            return
        }
        let consumed = clamp(delegate.received(self, bytes), bytes.count)
        if consumed < bytes.count, !isClosed {
            retained.append(UnsafeRawBufferPointer(rebasing: bytes[consumed...]))
            if phase == .handshaking { offerRetained() }
        }
    }

    /// To the delegate, or to the TLS handshake that was started over them.
    private func offerRetained() {
        mustOfferRetained = false
        if phase == .handshaking {
            guard !retained.isEmpty else { return }
            var held = retained.take()
            decrypt(held.bytes)
            held.clear()
            return
        }
        guard phase == .open, !isReadingPaused, !retained.isEmpty, let delegate else { return }
        // Moved out, so that close() inside the call does not free what the delegate is looking at.
        var held = retained.take()
        held.consume(clamp(delegate.received(self, held.bytes), held.count))
        if isClosed || held.isEmpty {
            held.clear()
        } else {
            retained = held
            if phase == .handshaking { offerRetained() }
        }
    }

    private func clamp(_ consumed: Int, _ count: Int) -> Int {
        assert(consumed >= 0 && consumed <= count, "a delegate consumed \(consumed) of \(count) bytes")
        return min(max(consumed, 0), count)
    }
}
