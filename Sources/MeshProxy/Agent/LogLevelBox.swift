import Logging
import MeshTelemetry
import Synchronization

/// The log level in force, which the admin port changes while the sidecar runs.
final class LogLevelBox: Sendable {
    private let level: Mutex<LogLevel>

    init(_ level: LogLevel) { self.level = Mutex(level) }

    var value: LogLevel {
        get { level.withLock { $0 } }
        set { level.withLock { $0 = newValue } }
    }
}

extension Logger {
    /// The same logger, which asks the box for its level each time.
    func following(_ box: LogLevelBox) -> Logger {
        Logger(label: label) { _ in LevelledHandler(inner: handler, box: box) }
    }
}

private struct LevelledHandler: LogHandler {
    var inner: any LogHandler
    let box: LogLevelBox

    var metadata: Logger.Metadata {
        get { inner.metadata }
        set { inner.metadata = newValue }
    }
    var logLevel: Logger.Level {
        get { box.value.level }
        set { inner.logLevel = newValue }
    }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { inner[metadataKey: key] }
        set { inner[metadataKey: key] = newValue }
    }
    func log(event: LogEvent) { inner.log(event: event) }
}
