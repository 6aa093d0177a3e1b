import MeshIO

/// Writes down what happens on one connection, and does on each occasion what the test says.
final class Recorder: ConnectionDelegate, @unchecked Sendable {
    enum Event: Equatable {
        case opened, readEnded, drained
        case closed(CloseCause)
    }

    struct Log {
        var events: [Event] = []
        var bytes: [UInt8] = []
        var deliveries = 0
        var connection: Connection?

        var text: String { String(decoding: bytes, as: UTF8.self) }

        var cause: CloseCause? {
            for case .closed(let cause) in events { return cause }
            return nil
        }
    }

    let log = Watched(Log())
    var keepsBytes = true
    var onOpened: (Connection) -> Void = { _ in }
    /// How much is consumed; all of it unless the test says otherwise.
    var onReceived: (Connection, UnsafeRawBufferPointer) -> Int = { $1.count }
    var onReadEnded: (Connection) -> Void = { _ in }
    var onDrained: (Connection) -> Void = { _ in }
    var onClosed: (Connection) -> Void = { _ in }

    func adopt(_ connection: Connection) { log.change { $0.connection = connection } }

    func opened(_ connection: Connection) {
        log.change { $0.events.append(.opened) }
        onOpened(connection)
    }

    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        let consumed = onReceived(connection, bytes)
        log.change {
            $0.deliveries += 1
            if keepsBytes { $0.bytes.append(contentsOf: bytes.prefix(consumed)) }
        }
        return consumed
    }

    func readEnded(_ connection: Connection) {
        log.change { $0.events.append(.readEnded) }
        onReadEnded(connection)
    }

    func drained(_ connection: Connection) {
        log.change { $0.events.append(.drained) }
        onDrained(connection)
    }

    func closed(_ connection: Connection, _ cause: CloseCause) {
        log.change {
            $0.events.append(.closed(cause))
            $0.connection = nil
        }
        onClosed(connection)
    }

    // MARK: Waiting

    @discardableResult
    func waitUntilClosed() throws -> CloseCause {
        guard let cause = try log.wait(for: "closed", until: { $0.cause != nil }).cause else {
            throw RigFailure("not closed")
        }
        return cause
    }

    func wait(for event: Event) throws {
        try log.wait(for: "\(event)", until: { $0.events.contains(event) })
    }

    func wait(forText text: String) throws {
        try log.wait(for: "\"\(text)\"", until: { $0.text.hasSuffix(text) })
    }

    func wait(forBytes count: Int) throws {
        try log.wait(for: "\(count) bytes", until: { $0.bytes.count >= count })
    }

    func waitForConnection() throws -> Connection {
        guard let connection = try log.wait(for: "a connection", until: { $0.connection != nil }).connection else {
            throw RigFailure("no connection")
        }
        return connection
    }

    var events: [Event] { log.value.events }
    var text: String { log.value.text }
}
