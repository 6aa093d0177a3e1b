/// A number or a name: a probe's port, a rolling update's `25%`.
package enum IntOrString: Codable, Hashable, Sendable, CustomStringConvertible {
    case int(Int)
    case string(String)

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let value = try? container.decode(Int.self) {
            self = .int(value)
        } else {
            self = .string(try container.decode(String.self))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .int(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        }
    }

    package var description: String {
        switch self {
        case .int(let value): "\(value)"
        case .string(let value): value
        }
    }

    /// The number itself, or a percentage (`25%`) of `total`; nil for any other text and for a percentage above 10,000.
    package func scaled(of total: Int, roundUp: Bool) -> Int? {
        switch self {
        case .int(let value):
            return value
        case .string(let text):
            guard text.hasSuffix("%"), let percent = Int(text.dropLast()), (0...10_000).contains(percent) else {
                return nil
            }
            let (product, overflow) = total.multipliedReportingOverflow(by: percent)
            guard !overflow else { return nil }
            return roundUp ? product / 100 + (product % 100 > 0 ? 1 : 0) : product / 100
        }
    }
}
