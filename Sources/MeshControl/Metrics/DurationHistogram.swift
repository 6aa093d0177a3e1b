/// Durations in microseconds, in buckets from 100 µs to 10 s.
package struct DurationHistogram: Sendable, Hashable {
    package static let bounds: [UInt64] = [
        100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
        5_000_000,
        10_000_000,
    ]

    /// One more than bounds: the last is for what is longer.
    package private(set) var counts = [UInt64](repeating: 0, count: bounds.count + 1)
    package private(set) var sum: UInt64 = 0

    package init() {}

    package mutating func record(microseconds: UInt64) {
        counts[Self.bounds.firstIndex { microseconds <= $0 } ?? Self.bounds.count] &+= 1
        sum &+= microseconds
    }

    package var count: UInt64 { counts.reduce(0, &+) }
}
