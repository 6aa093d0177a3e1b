/// Writes Prometheus' text exposition format, version 0.0.4.
package struct PrometheusText {
    package enum Kind: String, Sendable {
        case counter, gauge, histogram
    }

    /// Label pairs, escaped once and used for many samples.
    package struct Labels: Hashable, Sendable {
        fileprivate var bytes: [UInt8] = []

        package init() {}

        package init(_ pairs: [(String, String)]) {
            for (name, value) in pairs { append(name, value) }
        }

        /// A value may hold anything; a name is ours.
        package mutating func append(_ name: String, _ value: String) {
            assert(PrometheusText.isValidName(name), "'\(name)' is no label name")
            if !bytes.isEmpty { bytes.append(0x2c) }
            bytes.append(contentsOf: name.utf8)
            bytes.append(contentsOf: "=\"".utf8)
            for byte in value.utf8 {
                switch byte {
                case 0x5c: bytes.append(contentsOf: "\\\\".utf8)
                case 0x22: bytes.append(contentsOf: "\\\"".utf8)
                case 0x0a: bytes.append(contentsOf: "\\n".utf8)
                default: bytes.append(byte)
                }
            }
            bytes.append(0x22)
        }
    }

    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    package private(set) var bytes: [UInt8] = []
    private let limitBytes: Int
    private var family: [UInt8] = []
    /// Samples left out because the text had reached its limit; the text ends with this number when it is not zero.
    package private(set) var omittedSamples: UInt64 = 0

    /// - Parameter limitBytes: below what an `HTTP1Server`'s connection may have unsent.
    package init(limitBytes: Int = 12 * 1024 * 1024) { self.limitBytes = limitBytes }

    /// Begins a family; its samples follow. Each name may begin one family of a text.
    package mutating func begin(_ name: String, _ kind: Kind, _ help: String) {
        assert(PrometheusText.isValidName(name), "'\(name)' is no metric name")
        family = Array(name.utf8)
        let escaped = help.utf8.flatMap { byte -> [UInt8] in
            switch byte {
            case 0x5c: [0x5c, 0x5c]
            case 0x0a: [0x5c, 0x6e]
            default: [byte]
            }
        }
        bytes.append(contentsOf: "# HELP \(name) ".utf8)
        bytes.append(contentsOf: escaped)
        bytes.append(contentsOf: "\n# TYPE \(name) \(kind.rawValue)\n".utf8)
    }

    package mutating func sample(_ labels: Labels = Labels(), _ value: UInt64) { line("", labels, "", "\(value)") }

    package mutating func sample(_ labels: Labels = Labels(), _ value: Double) {
        line("", labels, "", PrometheusText.number(value))
    }

    /// The samples of one histogram: `cumulated` has one count more than `bounds`, the total.
    package mutating func histogram(_ labels: Labels, bounds: [Double], cumulated: [UInt64], sum: Double) {
        guard cumulated.count == bounds.count + 1, let total = cumulated.last else { return }
        if bytes.count >= limitBytes {
            omittedSamples += UInt64(cumulated.count)
            return
        }
        for (bound, count) in zip(bounds, cumulated) {
            line("_bucket", labels, PrometheusText.number(bound), "\(count)")
        }
        line("_bucket", labels, "+Inf", "\(total)")
        line("_sum", labels, "", PrometheusText.number(sum))
        line("_count", labels, "", "\(total)")
    }

    package mutating func finish() {
        guard omittedSamples > 0 else { return }
        let omitted = omittedSamples
        begin("apus_metrics_omitted_samples", .gauge, "Samples left out because the page had reached its limit.")
        append("", Labels(), "", "\(omitted)")
    }

    private mutating func line(_ suffix: StaticString, _ labels: Labels, _ bound: String, _ value: String) {
        // A histogram that has begun is finished, so that no series is half.
        guard bytes.count < limitBytes || suffix.utf8CodeUnitCount > 0 else {
            omittedSamples += 1
            return
        }
        append(suffix, labels, bound, value)
    }

    private mutating func append(_ suffix: StaticString, _ labels: Labels, _ bound: String, _ value: String) {
        bytes.append(contentsOf: family)
        bytes.append(contentsOf: UnsafeBufferPointer(start: suffix.utf8Start, count: suffix.utf8CodeUnitCount))
        if !labels.bytes.isEmpty || !bound.isEmpty {
            bytes.append(0x7b)
            bytes.append(contentsOf: labels.bytes)
            if !bound.isEmpty {
                if !labels.bytes.isEmpty { bytes.append(0x2c) }
                bytes.append(contentsOf: "le=\"\(bound)\"".utf8)
            }
            bytes.append(0x7d)
        }
        bytes.append(contentsOf: " \(value)\n".utf8)
    }

    /// Whole numbers without a fraction, as everybody writes them.
    private static func number(_ value: Double) -> String {
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if value.isNaN { return "NaN" }
        if let whole = Int64(exactly: value) { return "\(whole)" }
        return "\(value)"
    }

    static func isValidName(_ name: String) -> Bool {
        guard let first = name.utf8.first, !(48...57).contains(first) else { return false }
        return name.utf8.allSatisfy {
            (97...122).contains($0) || (65...90).contains($0) || (48...57).contains($0) || $0 == 95
        }
    }
}
