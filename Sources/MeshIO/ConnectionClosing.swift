internal import CApus
internal import Glibc

extension Connection {
    /// Ends the connection: `closed(.local)` follows and nothing else. In the background, for up to a second, what is unsent
    /// is sent, then FIN, and what the peer still sends is discarded until it finishes too: a reset in answer to it might
    /// cost the peer our last bytes (RFC 9112 §9.6). What was written before `opened` is dropped.
    package func close() {
        assert(loop.isCurrent, "called on another thread")
        guard !isClosed else { return }
        if phase == .open {
            sendEarly()
            if let session, !isClosed { sendCloseNotify(session) }
        }
        if isClosed { return }
        if phase == .open, !hasWriteFailed, !unsent.isEmpty || !hasReadEnded {
            lingerThenRelease()
        } else {
            finish(.local)
        }
    }

    /// Ends the connection with a reset; what is unsent is dropped. `closed(.local)` follows and nothing else.
    package func abort() {
        assert(loop.isCurrent, "called on another thread")
        if phase == .lingering {
            endLingering()
        } else {
            if descriptor >= 0 { apus_reset_on_close(descriptor) }
            finish(.local)
        }
    }

    /// Gives up the descriptor now and has `closed` told from the loop.
    func finish(_ cause: CloseCause) {
        guard !isClosed else { return }
        if cause == .reset, session == nil { finalTransmission = transmission }
        phase = .closed
        release()
        pendingCause = cause
        attendLater()
    }

    func failHandshake(_ failure: TLSFailure) {
        guard !isClosed else { return }
        loop.counts.failedHandshakes += 1
        // The alert is on its way, and a reset over unread bytes would overtake it.
        lingerThenRelease(.tls(failure))
    }

    func deliverClosed(_ cause: CloseCause) {
        let told = delegate
        delegate = nil
        told?.closed(self, cause)
        session = nil
        if phase == .lingering { linger() }
    }

    private func release() {
        deadline?.cancel()
        deadline = nil
        unsent.clear()
        early.clear()
        retained.clear()
        endForwarding()
        guard descriptor >= 0 else { return }
        if isWatched { loop.unwatch(self, descriptor) }
        Glibc.close(descriptor)
        descriptor = -1
    }

    // MARK: Lingering

    private func lingerThenRelease(_ cause: CloseCause = .local) {
        guard loop.counts.lingeringConnections < Connection.lingeringLimit, !loop.isEnding else {
            loop.counts.lingeringLimitReached += 1
            return finish(cause)
        }
        loop.counts.lingeringConnections += 1
        phase = .lingering
        early.clear()
        retained.clear()
        endForwarding()
        isReadable = true
        pendingCause = cause
        arm(afterMilliseconds: Connection.lingerMilliseconds)
        attendLater()
    }

    /// Sends what is left, then FIN, then discards what the peer still sends until it finishes too.
    func linger() {
        if !unsent.isEmpty { sendUnsent() }
        guard phase == .lingering, unsent.isEmpty else { return }
        if !hasFinished {
            hasFinished = true
            shutdown(descriptor, Int32(SHUT_WR))
        }
        if hasReadEnded { return endLingering() }
        while isReadable {
            let count = apus_receive(descriptor, loop.readBuffer, EventLoop.bufferSize)
            if count < 0, errno == EINTR { continue }
            if count < 0, errno == EAGAIN {
                isReadable = false
            } else if count <= 0 {
                return endLingering()
            } else {
                return attendLater()
            }
        }
    }

    func endLingering() {
        guard phase == .lingering else { return }
        loop.counts.lingeringConnections -= 1
        phase = .closed
        release()
    }
}
