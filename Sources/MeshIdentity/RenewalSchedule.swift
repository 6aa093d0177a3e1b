package import MeshCore

/// When a certificate is renewed: at half its life, give or take a tenth of it, so that sidecars which started together
/// do not ask together; and again with growing pauses after a failure, as long as it takes.
///
/// Decisions use the wall clock, because a certificate's end does: the owner wakes at least every 60 s and asks again,
/// so that a clock that jumps, or a machine that slept, delays a renewal by a minute at most.
package struct RenewalSchedule: Sendable, Hashable {
    package enum Decision: Sendable, Hashable {
        case renewNow
        /// Ask again after this many milliseconds (60,000 at most).
        case wait(milliseconds: Int)
    }

    package static let longestWaitMilliseconds = 60_000
    package static let shortestRetryMilliseconds: Int64 = 1000
    package static let longestRetryMilliseconds: Int64 = 300_000

    private var notBefore: Timestamp
    private var notAfter: Timestamp
    private var renewAt: Timestamp
    private var failures = 0
    private var retryAt: Timestamp?

    /// - Parameter random: from 0 to 1; where in the jitter's range this certificate's renewal falls.
    package init(notBefore: Timestamp, notAfter: Timestamp, random: Double) {
        self.notBefore = notBefore
        self.notAfter = notAfter
        let life = max(0, notAfter.milliseconds(since: notBefore))
        let fraction = 0.5 + (min(max(random, 0), 1) - 0.5) * 0.2
        self.renewAt = notBefore.advanced(byMilliseconds: Int64(Double(life) * fraction))
    }

    package var isRetrying: Bool { failures > 0 }

    /// A certificate is of no use any more.
    package func isExpired(at now: Timestamp) -> Bool { now >= notAfter }

    package func decide(now: Timestamp) -> Decision {
        // A clock set back to before the certificate began makes its whole schedule meaningless: a new one is asked
        // for, and the pause after a failure is kept only as long as the clock shows it to be one.
        let due = now < notBefore ? now : renewAt
        guard now >= due else { return wait(until: due, now: now) }
        if let retryAt, retryAt > now, retryAt.milliseconds(since: now) <= Self.longestRetryMilliseconds * 2 {
            return wait(until: retryAt, now: now)
        }
        return .renewNow
    }

    /// A renewal failed: the next try comes after 1 s, 2 s, 4 s … 300 s, each between half and all of that, but never
    /// later than a tenth of the life that is left.
    package mutating func failed(now: Timestamp, random: Double) {
        failures += 1
        let doubled = Self.shortestRetryMilliseconds << Int64(min(failures - 1, 20))
        let pause = min(doubled, Self.longestRetryMilliseconds)
        let left = notAfter.milliseconds(since: now)
        let bound = left > 0 ? max(Self.shortestRetryMilliseconds, left / 10) : Self.longestRetryMilliseconds
        let jittered = Double(min(pause, bound)) * (0.5 + 0.5 * min(max(random, 0), 1))
        retryAt = now.advanced(byMilliseconds: Int64(jittered))
    }

    private func wait(until moment: Timestamp, now: Timestamp) -> Decision {
        let milliseconds = moment.milliseconds(since: now)
        return .wait(milliseconds: Int(min(max(milliseconds, 1), Int64(Self.longestWaitMilliseconds))))
    }
}
