internal import CApus
internal import Glibc

extension Connection {
    // MARK: For the owner

    /// Sends now what the socket takes and keeps the rest; never blocks. What is written before `opened` is kept until then,
    /// what is written after `finishWriting()` or `close()` is dropped.
    package func write(_ bytes: UnsafeRawBufferPointer) {
        assert(loop.isCurrent, "called on another thread")
        guard let start = bytes.baseAddress, bytes.count > 0, mayWrite else { return }
        bytesSent &+= UInt64(bytes.count)
        if phase != .open || isHoldingWrites {
            early.append(start, bytes.count)
            noteUnsent()
        } else if let session {
            encrypt(session, start, bytes.count)
        } else {
            transmit(start, bytes.count)
        }
    }

    /// The two pieces as one: one system call, and one TLS record where they fit.
    package func write(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) {
        assert(loop.isCurrent, "called on another thread")
        guard let firstStart = first.baseAddress, first.count > 0, mayWrite else { return write(second) }
        guard let secondStart = second.baseAddress, second.count > 0 else { return write(first) }
        if phase != .open || isHoldingWrites || !unsent.isEmpty && session == nil {
            write(first)
            write(second)
        } else if let session {
            bytesSent &+= UInt64(first.count) &+ UInt64(second.count)
            encrypt(session, firstStart, first.count, secondStart, second.count)
        } else {
            bytesSent &+= UInt64(first.count) &+ UInt64(second.count)
            transmit(firstStart, first.count, secondStart, second.count)
        }
    }

    /// Written and not taken by the socket; under TLS counted as ciphertext.
    package var unsentBytes: Int { unsent.count + early.count }

    /// FIN, with close_notify first under TLS, once everything is sent. Reading goes on; when the peer has finished too the
    /// connection closes with `.peer`.
    package func finishWriting() {
        assert(loop.isCurrent, "called on another thread")
        guard mayWrite else { return }
        isFinishRequested = true
        if phase == .open, !isHoldingWrites { finishIfSent() }
    }

    private var mayWrite: Bool {
        !isFinishRequested && !hasWriteFailed && phase != .lingering && phase != .closed
    }

    // MARK: Sending

    /// Bytes for the wire.
    func transmit(_ start: UnsafeRawPointer, _ count: Int) {
        if hasWriteFailed { return }
        var sent = 0
        if unsent.isEmpty {
            sent = apus_send(descriptor, start, count)
            if sent == count { return }
            if sent < 0 {
                guard mayRetry(errno) else { return failWriting() }
                sent = 0
            }
        }
        unsent.append(start + sent, count - sent)
        noteUnsent()
    }

    private func transmit(
        _ first: UnsafeRawPointer, _ firstCount: Int, _ second: UnsafeRawPointer, _ secondCount: Int
    ) {
        var sent = apus_send_two(descriptor, first, firstCount, second, secondCount)
        if sent == firstCount + secondCount { return }
        if sent < 0 {
            guard mayRetry(errno) else { return failWriting() }
            sent = 0
        }
        if sent < firstCount { unsent.append(first + sent, firstCount - sent) }
        let fromSecond = max(sent - firstCount, 0)
        unsent.append(second + fromSecond, secondCount - fromSecond)
        noteUnsent()
    }

    /// The socket is full (or the kernel short of memory for it), so that a writable event follows.
    func mayRetry(_ code: Int32) -> Bool {
        code == EAGAIN || code == EINTR || code == ENOBUFS
    }

    /// The peer may have sent something before it stopped taking what we send, an early response for instance: that is
    /// delivered before the connection closes.
    func failWriting() {
        hasWriteFailed = true
        unsent.clear()
        early.clear()
        if phase == .lingering {
            endLingering()
        } else if isReadingPaused || hasReadEnded {
            finish(.reset)
        } else {
            isReadable = true
            mustReadToEnd = true
            attendLater()
        }
    }

    private func noteUnsent() {
        let waiting = unsentBytes
        if waiting > unsentLimit {
            loop.counts.unsentLimitReached += 1
            finish(.bufferLimit)
        } else if waiting > highWater {
            isAboveHighWater = true
        }
    }

    func becameWritable() {
        if !unsent.isEmpty { sendUnsent() }
        if let source = forwardingSource, source.isForwardingBlocked, unsent.isEmpty { source.attendLater() }
    }

    func sendUnsent() {
        while !unsent.isEmpty {
            let bytes = unsent.bytes
            guard let start = bytes.baseAddress else { return }
            let sent = apus_send(descriptor, start, bytes.count)
            if sent < 0 {
                let code = errno
                if code == EINTR { continue }
                if !mayRetry(code) { return failWriting() }
                break
            }
            unsent.consume(sent)
            if sent < bytes.count { break }
        }
        if phase == .open { sentSome() }
    }

    private func sentSome() {
        if isAboveHighWater, unsentBytes <= lowWater {
            isAboveHighWater = false
            delegate?.drained(self)
        }
        if isFinishRequested, phase == .open { finishIfSent() }
    }

    /// What was written before the connection stood.
    func sendEarly() {
        guard phase == .open, !early.isEmpty else { return }
        var held = early.take()
        let bytes = held.bytes
        if let start = bytes.baseAddress {
            if let session {
                encrypt(session, start, bytes.count)
            } else {
                transmit(start, bytes.count)
            }
        }
        held.clear()
        if phase == .open, !hasWriteFailed { sentSome() }
    }

    func finishIfSent() {
        guard !hasFinished else { return }
        if let session { sendCloseNotify(session) }
        guard phase == .open, unsent.isEmpty, !hasWriteFailed else { return }
        hasFinished = true
        shutdown(descriptor, Int32(SHUT_WR))
        finishIfBothEnded()
    }
}
