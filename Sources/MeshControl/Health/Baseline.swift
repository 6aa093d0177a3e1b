/// What is usual for a service: learnt once a minute, from minutes with enough requests to say anything.
package struct Baseline: Sendable, Hashable {
    static let leastRequests: UInt64 = 30
    static let weight = 0.2
    /// A minute that looks bad teaches little, so that a fault does not become what is usual while it lasts; but it
    /// teaches something, so that a service which has become slower for good is not called degraded for ever.
    static let badWeight = 0.02

    private(set) var learntSecond: Int64 = .min
    private var minutes = 0
    private var successRate = 0.0
    private var p99Milliseconds: Double?

    package init() {}

    /// Known from the second minute on.
    package var usual: Usual? {
        minutes >= 2 ? Usual(successRate: successRate, p99Milliseconds: p99Milliseconds) : nil
    }

    package mutating func learn(requests: UInt64, failures: UInt64, p99Milliseconds p99: Double?, second: Int64) {
        learntSecond = second
        guard requests >= Self.leastRequests else { return }
        let success = 1 - Double(min(failures, requests)) / Double(requests)
        guard minutes > 0 else {
            minutes = 1
            successRate = success
            p99Milliseconds = p99
            return
        }
        let weight =
            Usual(successRate: successRate, p99Milliseconds: p99Milliseconds)
                .isWorse(successRate: success, p99Milliseconds: p99) ? Self.badWeight : Self.weight
        minutes = min(minutes + 1, 1_000_000)
        successRate += (success - successRate) * weight
        if let p99 { p99Milliseconds = p99Milliseconds.map { $0 + (p99 - $0) * weight } ?? p99 }
    }
}

package struct Usual: Sendable, Hashable {
    package var successRate: Double
    package var p99Milliseconds: Double?

    package init(successRate: Double, p99Milliseconds: Double?) {
        self.successRate = successRate
        self.p99Milliseconds = p99Milliseconds
    }

    /// Twice the usual p99 and at least 50 ms more: below that, a slow request or two are noise.
    package func isSlow(_ p99: Double) -> Bool {
        guard let usual = p99Milliseconds else { return false }
        return p99 > usual * 2 && p99 - usual > 50
    }

    func isWorse(successRate success: Double, p99Milliseconds p99: Double?) -> Bool {
        success < successRate - 0.01 || p99.map(isSlow) ?? false
    }
}
