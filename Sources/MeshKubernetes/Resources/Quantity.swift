/// An amount of a resource as the API writes it: `250m`, `1.5`, `64Mi`, `2e3`. The text is kept as it came.
package struct Quantity: Codable, Hashable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    package var text: String

    package init(_ text: String) { self.text = text }
    package init(stringLiteral value: String) { text = value }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let value = try? container.decode(Int64.self) {
            text = "\(value)"
        } else if let value = try? container.decode(Double.self) {
            text = "\(value)"
        } else {
            text = try container.decode(String.self)
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }

    package var description: String { text }

    /// The amount; nil when the text is none.
    package var value: Double? {
        let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == "." || $0 == "+" || $0 == "-") }
        let suffix = text.dropFirst(number.count)
        guard number.contains(where: \.isNumber), let amount = Double(number), let scale = Quantity.scale(suffix) else {
            return nil
        }
        let value = amount * scale
        return value.isFinite ? value : nil
    }

    /// The amount in whole units, such as bytes, rounded up; nil when the text is none or it does not fit.
    package var wholeUnits: Int64? { value.flatMap { Int64(exactly: $0.rounded(.up)) } }

    /// The amount in thousandths, such as milli-CPUs, rounded up; nil when the text is none or it does not fit.
    package var thousandths: Int64? { value.flatMap { Int64(exactly: ($0 * 1000).rounded(.up)) } }

    private static func scale(_ suffix: Substring) -> Double? {
        switch suffix {
        case "": return 1
        case "n": return 1e-9
        case "u": return 1e-6
        case "m": return 1e-3
        case "k": return 1e3
        case "M": return 1e6
        case "G": return 1e9
        case "T": return 1e12
        case "P": return 1e15
        case "E": return 1e18
        case "Ki": return 1024
        case "Mi": return 1_048_576
        case "Gi": return 1_073_741_824
        case "Ti": return 1_099_511_627_776
        case "Pi": return 1_125_899_906_842_624
        case "Ei": return 1_152_921_504_606_846_976
        default:
            guard let first = suffix.first, first == "e" || first == "E", let power = Int(suffix.dropFirst()),
                (-30...30).contains(power)
            else { return nil }
            return Double("1e\(power)")
        }
    }
}
