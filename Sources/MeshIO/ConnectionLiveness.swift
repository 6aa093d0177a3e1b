internal import Glibc

extension Connection {
    /// Has the kernel notice a peer that is gone without a word, its machine or its network with it: the connection then ends
    /// with `.error` (ETIMEDOUT), or `.reset`.
    ///
    /// - Parameters:
    ///   - idleSeconds: silence after which the peer's kernel is asked whether it is there (TCP keep-alive).
    ///   - intervalSeconds: between further questions.
    ///   - timeoutMilliseconds: how long bytes or questions may stay unacknowledged.
    package func detectLoss(idleSeconds: Int, intervalSeconds: Int, timeoutMilliseconds: Int) {
        assert(loop.isCurrent, "called on another thread")
        guard descriptor >= 0, !isClosed else { return }
        setOption(descriptor, Int32(IPPROTO_TCP), TCP_KEEPIDLE, Int32(clamping: idleSeconds))
        setOption(descriptor, Int32(IPPROTO_TCP), TCP_KEEPINTVL, Int32(clamping: intervalSeconds))
        setOption(descriptor, Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, Int32(clamping: timeoutMilliseconds))
        setOption(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1)
    }
}
