import MeshAddress
import MeshCore
import MeshTelemetry
import Testing

func edge(_ name: String, pod: String = "p", protocol applicationProtocol: ApplicationProtocol = .http1) -> EdgeLabels {
    EdgeLabels(
        reporter: .source,
        source: EdgePeerLabels(
            pod: ObjectName(namespace: "shop", name: "web-1"), namespace: "shop", workload: "web", app: "web",
            version: "v1",
            identity: SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web")),
        destination: EdgePeerLabels(
            pod: ObjectName(namespace: "shop", name: pod), namespace: "shop", workload: name,
            address: IPAddress(v4: 0x0a00_0001)),
        service: ObjectName(namespace: "shop", name: name), port: 80, applicationProtocol: applicationProtocol,
        security: .mutualTLS)
}

extension EdgeMetrics {
    func record(_ status: UInt16, reason: Reason? = nil, milliseconds: Int64 = 1, bytes: UInt64 = 0) {
        record(
            ResponseKey(status: status, reason: reason), durationNanoseconds: milliseconds * 1_000_000,
            requestBytes: bytes,
            responseBytes: bytes)
    }
}

extension MetricsSnapshot {
    /// The count of a response on the edges to a workload.
    func count(_ workload: String, _ status: UInt16) -> UInt64 {
        edges.filter { $0.labels.destination.workload == workload }.flatMap(\.series).filter { $0.key.status == status }
            .reduce(0) { $0 + $1.count }
    }
}

@Suite struct RegistryTests {
    private let minute: Int64 = 60_000_000_000

    @Test("An edge has one cell, however often it is asked for, and its responses are told apart")
    func cells() {
        let registry = MetricsRegistry()
        #expect(registry.edge(edge("a")) === registry.edge(edge("a")))
        #expect(registry.edge(edge("a")) !== registry.edge(edge("b")))
        registry.edge(edge("a")).record(200)
        registry.edge(edge("a")).record(503, reason: .connectFailed)
        registry.edge(edge("a")).record(503)
        registry.edge(edge("a")).record(200)
        let snapshot = registry.snapshot()
        #expect(snapshot.count("a", 200) == 2)
        #expect(snapshot.count("a", 503) == 2)
        #expect(snapshot.edges.first { $0.labels.destination.workload == "a" }?.series.count == 3)
    }

    @Test("Reports tell each thing once, and only edges where something happened")
    func reports() {
        let registry = MetricsRegistry()
        let cell = registry.edge(edge("a"))
        _ = registry.edge(edge("idle"))
        cell.record(200, milliseconds: 5)
        cell.record(500, milliseconds: 7)
        var counts = StreamCounts()
        counts.retries = 2
        counts.sentBytes = 10
        cell.add(counts)
        let first = registry.takeReports()
        #expect(first.count == 1)
        #expect(first[0].requests.map(\.count) == [1, 1])
        #expect(first[0].latency.map(\.count).reduce(0, +) == 2)
        #expect(first[0].latencySumMicroseconds == 12_000)
        #expect(first[0].streams == counts)
        #expect(registry.takeReports().isEmpty)
        cell.record(200, milliseconds: 5)
        let second = registry.takeReports()
        #expect(second.first?.requests.map(\.key.status) == [200])
        #expect(second.first?.latencySumMicroseconds == 5000)
        #expect(second.first?.streams == StreamCounts())
        #expect(registry.snapshot().count("a", 200) == 2)
    }

    @Test("Reports tell the bytes of bodies and of streams together; the page tells them apart")
    func bytes() {
        let registry = MetricsRegistry()
        let cell = registry.edge(edge("a"))
        cell.record(ResponseKey(status: 200), durationNanoseconds: 1, requestBytes: 10, responseBytes: 300)
        cell.record(ResponseKey(status: 404), durationNanoseconds: 1, requestBytes: 5, responseBytes: 0)
        var counts = StreamCounts()
        counts.receivedBytes = 1000
        counts.sentBytes = 2000
        cell.add(counts)
        let first = registry.takeReports()
        #expect(first.map(\.streams.receivedBytes) == [1015])
        #expect(first.map(\.streams.sentBytes) == [2300])
        cell.record(ResponseKey(status: 200), durationNanoseconds: 1, requestBytes: 1, responseBytes: 2)
        let second = registry.takeReports()
        #expect(second.map(\.streams.receivedBytes) == [1])
        #expect(second.map(\.streams.sentBytes) == [2])
        #expect(registry.snapshot().edges.map(\.streams) == [counts])
    }

    @Test("Beyond its limit everything is counted under overflow, and nothing is lost")
    func overflow() {
        var limits = MetricsRegistry.Limits()
        limits.series = 10
        limits.seriesPerEdge = 4
        let registry = MetricsRegistry(limits: limits)
        for round in 0..<3 {
            for number in 0..<20 { registry.edge(edge("e\(number)")).record(UInt16(200 + round)) }
        }
        for status in 0..<100 { registry.edge(edge("e1")).record(UInt16(300 + status)) }
        let snapshot = registry.snapshot()
        #expect(snapshot.edges.flatMap(\.series).reduce(0) { $0 + $1.count } == 160)
        #expect(snapshot.edges.flatMap(\.series).count <= 14)
        #expect(snapshot.overflowed > 0)
        #expect(snapshot.edges.contains { $0.labels.destination.workload == "overflow" })
        let reported = registry.takeReports().flatMap(\.requests).reduce(0) { $0 + $1.count }
        #expect(reported == 160)
    }

    @Test("An edge idle for ten minutes is dropped, makes room, and begins again when its cell is used")
    func idle() {
        var limits = MetricsRegistry.Limits()
        limits.series = 2
        let registry = MetricsRegistry(limits: limits)
        let kept = registry.edge(edge("kept"))
        let busy = registry.edge(edge("busy"))
        kept.record(200)
        for minutes in 0..<10 {
            busy.record(200)
            registry.sweep(nowNanoseconds: Int64(minutes) * minute)
            _ = registry.takeReports()
        }
        #expect(registry.snapshot().count("kept", 200) == 1)
        registry.sweep(nowNanoseconds: 10 * minute)
        #expect(registry.edgeCount == 1)
        #expect(registry.snapshot().count("kept", 200) == 0)
        #expect(registry.snapshot().dropped == 1)
        kept.record(200)
        #expect(registry.edgeCount == 2)
        #expect(registry.snapshot().count("kept", 200) == 1)
        #expect(registry.edge(edge("kept")) === kept)
    }

    @Test("A dropped cell whose edge has another cell by now counts there")
    func twoCells() {
        let registry = MetricsRegistry()
        let old = registry.edge(edge("a"))
        registry.sweep(nowNanoseconds: 0)
        registry.sweep(nowNanoseconds: 11 * minute)
        let new = registry.edge(edge("a"))
        #expect(new !== old)
        new.record(200)
        old.record(200)
        #expect(registry.snapshot().count("a", 200) == 2)
        #expect(registry.snapshot().overflowed == 0)
    }

    @Test("What is not yet reported is not dropped")
    func unreported() {
        let registry = MetricsRegistry()
        registry.edge(edge("a")).record(200)
        for minutes in 0..<30 { registry.sweep(nowNanoseconds: Int64(minutes) * minute) }
        #expect(registry.takeReports().count == 1)
        registry.sweep(nowNanoseconds: 31 * minute)
        #expect(registry.edgeCount == 0)
    }

    @Test("The sums over loops are those of one loop that had it all")
    func merging() {
        let loops = [MetricsRegistry(), MetricsRegistry()]
        let one = MetricsRegistry()
        var random = SeededGenerator(state: 7)
        for _ in 0..<500 {
            let labels = edge("e\(random.next() % 5)")
            let status = UInt16(200 + random.next() % 3)
            loops[Int(random.next() % 2)].edge(labels).record(status)
            one.edge(labels).record(status)
        }
        let merged = MetricsSnapshot.merged(loops.map { $0.snapshot() })
        for name in 0..<5 {
            for status in 200..<203 as Range<UInt16> {
                #expect(merged.count("e\(name)", status) == one.snapshot().count("e\(name)", status))
            }
        }
        #expect(merged.edges.count == one.snapshot().edges.count)
    }
}
