#if canImport(Glibc)
    import Glibc
#endif

/// What one endpoint's recent answers say about it, seen from one loop.
package struct EndpointHealth: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        case healthy
        /// Gets no request before this time (monotonic nanoseconds).
        case ejected(until: Int64)
        /// Its ejection is over: it gets one real request, whose outcome decides.
        case probing(inFlight: Bool)
    }

    package enum Cause: String, Sendable, Equatable {
        case consecutiveFailures = "consecutive failures"
        case successRate = "success rate below its peers'"
        case probeFailed = "probe failed"
    }

    package internal(set) var state = State.healthy
    package internal(set) var consecutiveFailures = 0
    /// How often it was ejected lately: the length of the next ejection. Healthy time pays it back.
    package internal(set) var ejections = 0
    package internal(set) var lastCause: Cause?
    /// When the ejection in force began.
    package internal(set) var ejectedAt: Int64 = 0
    /// The current interval's answers, for the success-rate rule.
    package internal(set) var successes = 0
    package internal(set) var failures = 0

    package init() {}

    package var isEjected: Bool {
        switch state {
        case .healthy: false
        case .ejected, .probing: true
        }
    }
}

/// The rules of ejection. Each function takes a state, an event and the time, and changes nothing else.
package enum OutlierDetector {
    package static let consecutiveFailureLimit = 5
    package static let baseEjectionNanoseconds: Int64 = 30_000_000_000
    package static let maximumEjectionNanoseconds: Int64 = 300_000_000_000
    /// Ejecting more than this share would send everything to the few that are left, so nobody more is ejected.
    package static let maximumEjectedPercent = 50
    package static let intervalNanoseconds: Int64 = 10_000_000_000
    /// Fewer answers than this in an interval say nothing about a rate.
    package static let minimumAnswers = 10
    /// An endpoint is an outlier when its rate is this far below its peers' and beyond what chance explains.
    package static let minimumRateGap = 0.10
    package static let deviations = 3.0

    package enum Verdict: Sendable, Equatable {
        case unchanged
        /// It may be used again, or its set must be rebuilt: the state has changed.
        case ejected(EndpointHealth.Cause)
        case readmitted
    }

    /// How many of `count` endpoints may be out at once.
    package static func ejectionLimit(count: Int) -> Int { count * maximumEjectedPercent / 100 }

    package static func succeeded(_ health: inout EndpointHealth) -> Verdict {
        health.successes &+= 1
        health.consecutiveFailures = 0
        guard case .probing = health.state else { return .unchanged }
        health.state = .healthy
        health.successes = 0
        health.failures = 0
        return .readmitted
    }

    /// `othersEjected` and `count` are the numbers of its service port: they set the limit.
    package static func failed(
        _ health: inout EndpointHealth, othersEjected: Int, count: Int, now: Int64
    ) -> Verdict {
        health.failures &+= 1
        health.consecutiveFailures &+= 1
        switch health.state {
        case .probing:
            return eject(&health, cause: .probeFailed, now: now)
        case .ejected:
            return .unchanged
        case .healthy:
            guard health.consecutiveFailures >= consecutiveFailureLimit, othersEjected < ejectionLimit(count: count)
            else { return .unchanged }
            return eject(&health, cause: .consecutiveFailures, now: now)
        }
    }

    /// A request that was to be the probe ended without saying anything (its client went away): the next one probes.
    package static func abandoned(_ health: inout EndpointHealth) {
        if case .probing(inFlight: true) = health.state { health.state = .probing(inFlight: false) }
    }

    /// Whether a request may go there now. The first that may, after an ejection has run out, is the probe.
    package static func admits(_ health: inout EndpointHealth, now: Int64) -> Bool {
        switch health.state {
        case .healthy:
            return true
        case .ejected(let until):
            guard now >= until else { return false }
            health.state = .probing(inFlight: true)
            return true
        case .probing(let inFlight):
            guard !inFlight else { return false }
            health.state = .probing(inFlight: true)
            return true
        }
    }

    /// Judges the interval that ends now and starts the next. Returns the indices that are ejected by it.
    ///
    /// Each endpoint is held against the pooled rate of all others: with two replicas that still says something, where a
    /// standard deviation over endpoints does not.
    package static func endInterval(_ healths: inout [EndpointHealth], now: Int64) -> [Int] {
        let successes = healths.reduce(0) { $0 + $1.successes }
        let answers = healths.reduce(0) { $0 + $1.successes + $1.failures }
        var ejected = healths.count { $0.isEjected }
        let limit = ejectionLimit(count: healths.count)
        var outliers: [(index: Int, rate: Double)] = []
        for index in healths.indices where !healths[index].isEjected {
            let own = healths[index].successes + healths[index].failures
            let others = answers - own
            guard own >= minimumAnswers, others >= minimumAnswers else { continue }
            let rate = Double(healths[index].successes) / Double(own)
            let expected = Double(successes - healths[index].successes) / Double(others)
            // One success and one failure are added, so that a spotless record does not make any failure significant.
            let smoothed = (Double(successes - healths[index].successes) + 1) / Double(others + 2)
            let deviation = (smoothed * (1 - smoothed) / Double(own)).squareRoot()
            if expected - rate > max(minimumRateGap, deviations * deviation) { outliers.append((index, rate)) }
        }
        outliers.sort { $0.rate < $1.rate }
        var result: [Int] = []
        for outlier in outliers where ejected < limit {
            _ = eject(&healths[outlier.index], cause: .successRate, now: now)
            ejected += 1
            result.append(outlier.index)
        }
        for index in healths.indices {
            if !healths[index].isEjected, healths[index].failures == 0, healths[index].successes > 0 {
                healths[index].ejections = max(0, healths[index].ejections - 1)
            }
            healths[index].successes = 0
            healths[index].failures = 0
        }
        return result
    }

    private static func eject(_ health: inout EndpointHealth, cause: EndpointHealth.Cause, now: Int64) -> Verdict {
        health.ejections = min(health.ejections + 1, 64)
        let length = min(baseEjectionNanoseconds * Int64(health.ejections), maximumEjectionNanoseconds)
        health.state = .ejected(until: now &+ length)
        health.lastCause = cause
        health.ejectedAt = now
        health.consecutiveFailures = 0
        return .ejected(cause)
    }
}
