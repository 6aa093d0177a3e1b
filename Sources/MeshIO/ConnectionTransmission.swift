internal import CApus

/// What became of the bytes that a connection has sent, as far as TCP can tell.
struct Transmission {
    var transmitted: UInt64
    var acknowledged: UInt64
}

extension Connection {
    /// Whether what was written after the first `count` bytes of payload has provably not reached the peer's application: it never left
    /// this machine, or the peer had finished the connection before any of it arrived.
    ///
    /// A peer's FIN acknowledges all that its kernel had taken before, so what is still unacknowledged then came too late. A reset
    /// proves nothing of the kind. Always false under TLS. To be asked in `readEnded` or `closed`.
    package func hasLost(allAfter count: UInt64) -> Bool {
        guard session == nil, let seen = finalTransmission ?? transmission else { return false }
        return seen.transmitted <= count || hasPeerFinished && seen.acknowledged <= count
    }

    /// Whether the peer has finished, though the loop may not have come to it yet. A system call; false under TLS.
    package var hasEndedUnread: Bool {
        session == nil && descriptor >= 0 && retained.isEmpty && apus_has_ended(descriptor) != 0
    }

    var transmission: Transmission? {
        guard descriptor >= 0 else { return nil }
        var seen = Transmission(transmitted: 0, acknowledged: 0)
        return apus_transmission(descriptor, &seen.transmitted, &seen.acknowledged) == 0 ? seen : nil
    }
}
