/// Buckets of a latency histogram that are not empty, ascending by index.
package struct SparseHistogram: Sendable, Hashable {
    package struct Bucket: Sendable, Hashable {
        var index: UInt16
        var count: UInt32
    }

    package private(set) var buckets: [Bucket] = []

    package init() {}

    package var count: UInt64 { buckets.reduce(0) { $0 &+ UInt64($1.count) } }

    /// Indices that no histogram of ours has, and counts beyond 32 bits, are cut to what can be kept.
    package mutating func add(index: UInt32, count: UInt64) {
        guard let index = UInt16(exactly: index), count > 0 else { return }
        let added = UInt32(clamping: count)
        var low = 0
        var high = buckets.count
        while low < high {
            let middle = (low + high) / 2
            if buckets[middle].index < index { low = middle + 1 } else { high = middle }
        }
        if low < buckets.count, buckets[low].index == index {
            buckets[low].count = UInt32(clamping: UInt64(buckets[low].count) + UInt64(added))
        } else {
            buckets.insert(Bucket(index: index, count: added), at: low)
        }
    }

    package mutating func merge(_ other: SparseHistogram) {
        for bucket in other.buckets { add(index: UInt32(bucket.index), count: UInt64(bucket.count)) }
    }

    /// The index of the bucket in which the value of this rank lies; nil when there is none.
    package func bucket(atQuantile quantile: Double) -> UInt32? {
        let total = count
        guard total > 0 else { return nil }
        let rank = max(1, UInt64((Double(total) * min(max(quantile, 0), 1)).rounded(.up)))
        var seen: UInt64 = 0
        for bucket in buckets {
            seen += UInt64(bucket.count)
            if seen >= rank { return UInt32(bucket.index) }
        }
        return buckets.last.map { UInt32($0.index) }
    }
}

/// The time over which a report was collected. It is a second, but after the control plane was away it is all the time since the report before.
struct ReportSpan: Sendable {
    /// A day at most, whatever the report says.
    private static let limitSeconds: Int64 = 86_400

    let endSecond: Int64
    /// At least 1.
    let seconds: Int64

    init(milliseconds: Int, endSecond: Int64) {
        self.endSecond = endSecond
        seconds = max(1, (min(Int64(clamping: milliseconds), Self.limitSeconds * 1000) + 500) / 1000)
    }

    var firstSecond: Int64 { endSecond - seconds + 1 }

    /// The part of an evenly collected count that lies within the window.
    func recent(_ count: UInt64) -> UInt64 {
        guard seconds > TrafficWindow.seconds else { return count }
        let (all, kept) = (UInt64(seconds), UInt64(TrafficWindow.seconds))
        return count / all * kept + count % all * kept / all
    }
}

/// What happened on an edge over the last 60 seconds, in two to three KB: requests and failures by the second, the rest
/// by quarters of a minute.
struct TrafficWindow: Sendable {
    static let seconds: Int64 = 60
    static let slotSeconds: Int64 = 15
    /// Kinds of answers that are told apart in one slot; more are counted as `other`.
    static let responseKinds = 24

    struct Second: Sendable {
        var requests: UInt32 = 0
        var failures: UInt32 = 0
    }

    /// A quarter of a minute.
    struct Slot: Sendable {
        let number: Int64
        var latency = SparseHistogram()
        /// A list and no dictionary: there are two or three, and there are four slots an edge.
        var responses: [(kind: String, count: UInt64)] = []
        var retries: UInt64 = 0
        var connectionsOpened: UInt64 = 0
        var connectionsFailed: UInt64 = 0
        var sent: UInt64 = 0
        var received: UInt64 = 0
        var secured: UInt64 = 0
        var plaintext: UInt64 = 0
    }

    /// Sums over a span of the window.
    struct Totals: Sendable {
        var requests: UInt64 = 0
        var failures: UInt64 = 0
        var latency = SparseHistogram()
        var responses: [String: UInt64] = [:]
        var retries: UInt64 = 0
        var connectionsOpened: UInt64 = 0
        var connectionsFailed: UInt64 = 0
        var sent: UInt64 = 0
        var received: UInt64 = 0
        var secured: UInt64 = 0
        var plaintext: UInt64 = 0

        mutating func merge(_ other: Totals) {
            requests &+= other.requests
            failures &+= other.failures
            latency.merge(other.latency)
            responses.merge(other.responses) { $0 &+ $1 }
            retries &+= other.retries
            connectionsOpened &+= other.connectionsOpened
            connectionsFailed &+= other.connectionsFailed
            sent &+= other.sent
            received &+= other.received
            secured &+= other.secured
            plaintext &+= other.plaintext
        }
    }

    private var ring = [Second](repeating: Second(), count: Int(seconds))
    /// The second that `ring` was last brought up to.
    private var newest: Int64 = .min
    private var slots: [Slot] = []

    /// The slot of this second, which is made when it is the first to ask.
    mutating func withSlot(at second: Int64, _ change: (inout Slot) -> Void) {
        let number = second / Self.slotSeconds
        if slots.last?.number != number {
            slots.removeAll { $0.number <= number - Self.seconds / Self.slotSeconds || $0.number > number }
            slots.append(Slot(number: number))
        }
        change(&slots[slots.count - 1])
    }

    mutating func add(requests: UInt64, failures: UInt64, at second: Int64) {
        advance(to: second)
        let index = Self.index(of: second)
        ring[index].requests = UInt32(clamping: UInt64(ring[index].requests) &+ min(requests, UInt64(UInt32.max)))
        ring[index].failures = UInt32(clamping: UInt64(ring[index].failures) &+ min(failures, UInt64(UInt32.max)))
    }

    /// Counts that were collected over several seconds belong to all of them evenly; what is older than the window is left out.
    mutating func add(requests: UInt64, failures: UInt64, over span: ReportSpan) {
        guard span.seconds > 1 else { return add(requests: requests, failures: failures, at: span.endSecond) }
        advance(to: span.endSecond)
        func share(_ total: UInt64, _ step: Int64) -> UInt64 {
            total / UInt64(span.seconds) + (UInt64(step) < total % UInt64(span.seconds) ? 1 : 0)
        }
        for step in 0..<min(span.seconds, Self.seconds) where span.endSecond - step > newest - Self.seconds {
            add(requests: share(requests, step), failures: share(failures, step), at: span.endSecond - step)
        }
    }

    private static func index(of second: Int64) -> Int {
        let remainder = Int(second % seconds)
        return remainder < 0 ? remainder + Int(seconds) : remainder
    }

    private mutating func advance(to second: Int64) {
        guard second > newest else { return }
        let behind = newest == .min ? Self.seconds : min(second - newest, Self.seconds)
        for step in 0..<behind {
            ring[Self.index(of: second - step)] = Second()
        }
        newest = second
    }

    /// Requests and failures of the last `span` seconds (60 at most), this one included.
    func counts(now second: Int64, span: Int64) -> (requests: UInt64, failures: UInt64) {
        guard newest != .min else { return (0, 0) }
        var requests: UInt64 = 0
        var failures: UInt64 = 0
        for step in 0..<min(span, Self.seconds) where second - step <= newest && second - step > newest - Self.seconds {
            let cell = ring[Self.index(of: second - step)]
            requests &+= UInt64(cell.requests)
            failures &+= UInt64(cell.failures)
        }
        return (requests, failures)
    }

    /// How far back what is kept by slots reaches now: 46 to 60 seconds.
    static func slotSpan(now second: Int64) -> Int64 { seconds - slotSeconds + second % slotSeconds + 1 }

    /// Everything within the window; what is kept by slots, within `slotSpan`.
    func totals(now second: Int64) -> Totals {
        var totals = Totals()
        (totals.requests, totals.failures) = counts(now: second, span: Self.seconds)
        let oldest = second / Self.slotSeconds - Self.seconds / Self.slotSeconds
        for slot in slots where slot.number > oldest {
            totals.latency.merge(slot.latency)
            for (kind, count) in slot.responses { totals.responses[kind, default: 0] &+= count }
            totals.retries &+= slot.retries
            totals.connectionsOpened &+= slot.connectionsOpened
            totals.connectionsFailed &+= slot.connectionsFailed
            totals.sent &+= slot.sent
            totals.received &+= slot.received
            totals.secured &+= slot.secured
            totals.plaintext &+= slot.plaintext
        }
        return totals
    }
}

extension TrafficWindow.Slot {
    mutating func count(response kind: String, _ count: UInt64) {
        let known = responses.firstIndex { $0.kind == kind }
        if let index = known
            ?? (responses.count < TrafficWindow.responseKinds ? nil : responses.firstIndex { $0.kind == "other" })
        {
            responses[index].count &+= count
        } else {
            responses.append((responses.count + 1 < TrafficWindow.responseKinds ? kind : "other", count))
        }
    }
}
