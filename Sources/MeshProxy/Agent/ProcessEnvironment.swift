import Glibc

/// The environment of this process, without Foundation.
package struct ProcessEnvironment: Sendable {
    package init() {}

    /// Nil when the variable is unset.
    package subscript(name: String) -> String? {
        guard let value = getenv(name) else { return nil }
        return String(cString: value)
    }
}
