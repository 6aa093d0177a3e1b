/// What one HTTP/2 connection may hold and how long it may take.
package struct HTTP2Limits: Sendable {
    /// Streams that the peer may have open (SETTINGS_MAX_CONCURRENT_STREAMS).
    package var concurrentStreams = 100
    /// Names, values and 32 bytes a field, of one header block (SETTINGS_MAX_HEADER_LIST_SIZE). A longer one resets its
    /// stream; a block four times as long ends the connection.
    package var headerListBytes = 64 * 1024
    /// Unconsumed body bytes of one stream (SETTINGS_INITIAL_WINDOW_SIZE).
    package var streamWindowBytes = 256 * 1024
    /// Unconsumed body bytes of all streams together, as far as `heldBytes` does not say otherwise.
    package var connectionWindowBytes = 1024 * 1024
    /// So many unconsumed bytes of all streams together do not count against the connection's window: it is given back as
    /// they arrive, so that a few streams whose readers are slow do not stop the others. 0 gives it back with the stream's.
    package var heldBytes = 0
    /// A stream counts as writable while it holds fewer unsent bytes.
    package var streamHighWaterBytes = 64 * 1024
    /// Until the peer's first SETTINGS frame.
    package var settingsTimeoutMilliseconds = 10_000
    /// Of silence, after which a PING asks whether the peer is there; 0 never asks.
    package var pingIntervalMilliseconds = 15_000
    /// Until the peer's answer to it.
    package var pingTimeoutMilliseconds = 10_000
    /// A server closes a connection that had no stream for so long; 0 never does.
    package var idleTimeoutMilliseconds = 0
    /// What was written to a stream and has not begun to leave for so long ends it: its peer gives it no window. 0 waits for
    /// ever.
    package var stallTimeoutMilliseconds = 0
    /// Frames that wait for a peer that does not read: heads, resets and acknowledgements, since bodies do not queue there.
    package var queuedFrames = 10_000
    /// Frames that carry nothing (resets, settings, priorities, small continuations, empty data): so many at once, then so many
    /// a second. A stream that ends allows one more, unless its client gave it up at once and without an answer. A peer beyond
    /// them is told ENHANCE_YOUR_CALM and disconnected (CVE-2023-44487, CVE-2024-27316 and their kin).
    package var idleFrameBurst = 1000
    package var idleFramesPerSecond = 100
    /// The same for PING, of which an honest peer may send one a round trip to measure the path.
    package var pingBurst = 10_000
    package var pingsPerSecond = 5_000
    /// The same for WINDOW_UPDATE; each DATA frame sent to the peer allows two more.
    package var windowUpdateBurst = 10_000
    package var windowUpdatesPerSecond = 1_000

    package init() {}
}

/// Counts frames of one kind against a burst and a rate: a token bucket.
package struct FloodGuard {
    private let burst: Int64
    private let perSecond: Int64
    private var milliTokens: Int64
    private var lastNanoseconds: Int64

    package init(burst: Int, perSecond: Int, nowNanoseconds: Int64) {
        self.burst = Int64(burst)
        self.perSecond = Int64(perSecond)
        milliTokens = self.burst * 1000
        lastNanoseconds = nowNanoseconds
    }

    /// False when this frame is one too many.
    package mutating func admit(nowNanoseconds: Int64) -> Bool {
        let elapsedMilliseconds = min(max(0, nowNanoseconds - lastNanoseconds) / 1_000_000, 3_600_000)
        if elapsedMilliseconds > 0 {
            milliTokens = min(burst * 1000, milliTokens + elapsedMilliseconds * perSecond)
            lastNanoseconds = nowNanoseconds
        }
        guard milliTokens >= 1000 else { return false }
        milliTokens -= 1000
        return true
    }

    /// Allows so many more, up to the burst.
    @inline(__always)
    mutating func refund(_ count: Int64) {
        milliTokens = min(burst * 1000, milliTokens + count * 1000)
    }
}
