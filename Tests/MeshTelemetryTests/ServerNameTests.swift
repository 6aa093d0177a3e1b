import MeshCore
import MeshTelemetry
import Testing

@Suite struct ServerNameTests {
    private static func opened(_ bytes: UInt64 = 0) -> StreamCounts {
        var counts = StreamCounts()
        counts.connectionsOpened = 1
        counts.receivedBytes = bytes
        return counts
    }

    @Test func clientsThatInventNamesFindRoomForSoManyAndNoMore() {
        var names = ServerNameMetrics()
        for index in 0..<10_000 { names.add(.name("n\(index).example"), reporter: .source, Self.opened(2)) }
        names.add(.name("n3.example"), reporter: .source, Self.opened(2))
        let snapshot = names.snapshot
        #expect(snapshot.count == ServerNameMetrics.limit + 1)
        #expect(snapshot[.init(reporter: .source, serverName: "n3.example")]?.connectionsOpened == 2)
        let other = snapshot[.init(reporter: .source, serverName: "(other)")]
        #expect(other?.connectionsOpened == UInt64(10_000 - ServerNameMetrics.limit))
        #expect(other?.receivedBytes == UInt64(2 * (10_000 - ServerNameMetrics.limit)))
        #expect(names.overflowed == UInt64(10_000 - ServerNameMetrics.limit))
    }

    @Test func aNameWithoutTrafficIsForgottenAndGivesItsRoomBack() {
        let minute: Int64 = 60_000_000_000
        // The machine has been up for long when the sidecar starts.
        let start: Int64 = 1_000_000 * minute
        var names = ServerNameMetrics()
        names.add(.name("old.example"), reporter: .source, Self.opened())
        for elapsed in 0..<10 {
            names.add(.name("busy.example"), reporter: .source, Self.opened())
            names.sweep(nowNanoseconds: start + Int64(elapsed) * minute)
            #expect(names.snapshot.count == 2, "after \(elapsed) minutes")
        }
        names.sweep(nowNanoseconds: start + 10 * minute)
        #expect(names.snapshot.keys.map(\.serverName) == ["busy.example"])
    }

    @Test func bothEndsAndAllLoopsAreWrittenApartAndSummed() {
        var names = ServerNameMetrics()
        names.add(.name("db.example"), reporter: .source, Self.opened(5))
        names.add(.absent, reporter: .destination, Self.opened(7))
        let one = MetricsSnapshot(serverNames: names.snapshot)
        var text = PrometheusText()
        MetricsSnapshot.merged([one, one]).write(into: &text)
        let page = String(decoding: text.bytes, as: UTF8.self)
        for line in [
            #"apus_tls_passthrough_connections_total{reporter="source",server_name="db.example"} 2"#,
            #"apus_tls_passthrough_received_bytes_total{reporter="source",server_name="db.example"} 10"#,
            #"apus_tls_passthrough_received_bytes_total{reporter="destination",server_name="(none)"} 14"#,
        ] {
            #expect(page.contains(line + "\n"), "\(line)")
        }
    }
}
