/// What happens on a connection, told on its loop.
///
/// Every call comes from the loop itself, never from inside a call into a connection, but one: `received` may be followed
/// by further calls only after it has returned. So a delegate may write to, pause, close or exchange the delegate of any
/// connection from any of these, this one included. After `close()` or `abort()` only `closed` follows.
package protocol ConnectionDelegate: AnyObject {
    /// Outgoing: connected, and the TLS handshake done if there is one. Incoming: only after `startTLS`, when the handshake
    /// is done. The peer's identity can be read from here on.
    ///
    /// In TLS 1.3 a client is done before the server has looked at its certificate: a server's refusal arrives later, as
    /// `closed(.tls(…))` with `alertReceived`.
    func opened(_ connection: Connection)

    /// Bytes from the peer, in plaintext; valid during the call only. Returns how many were consumed: the rest stays with the
    /// connection and is given again in front of what follows, when more has come or after `deliverRetained()`. While
    /// `retainedLimit` or more bytes are unconsumed nothing is read.
    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int

    /// The peer will send no more: FIN, or close_notify under TLS. Writing goes on until `finishWriting()` or `close()`.
    func readEnded(_ connection: Connection)

    /// `unsentBytes` has fallen to `lowWater` or less after it had been above `highWater`.
    func drained(_ connection: Connection)

    /// Exactly once and last.
    func closed(_ connection: Connection, _ cause: CloseCause)
}
