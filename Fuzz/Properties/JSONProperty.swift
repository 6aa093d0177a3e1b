import MeshKubernetes

/// Texts of the Kubernetes API: JSON (RFC 8259) and the quantities within.
///
/// Properties: what is read, written and read again is equal, compact or pretty; the same text in any writing has the same bytes; nesting is bounded;
/// a quantity is a finite number or none.
enum JSONProperty: FuzzProperty {
    static let name = "json"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let quantity = Quantity(String(decoding: input, as: UTF8.self))
        if let value = quantity.value { try require(value.isFinite, "\(quantity) is \(value)") }
        if let whole = quantity.wholeUnits, let value = quantity.value {
            try require(Double(whole) >= value, "\(quantity) is \(value), rounded up \(whole)")
        }
        _ = quantity.thousandths
        guard let value = try? JSONValue(parsing: Array(input)) else { return }
        for isPretty in [false, true] {
            let written = value.bytes(pretty: isPretty)
            guard let again = try? JSONValue(parsing: written) else {
                throw PropertyFailure("what is written is not read: \(text(written))")
            }
            try require(again == value, "written and read again it is \(text(again.bytes()))")
            try require(again.bytes(pretty: isPretty) == written, "written again it is \(text(again.bytes()))")
        }
    }
}
