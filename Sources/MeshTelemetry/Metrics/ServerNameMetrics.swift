package import MeshCore

/// TLS of applications' own, counted by the server name that its clients asked for. Clients choose the names, so there is
/// room for so many and no more; what exceeds them is counted as `(other)`.
package struct ServerNameMetrics: Sendable {
    package struct Key: Hashable, Sendable {
        package var reporter: EdgeLabels.Reporter
        /// A name, `(none)`, `(invalid)` or `(other)`.
        package var serverName: String

        package init(reporter: EdgeLabels.Reporter, serverName: String) {
            self.reporter = reporter
            self.serverName = serverName
        }
    }

    /// Names of both directions together, on one loop.
    package static let limit = 256
    private static let idleNanoseconds: Int64 = 600 * 1_000_000_000
    private static let other = "(other)"

    private struct Cell {
        var counts = StreamCounts()
        var isTouched = true
        var touchedNanoseconds: Int64 = 0
    }

    private var cells: [Key: Cell] = [:]
    /// Records of names for which there was no room.
    package private(set) var overflowed: UInt64 = 0

    package init() {}

    package mutating func add(_ name: TLSServerName, reporter: EdgeLabels.Reporter, _ counts: StreamCounts) {
        var key = Key(reporter: reporter, serverName: name.label)
        if cells[key] == nil, cells.count >= ServerNameMetrics.limit {
            overflowed &+= 1
            key.serverName = ServerNameMetrics.other
        }
        cells[key, default: Cell()].counts.add(counts)
        cells[key]?.isTouched = true
    }

    /// Forgets names without traffic for ten minutes. To be called about once a minute; `now` is monotonic.
    package mutating func sweep(nowNanoseconds now: Int64) {
        for (key, cell) in cells {
            if cell.isTouched {
                cells[key]?.isTouched = false
                cells[key]?.touchedNanoseconds = now
            } else if now &- cell.touchedNanoseconds >= ServerNameMetrics.idleNanoseconds {
                cells[key] = nil
            }
        }
    }

    package var snapshot: [Key: StreamCounts] { cells.mapValues(\.counts) }

    static func write(_ counts: [Key: StreamCounts], overflowed: UInt64, into text: inout PrometheusText) {
        let rows = counts.sorted { left, right in
            (left.key.reporter.rawValue, left.key.serverName) < (right.key.reporter.rawValue, right.key.serverName)
        }
        func family(_ name: String, _ help: String, _ value: (StreamCounts) -> UInt64) {
            text.begin("apus_tls_passthrough_\(name)_total", .counter, help)
            for (key, counts) in rows {
                let labels = PrometheusText.Labels([
                    ("reporter", key.reporter.rawValue), ("server_name", key.serverName),
                ])
                text.sample(labels, value(counts))
            }
        }
        family("connections", "Connections with TLS of the application's own, by the server name asked for (SNI).") {
            $0.connectionsOpened
        }
        family("received_bytes", "Bytes from client to server of such connections.") { $0.receivedBytes }
        family("sent_bytes", "Bytes from server to client of such connections.") { $0.sentBytes }
        text.begin(
            "apus_tls_passthrough_names_overflow_total", .counter,
            "Records counted under the server name (other) for lack of room.")
        text.sample(PrometheusText.Labels(), overflowed)
    }
}
