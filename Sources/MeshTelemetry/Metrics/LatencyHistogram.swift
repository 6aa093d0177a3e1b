/// A histogram of durations that merges by adding: eight buckets for each power of two of microseconds, so that a bucket's
/// middle is within 6.25 % of every value in it.
///
/// Bucket 0 to 7 hold that many microseconds exactly; bucket `8 × (k − 2) + m` with `k` ≥ 3 holds
/// `2^(k−3) × (8 + m) ..< 2^(k−3) × (9 + m)`. The last bucket takes all from about 19 hours on.
package struct LatencyHistogram: Sendable, Equatable {
    package static let bucketCount = 272
    private static let largest: UInt64 = 1 << 36 - 1

    private var counts: [UInt32]
    package private(set) var count: UInt64 = 0
    /// Of all values, in microseconds.
    package private(set) var sumMicroseconds: UInt64 = 0

    package init() { counts = Array(repeating: 0, count: LatencyHistogram.bucketCount) }

    /// The bucket of a value.
    @inline(__always)
    package static func index(ofMicroseconds value: UInt64) -> Int {
        let value = min(value, largest)
        if value < 8 { return Int(truncatingIfNeeded: value) }
        let power = 63 &- value.leadingZeroBitCount
        return (power &- 2) &* 8 &+ Int(truncatingIfNeeded: (value >> UInt64(truncatingIfNeeded: power &- 3)) & 7)
    }

    /// The values of a bucket, in microseconds; those of the last for an index beyond it.
    package static func range(ofBucket index: Int) -> Range<UInt64> {
        let index = UInt64(min(max(index, 0), bucketCount - 1))
        if index < 8 { return index..<index + 1 }
        let shift = index / 8 - 1
        let low = (8 + index % 8) << shift
        return low..<low + 1 << shift
    }

    /// The middle of a bucket, in milliseconds: what a quantile that falls into it is reported as.
    package static func milliseconds(ofBucket index: Int) -> Double {
        let range = range(ofBucket: index)
        return (Double(range.lowerBound) + Double(range.upperBound - 1)) / 2000
    }

    @inline(__always)
    package mutating func record(nanoseconds: Int64) {
        let microseconds = UInt64(max(0, nanoseconds)) / 1000
        let index = LatencyHistogram.index(ofMicroseconds: microseconds)
        counts[index] = counts[index] &+ (counts[index] == .max ? 0 : 1)
        count &+= 1
        sumMicroseconds &+= microseconds
    }

    package mutating func merge(_ other: LatencyHistogram) {
        for index in counts.indices { add(other.counts[index], to: index) }
        count &+= other.count
        sumMicroseconds &+= other.sumMicroseconds
    }

    /// Adds `added` values to a bucket, as a report says; an index that does not exist counts as the last. Their sum is
    /// reported apart.
    package mutating func add(count added: UInt64, bucket index: UInt32) {
        let index = min(Int(index), LatencyHistogram.bucketCount - 1)
        add(UInt32(clamping: added), to: index)
        count &+= added
    }

    package mutating func add(sumMicroseconds sum: UInt64) { sumMicroseconds &+= sum }

    private mutating func add(_ added: UInt32, to index: Int) {
        let (sum, overflow) = counts[index].addingReportingOverflow(added)
        counts[index] = overflow ? .max : sum
    }

    /// The buckets that are not empty, ascending.
    package var buckets: [(index: UInt32, count: UInt64)] {
        counts.indices.compactMap { counts[$0] > 0 ? (UInt32($0), UInt64(counts[$0])) : nil }
    }

    /// The value below which the part `quantile` (0 to 1) of the values lies, in milliseconds; nil when there is none.
    package func milliseconds(atQuantile quantile: Double) -> Double? {
        let total = counts.reduce(UInt64(0)) { $0 + UInt64($1) }
        guard total > 0 else { return nil }
        let rank = max(1, UInt64((Double(total) * min(max(quantile, 0), 1)).rounded(.up)))
        var seen: UInt64 = 0
        for index in counts.indices {
            seen += UInt64(counts[index])
            if seen >= rank { return LatencyHistogram.milliseconds(ofBucket: index) }
        }
        return nil
    }

    package mutating func reset() {
        for index in counts.indices { counts[index] = 0 }
        count = 0
        sumMicroseconds = 0
    }
}
