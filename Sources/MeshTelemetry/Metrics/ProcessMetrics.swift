internal import Synchronization

/// The metrics of a process that are not about edges: counters, gauges and histograms named `apus_…`. Any thread may use them.
package final class ProcessMetrics: Sendable {
    /// Only goes up.
    package final class Counter: Sendable {
        private let stored = Atomic<UInt64>(0)

        package func add(_ count: UInt64 = 1) { stored.wrappingAdd(count, ordering: .relaxed) }
        package var value: UInt64 { stored.load(ordering: .relaxed) }
    }

    package final class Gauge: Sendable {
        private let stored = Atomic<Int64>(0)

        package func set(_ value: Int64) { stored.store(value, ordering: .relaxed) }
        package func add(_ count: Int64) { stored.wrappingAdd(count, ordering: .relaxed) }
        package var value: Int64 { stored.load(ordering: .relaxed) }
    }

    package final class Histogram: Sendable {
        package let bounds: [Double]
        private let state: Mutex<(counts: [UInt64], sum: Double)>

        fileprivate init(bounds: [Double]) {
            self.bounds = bounds
            state = Mutex((Array(repeating: 0, count: bounds.count + 1), 0))
        }

        package func record(_ value: Double) {
            let index = bounds.firstIndex { value <= $0 } ?? bounds.count
            state.withLock {
                $0.counts[index] &+= 1
                $0.sum += value
            }
        }

        /// How many values are at or below each bound, and last how many there are; and their sum.
        package var cumulated: (counts: [UInt64], sum: Double) {
            state.withLock { state in
                var total: UInt64 = 0
                let counts = state.counts.map { count in
                    total &+= count
                    return total
                }
                return (counts, state.sum)
            }
        }
    }

    private enum Instrument {
        case counter(Counter)
        case gauge(Gauge)
        case histogram(Histogram)
        case read(PrometheusText.Kind, @Sendable () -> Double)

        var kind: PrometheusText.Kind {
            switch self {
            case .counter: .counter
            case .gauge: .gauge
            case .histogram: .histogram
            case .read(let kind, _): kind
            }
        }
    }

    private struct Family {
        let name: String
        let help: String
        var instruments: [(labels: PrometheusText.Labels, instrument: Instrument)]
    }

    /// Label sets of one name; a name that would have more returns the one instrument that counts all the rest.
    package static let seriesLimit = 256

    private let families = Mutex<[Family]>([])

    package init() {}

    /// The counter of that name and those labels, made when there is none. The name ends with `_total`.
    package func counter(_ name: String, _ help: String, labels: [(String, String)] = []) -> Counter {
        precondition(name.hasSuffix("_total"), "the name of the counter \(name) must end with _total")
        let found = instrument(name, help, labels) { .counter(Counter()) }
        guard case .counter(let counter) = found else { preconditionFailure("\(name) is not a counter") }
        return counter
    }

    package func gauge(_ name: String, _ help: String, labels: [(String, String)] = []) -> Gauge {
        let found = instrument(name, help, labels) { .gauge(Gauge()) }
        guard case .gauge(let gauge) = found else { preconditionFailure("\(name) is not a gauge") }
        return gauge
    }

    /// - Parameter bounds: ascending upper bounds, inclusive, without the infinite one.
    package func histogram(_ name: String, _ help: String, bounds: [Double], labels: [(String, String)] = [])
        -> Histogram
    {
        let found = instrument(name, help, labels) { .histogram(Histogram(bounds: bounds)) }
        guard case .histogram(let histogram) = found else { preconditionFailure("\(name) is not a histogram") }
        return histogram
    }

    /// A value that is asked for when the metrics are written; `read` is called on the writing thread.
    package func read(
        _ name: String, _ kind: PrometheusText.Kind, _ help: String, labels: [(String, String)] = [],
        _ read: @escaping @Sendable () -> Double
    ) {
        precondition(kind != .histogram, "\(name) is read as one number")
        _ = instrument(name, help, labels) { .read(kind, read) }
    }

    private func instrument(
        _ name: String, _ help: String, _ pairs: [(String, String)], _ make: () -> Instrument
    ) -> Instrument {
        precondition(name.hasPrefix("apus_") && PrometheusText.isValidName(name), "'\(name)' must be a name apus_…")
        var labels = PrometheusText.Labels(pairs)
        return families.withLock { families in
            guard let position = families.firstIndex(where: { $0.name == name }) else {
                let made = make()
                families.append(Family(name: name, help: help, instruments: [(labels, made)]))
                return made
            }
            if families[position].instruments.count >= ProcessMetrics.seriesLimit {
                labels = PrometheusText.Labels(pairs.map { ($0.0, "overflow") })
            }
            if let found = families[position].instruments.first(where: { $0.labels == labels }) {
                return found.instrument
            }
            let made = make()
            families[position].instruments.append((labels, made))
            return made
        }
    }

    package func write(into text: inout PrometheusText) {
        for family in families.withLock({ $0 }) {
            guard let kind = family.instruments.first?.instrument.kind else { continue }
            text.begin(family.name, kind, family.help)
            for (labels, instrument) in family.instruments {
                switch instrument {
                case .counter(let counter): text.sample(labels, counter.value)
                case .gauge(let gauge): text.sample(labels, Double(gauge.value))
                case .read(_, let read): text.sample(labels, read())
                case .histogram(let histogram):
                    let (counts, sum) = histogram.cumulated
                    text.histogram(labels, bounds: histogram.bounds, cumulated: counts, sum: sum)
                }
            }
        }
    }
}
