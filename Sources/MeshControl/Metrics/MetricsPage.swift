internal import MeshTelemetry

/// The control plane's own figures as Prometheus text.
package struct MetricsPage {
    private var text = PrometheusText()

    package init() {}

    package enum Kind {
        case counter
        case gauge

        fileprivate var kind: PrometheusText.Kind {
            switch self {
            case .counter: .counter
            case .gauge: .gauge
            }
        }
    }

    package var bytes: [UInt8] {
        var finished = text
        finished.finish()
        return finished.bytes
    }

    /// One sample for each value of one label.
    package mutating func add(
        _ kind: Kind, _ name: String, _ help: String, label: String, _ samples: [(String, Double)]
    ) {
        text.begin(name, kind.kind, help)
        for (value, sample) in samples { text.sample(PrometheusText.Labels([(label, value)]), sample) }
    }

    package mutating func add(_ kind: Kind, _ name: String, _ help: String, _ value: Double) {
        text.begin(name, kind.kind, help)
        text.sample(PrometheusText.Labels(), value)
    }

    /// In seconds, as Prometheus wants it; the resolution stays.
    package mutating func add(_ name: String, _ help: String, _ histogram: DurationHistogram) {
        text.begin(name, .histogram, help)
        var seen: UInt64 = 0
        let cumulated = histogram.counts.map { count in
            seen &+= count
            return seen
        }
        text.histogram(
            PrometheusText.Labels(), bounds: DurationHistogram.bounds.map { Double($0) / 1e6 }, cumulated: cumulated,
            sum: Double(histogram.sum) / 1e6)
    }
}
