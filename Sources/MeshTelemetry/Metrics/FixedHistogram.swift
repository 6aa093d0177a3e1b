/// A histogram over the bounds that Envoy, and so Istio, has by default: for milliseconds and for bytes alike.
package struct FixedHistogram: Sendable {
    /// Upper bounds, inclusive; above the last is `+Inf`.
    package static let bounds: [Double] = [
        0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
        3_600_000,
    ]

    /// The bounds in thousandths, to compare integers.
    private static let thousandths: InlineArray<19, UInt64> = [
        500, 1000, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
        30_000_000,
        60_000_000, 300_000_000, 600_000_000, 1_800_000_000, 3_600_000_000,
    ]

    /// Of each bucket alone, not cumulated.
    private var counts = InlineArray<20, UInt64>(repeating: 0)
    package private(set) var count: UInt64 = 0
    private var sumThousandths: UInt64 = 0

    package init() {}

    /// A value in thousandths: microseconds for a histogram of milliseconds.
    @inline(__always)
    package mutating func record(thousandths value: UInt64) {
        var index = 0
        while index < 19, value > FixedHistogram.thousandths[index] { index &+= 1 }
        counts[index] &+= 1
        count &+= 1
        sumThousandths &+= value
    }

    package mutating func merge(_ other: FixedHistogram) {
        for index in 0..<20 { counts[index] &+= other.counts[index] }
        count &+= other.count
        sumThousandths &+= other.sumThousandths
    }

    package var sum: Double { Double(sumThousandths) / 1000 }

    /// How many values are at or below each bound, and last how many there are.
    var cumulated: [UInt64] {
        var total: UInt64 = 0
        return (0..<20).map { index in
            total &+= counts[index]
            return total
        }
    }
}
