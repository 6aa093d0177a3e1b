/// How long to wait before trying again: doubling from the first wait to the longest, each wait between half of that
/// and all of it by chance, so that many clients of a server that comes back do not arrive together.
package struct Backoff: Sendable {
    package var firstMilliseconds: Int
    package var longestMilliseconds: Int
    package private(set) var failures = 0

    package init(firstMilliseconds: Int = 200, longestMilliseconds: Int = 30_000) {
        self.firstMilliseconds = max(1, firstMilliseconds)
        self.longestMilliseconds = max(self.firstMilliseconds, longestMilliseconds)
    }

    /// - Parameter random: from 0 up to 1.
    package mutating func nextMilliseconds(random: Double) -> Int {
        let doublings = min(failures, 30)
        failures = min(failures + 1, 1_000_000)
        let (product, overflow) = firstMilliseconds.multipliedReportingOverflow(by: 1 << doublings)
        let whole = overflow ? longestMilliseconds : min(product, longestMilliseconds)
        let chance = min(max(random, 0), 1)
        return max(1, whole / 2 + Int(Double(whole - whole / 2) * chance))
    }

    package mutating func reset() { failures = 0 }
}
