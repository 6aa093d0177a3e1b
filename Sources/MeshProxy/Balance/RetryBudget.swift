/// How many retries a service's requests may cause: a fifth of the requests of the last ten seconds, and three a second
/// besides, so that a quiet service can still be retried. What it refuses is the amplification of an outage.
package struct RetryBudget: Sendable, Equatable {
    package static let windowSeconds = 10
    package static let retriesPerHundredRequests = 20
    package static let retriesPerSecond = 3

    private struct Second: Sendable, Equatable {
        var number: Int64 = -1
        var requests = 0
        var retries = 0
    }

    private var seconds: [Second]
    private var current = 0
    /// Sums over all seconds but the current one that are still within the window, kept so that a request costs one add.
    private var pastRequests = 0
    private var pastRetries = 0

    package init() {
        seconds = Array(repeating: Second(), count: RetryBudget.windowSeconds)
    }

    /// Counts a request's first try.
    @inline(__always)
    package mutating func countRequest(now nanoseconds: Int64) {
        advance(to: nanoseconds)
        seconds[current].requests &+= 1
    }

    /// Takes one retry out of the budget; false when none is left.
    package mutating func withdraw(now nanoseconds: Int64) -> Bool {
        advance(to: nanoseconds)
        let requests = pastRequests &+ seconds[current].requests
        let retries = pastRetries &+ seconds[current].retries
        let allowed =
            requests / 100 * RetryBudget.retriesPerHundredRequests
            + requests % 100 * RetryBudget.retriesPerHundredRequests / 100
            + RetryBudget.retriesPerSecond * RetryBudget.windowSeconds
        guard retries < allowed else { return false }
        seconds[current].retries &+= 1
        return true
    }

    @inline(__always)
    private mutating func advance(to nanoseconds: Int64) {
        let number = nanoseconds / 1_000_000_000
        if seconds[current].number >= number { return }
        move(to: number)
    }

    private mutating func move(to number: Int64) {
        current = Int(number % Int64(RetryBudget.windowSeconds))
        if current < 0 { current += RetryBudget.windowSeconds }
        seconds[current] = Second(number: number)
        pastRequests = 0
        pastRetries = 0
        for index in seconds.indices where index != current {
            guard number - seconds[index].number < Int64(RetryBudget.windowSeconds) else { continue }
            pastRequests &+= seconds[index].requests
            pastRetries &+= seconds[index].retries
        }
    }
}
