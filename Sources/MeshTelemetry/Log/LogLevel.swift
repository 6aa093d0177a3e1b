package import Logging

/// How much a process says, as annotations, flags and the admin port spell it.
package enum LogLevel: String, Sendable, CaseIterable {
    case trace, debug, info, warning, error

    package var level: Logger.Level {
        switch self {
        case .trace: .trace
        case .debug: .debug
        case .info: .info
        case .warning: .warning
        case .error: .error
        }
    }
}
