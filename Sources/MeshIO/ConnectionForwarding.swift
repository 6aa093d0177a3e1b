internal import CApus
internal import Glibc

/// The way of received bytes into another connection without passing through this process (splice(2)).
struct Forwarding {
    let target: Connection
    /// Held only while bytes are in it.
    var pipe: KernelPipe?
    /// The target takes no more for now.
    var isBlocked = false
}

extension Connection {
    /// From now on what this connection receives goes to `target` inside the kernel, and `received` is called for nothing but
    /// what was retained before. Each side's slowness slows the other. `readEnded` follows once the last byte has reached
    /// the target; `bytesReceived` and the target's `bytesSent` go on counting. Nobody else writes to the target.
    ///
    /// - Returns: false, and nothing changes, when it cannot be: one of them is TLS, not open or forwarding already, or they
    ///   are on different loops.
    package func forward(into target: Connection) -> Bool {
        assert(loop.isCurrent, "called on another thread")
        guard phase == .open, session == nil, forwarding == nil, target.phase == .open, target.session == nil,
            target.forwardingSource == nil, target !== self, target.loop === loop
        else { return false }
        forwarding = Forwarding(target: target)
        target.forwardingSource = self
        if isReadable { attendLater() }
        return true
    }

    var isForwardingBlocked: Bool { forwarding?.isBlocked ?? false }

    /// Moves what one turn moves: a pipe full, or where there is no pipe a buffer full.
    func forwardOnce(_ target: Connection) {
        guard target.takesForwarded else {
            forwarding?.isBlocked = true
            return
        }
        guard let pipe = loop.pipes.take() else { return copyOnce(target) }
        let moved = apus_splice(descriptor, pipe.writer, Int(PipePool.capacity))
        if moved > 0 {
            bytesReceived &+= UInt64(moved)
            forwarding?.pipe = KernelPipe(reader: pipe.reader, writer: pipe.writer, count: moved)
            emptyPipe()
            return
        }
        let code = errno
        loop.pipes.giveBack(pipe)
        if moved == 0 {
            isReadable = false
            receivedEnd()
        } else {
            receiveFailed(code)
        }
    }

    private func copyOnce(_ target: Connection) {
        let count = apus_receive(descriptor, loop.readBuffer, EventLoop.bufferSize)
        if count > 0 {
            bytesReceived &+= UInt64(count)
            target.write(UnsafeRawBufferPointer(start: loop.readBuffer, count: count))
        } else if count == 0 {
            isReadable = false
            receivedEnd()
        } else {
            receiveFailed(errno)
        }
    }

    private var takesForwarded: Bool { phase == .open && unsent.isEmpty && !isFinishRequested && !hasWriteFailed }

    /// After the target has become writable again.
    func goOnForwarding() {
        guard let target = forwarding?.target, target.takesForwarded else { return }
        forwarding?.isBlocked = false
        emptyPipe()
    }

    private func emptyPipe() {
        guard let target = forwarding?.target, var pipe = forwarding?.pipe else { return }
        while pipe.count > 0 {
            let moved = apus_splice(pipe.reader, target.descriptor, pipe.count)
            if moved > 0 {
                pipe.count -= moved
                target.bytesSent &+= UInt64(moved)
                continue
            }
            let code = errno
            if code == EINTR { continue }
            forwarding?.pipe = pipe
            forwarding?.isBlocked = true
            if !target.mayRetry(code) { target.failWriting() }
            return
        }
        forwarding?.pipe = nil
        loop.pipes.giveBack(pipe)
    }

    /// What both sides do when one of them gives up its descriptor.
    func endForwarding() {
        if let pipe = forwarding?.pipe { loop.pipes.giveBack(pipe) }
        forwarding?.target.forwardingSource = nil
        forwarding = nil
        guard let source = forwardingSource else { return }
        forwardingSource = nil
        // It reads nothing more: its owner, told of this end, decides what becomes of it.
        if let pipe = source.forwarding?.pipe { loop.pipes.giveBack(pipe) }
        source.forwarding?.pipe = nil
        source.forwarding?.isBlocked = true
    }
}
