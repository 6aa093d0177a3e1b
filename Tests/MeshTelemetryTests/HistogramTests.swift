import MeshTelemetry
import Testing

/// SplitMix64: the same seed, the same numbers, on every machine.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

@Suite struct HistogramTests {
    @Test("The buckets follow one another without gap, and a value lies in the bucket of its index")
    func buckets() {
        var expected: UInt64 = 0
        for index in 0..<LatencyHistogram.bucketCount {
            let range = LatencyHistogram.range(ofBucket: index)
            #expect(range.lowerBound == expected)
            #expect(LatencyHistogram.index(ofMicroseconds: range.lowerBound) == index)
            #expect(LatencyHistogram.index(ofMicroseconds: range.upperBound - 1) == index)
            expected = range.upperBound
        }
        #expect(expected == 1 << 36)
        #expect(LatencyHistogram.index(ofMicroseconds: .max) == LatencyHistogram.bucketCount - 1)
    }

    @Test("The middle of a bucket is within 6.25 % of every value in it")
    func relativeError() {
        for index in 1..<LatencyHistogram.bucketCount {
            let range = LatencyHistogram.range(ofBucket: index)
            let middle = LatencyHistogram.milliseconds(ofBucket: index) * 1000
            #expect(abs(middle - Double(range.lowerBound)) <= 0.0625 * Double(range.lowerBound))
            #expect(abs(middle - Double(range.upperBound - 1)) <= 0.0625 * Double(range.upperBound - 1))
        }
    }

    @Test("Quantiles are within 6.25 % of the exact ones, and merging equals recording together", arguments: [1, 2, 3])
    func quantiles(seed: UInt64) throws {
        var random = SeededGenerator(state: seed)
        var values: [Int64] = []
        var parts = [LatencyHistogram(), LatencyHistogram()]
        var together = LatencyHistogram()
        for _ in 0..<20_000 {
            // From a microsecond to a minute, evenly over the orders of magnitude.
            let nanoseconds = Int64(1000 * (1 + random.next() % (1 << (random.next() % 26))))
            values.append(nanoseconds)
            parts[Int(random.next() % 2)].record(nanoseconds: nanoseconds)
            together.record(nanoseconds: nanoseconds)
        }
        var merged = parts[0]
        merged.merge(parts[1])
        #expect(merged == together)
        values.sort()
        for quantile in [0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1] {
            let exact = Double(values[max(1, Int((quantile * 20_000).rounded(.up))) - 1]) / 1_000_000
            let found = try #require(together.milliseconds(atQuantile: quantile))
            #expect(abs(found - exact) <= 0.0625 * exact)
        }
    }

    @Test("A histogram sent as its buckets and sum arrives as it was; foreign indices and counts do no harm")
    func transport() {
        var sent = LatencyHistogram()
        for value in [0, 900, 1_000, 7_999, 8_000, 123_456_789, Int64.max, -5] as [Int64] {
            sent.record(nanoseconds: value)
        }
        var received = LatencyHistogram()
        for bucket in sent.buckets { received.add(count: bucket.count, bucket: bucket.index) }
        received.add(sumMicroseconds: sent.sumMicroseconds)
        #expect(received == sent)
        received.add(count: .max, bucket: .max)
        received.add(count: .max, bucket: .max)
        #expect(received.milliseconds(atQuantile: 0.5) == LatencyHistogram.milliseconds(ofBucket: .max))
        #expect(LatencyHistogram().milliseconds(atQuantile: 0.5) == nil)
    }
}
