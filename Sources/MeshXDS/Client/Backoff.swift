/// Waits between attempts: doubled each time from 50 ms to 5 s, each cut by up to half at random so that a thousand
/// sidecars do not come back at once.
package struct Backoff {
    package static let firstMilliseconds = 50
    package static let lastMilliseconds = 5000

    private var nextMilliseconds = Backoff.firstMilliseconds
    private var random: UInt64

    package init(seed: UInt64) {
        // Zero is the one state that xorshift never leaves.
        random = seed == 0 ? 0x9e37_79b9_7f4a_7c15 : seed
    }

    package mutating func delayMilliseconds() -> Int {
        let base = nextMilliseconds
        nextMilliseconds = min(base * 2, Backoff.lastMilliseconds)
        return base - below(base / 2 + 1)
    }

    package mutating func reset() {
        nextMilliseconds = Backoff.firstMilliseconds
    }

    /// A random number from 0 to `bound` − 1.
    package mutating func below(_ bound: Int) -> Int {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return Int(random % UInt64(max(bound, 1)))
    }
}
