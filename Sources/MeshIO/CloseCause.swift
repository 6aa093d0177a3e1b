/// Why a connection ended.
package enum CloseCause: Equatable, Sendable {
    /// The owner called `close()` or `abort()`, or the loop ended.
    case local
    /// Both sides had finished.
    case peer
    /// The peer reset the connection, or no longer took what was written.
    case reset
    /// The peer's stream ended without the close_notify that TLS demands: what came last may be missing.
    case truncated
    case connectFailed(SystemError)
    case connectTimeout
    case handshakeTimeout
    case tls(TLSFailure)
    /// More was written than `Connection.unsentLimit` allows to wait.
    case bufferLimit
    case error(SystemError)
}
