/// Why a pod cannot get a sidecar: a field, its value, and what it should be.
struct Refusal: Error, Hashable, CustomStringConvertible {
    let field: String
    let value: String
    let expected: String

    var description: String { "\(field) is '\(value)', expected \(expected)" }
}
