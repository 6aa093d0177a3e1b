import MeshKubernetes

/// The API's failures in the words that clients know from Kubernetes.
extension StatusError {
    static func notFound(_ kind: ResourceKind, _ name: String) -> StatusError {
        StatusError(
            code: 404, reason: "NotFound", message: "\(kind.storageName) \"\(name)\" not found",
            details: details(kind, name))
    }

    static func alreadyExists(_ kind: ResourceKind, _ name: String) -> StatusError {
        StatusError(
            code: 409, reason: "AlreadyExists", message: "\(kind.storageName) \"\(name)\" already exists",
            details: details(kind, name))
    }

    static func conflict(_ kind: ResourceKind, _ name: String, _ problem: String) -> StatusError {
        StatusError(
            code: 409, reason: "Conflict",
            message: "Operation cannot be fulfilled on \(kind.storageName) \"\(name)\": \(problem)",
            details: details(kind, name))
    }

    static func modified(_ kind: ResourceKind, _ name: String) -> StatusError {
        conflict(
            kind, name, "the object has been modified; please apply your changes to the latest version and try again")
    }

    static func forbidden(_ kind: ResourceKind, _ name: String, _ problem: String) -> StatusError {
        StatusError(
            code: 403, reason: "Forbidden", message: "\(kind.storageName) \"\(name)\" is forbidden: \(problem)",
            details: details(kind, name))
    }

    static func badRequest(_ message: String) -> StatusError {
        StatusError(code: 400, reason: "BadRequest", message: message)
    }

    static func methodNotAllowed(_ message: String) -> StatusError {
        StatusError(code: 405, reason: "MethodNotAllowed", message: message)
    }

    static func expired(_ message: String) -> StatusError {
        StatusError(code: 410, reason: "Expired", message: message)
    }

    static func internalError(_ message: String) -> StatusError {
        StatusError(code: 500, reason: "InternalError", message: "Internal error occurred: \(message)")
    }

    static func invalid(_ kind: ResourceKind, _ name: String, _ causes: [FieldError]) -> StatusError {
        let list = causes.map(\.text)
        let text = list.count == 1 ? list[0] : "[\(list.joined(separator: ", "))]"
        var details = details(kind, name)
        details["causes"] = .array(causes.map(\.json))
        let qualified = kind.group.isEmpty ? kind.kind : "\(kind.kind).\(kind.group)"
        return StatusError(
            code: 422, reason: "Invalid", message: "\(qualified) \"\(name)\" is invalid: \(text)", details: details)
    }

    private static func details(_ kind: ResourceKind, _ name: String) -> JSONValue {
        var details: JSONValue = ["name": .string(name), "kind": .string(kind.plural)]
        if !kind.group.isEmpty { details["group"] = .string(kind.group) }
        return details
    }

    /// What the storage refused, in the API's words.
    init(_ error: StoreError, _ kind: ResourceKind, _ name: String) {
        switch error {
        case .exists: self = .alreadyExists(kind, name)
        case .missing: self = .notFound(kind, name)
        case .conflict: self = .modified(kind, name)
        case .expired(let oldest, let current):
            self = .expired("too old resource version: changes from \(oldest) to \(current) are remembered; list again")
        case .database(let problem): self = .internalError("the storage could not keep the change: \(problem)")
        }
    }
}

/// What is wrong with one field of an object.
package struct FieldError: Hashable, Sendable {
    enum Reason: String, Sendable {
        case required = "FieldValueRequired"
        case invalid = "FieldValueInvalid"
        case notSupported = "FieldValueNotSupported"
        case duplicate = "FieldValueDuplicate"
        case forbidden = "FieldValueForbidden"
        case tooLong = "FieldValueTooLong"
    }

    var path: String
    var reason: Reason
    /// With the value, where there is one, and what was expected.
    var message: String

    package var text: String { "\(path): \(message)" }

    var json: JSONValue { ["reason": .string(reason.rawValue), "message": .string(message), "field": .string(path)] }

    static func required(_ path: String, _ hint: String = "") -> FieldError {
        FieldError(path: path, reason: .required, message: hint.isEmpty ? "Required value" : "Required value: \(hint)")
    }

    static func invalid(_ path: String, _ value: JSONValue?, _ expected: String) -> FieldError {
        FieldError(path: path, reason: .invalid, message: "Invalid value: \(shown(value)): \(expected)")
    }

    static func notSupported(_ path: String, _ value: JSONValue?, _ values: [String]) -> FieldError {
        FieldError(
            path: path, reason: .notSupported,
            message:
                "Unsupported value: \(shown(value)): supported values: \(values.map { "\"\($0)\"" }.joined(separator: ", "))"
        )
    }

    static func duplicate(_ path: String, _ value: JSONValue?) -> FieldError {
        FieldError(path: path, reason: .duplicate, message: "Duplicate value: \(shown(value))")
    }

    static func forbidden(_ path: String, _ why: String) -> FieldError {
        FieldError(path: path, reason: .forbidden, message: "Forbidden: \(why)")
    }

    private static func shown(_ value: JSONValue?) -> String {
        let text = String(decoding: (value ?? .null).data().prefix(200), as: UTF8.self)
        return text
    }
}
