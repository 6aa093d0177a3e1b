#if canImport(Glibc)
    import Glibc
#endif

/// An endpoint's response time as its callers feel it: an average that decays with time and jumps to a peak at once, so that
/// a slow answer counts immediately and is forgiven slowly ("Finagle's peak EWMA").
///
/// Time alone forgives too slowly where little is under way: one peak, such as the first answer of a cold replica, would keep
/// every request away for half a minute, because nothing but the average tells idle endpoints apart. So each request that goes
/// to a peer instead forgives a little, too (`passOver`).
package struct PeakEWMA: Sendable, Equatable {
    /// After this long without an observation, a peak weighs 1/e.
    package static let decayNanoseconds: Double = 10e9
    /// What an endpoint that has never answered is taken for: low enough to be tried soon, high enough not to draw every
    /// request at once.
    package static let initialNanoseconds: Double = 1e6

    /// What an endpoint that was passed over keeps of its average. An endpoint whose answers are ten times as slow as its peers' is tried
    /// again after 57 lost comparisons, one that had a peak of fifty times theirs after 96.
    package static let passOverShare = 0.96

    private var averageNanoseconds: Double
    private var updatedNanoseconds: Int64

    package init(now: Int64) {
        averageNanoseconds = PeakEWMA.initialNanoseconds
        updatedNanoseconds = now
    }

    /// Takes in one response time. `now` may not run backwards; if it does, the observation replaces nothing older.
    package mutating func observe(nanoseconds: Int64, now: Int64) {
        let value = Double(max(0, nanoseconds))
        if value >= averageNanoseconds {
            averageNanoseconds = value
        } else {
            let elapsed = Double(max(0, now &- updatedNanoseconds))
            let weight = exp(-elapsed / PeakEWMA.decayNanoseconds)
            averageNanoseconds = averageNanoseconds * weight + value * (1 - weight)
        }
        updatedNanoseconds = max(updatedNanoseconds, now)
    }

    /// Takes in the response time of a failed answer: it may show the endpoint slower, never faster, or an endpoint that fails fast would
    /// draw its peers' requests.
    package mutating func observeFailure(nanoseconds: Int64, now: Int64) {
        observe(nanoseconds: max(nanoseconds, Int64(averageNanoseconds)), now: now)
    }

    /// A request went to `winner` instead. That brings the two closer and never beyond each other: an endpoint that nobody asks is at best as
    /// good as the one that was asked.
    @inline(__always)
    package mutating func passOver(for winner: PeakEWMA) {
        guard averageNanoseconds > winner.averageNanoseconds else { return }
        averageNanoseconds = max(averageNanoseconds * PeakEWMA.passOverShare, winner.averageNanoseconds)
    }

    /// What one more request would cost there: response time × (pending + 1). An idle endpoint's peak decays while nobody
    /// asks it, so that one bad answer does not shut it out for good.
    package func load(pending: Int, now: Int64) -> Double {
        let elapsed = Double(max(0, now &- updatedNanoseconds))
        let response =
            elapsed < 1e9 ? averageNanoseconds : averageNanoseconds * exp(-elapsed / PeakEWMA.decayNanoseconds)
        return response * Double(pending + 1)
    }

    /// The average itself, for the configuration dump.
    package var nanoseconds: Double { averageNanoseconds }
}
