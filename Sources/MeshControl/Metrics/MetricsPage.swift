/// Builds a page of Prometheus text (exposition format 0.0.4) for the control plane's own figures.
package struct MetricsPage {
    package private(set) var text = ""

    package init() {}

    package enum Kind: String {
        case counter
        case gauge
    }

    /// - Parameter samples: label values by the one label's name; an empty label is a sample without labels.
    package mutating func add(_ kind: Kind, _ name: String, _ help: String, label: String = "", _ samples: [(String, Double)]) {
        head(kind.rawValue, name, help)
        for (value, sample) in samples {
            let labels = label.isEmpty ? "" : "{\(label)=\"\(Self.escaped(value))\"}"
            text += "\(name)\(labels) \(Self.number(sample))\n"
        }
    }

    package mutating func add(_ kind: Kind, _ name: String, _ help: String, _ value: Double) {
        add(kind, name, help, [("", value)])
    }

    package mutating func add(_ name: String, _ help: String, _ histogram: DurationHistogram) {
        head("histogram", name, help)
        var seen: UInt64 = 0
        for (bound, count) in zip(DurationHistogram.bounds, histogram.counts) {
            seen &+= count
            text += "\(name)_bucket{le=\"\(bound)\"} \(seen)\n"
        }
        text += "\(name)_bucket{le=\"+Inf\"} \(histogram.count)\n\(name)_sum \(histogram.sum)\n\(name)_count \(histogram.count)\n"
    }

    private mutating func head(_ kind: String, _ name: String, _ help: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n"
    }

    private static func number(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
    }

    private static func escaped(_ value: String) -> String {
        value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}
