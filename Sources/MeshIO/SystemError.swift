internal import Glibc

/// A system call that failed: which one and with what.
package struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The value of `errno`.
    package let code: Int32
    /// The system call, or what it was made for: `connect`, `bind [::]:15001`.
    package let operation: String

    package init(code: Int32, operation: String) {
        self.code = code
        self.operation = operation
    }

    static func current(_ operation: String) -> SystemError {
        SystemError(code: errno, operation: operation)
    }

    /// `connect: Connection refused (111)`.
    package var description: String {
        let text = strerror(code).map { String(cString: $0) } ?? "unknown error"
        return "\(operation): \(text) (\(code))"
    }
}
