import MeshAddress
import MeshControl
import MeshCore
import MeshXDS
import Testing

@Suite("The health model")
struct HealthModelTests {
    let catalog = ObjectName(namespace: "shop", name: "catalog")
    let pod = ObjectName(namespace: "shop", name: "checkout-7f-1")

    var reporter: Workload {
        Workload(
            pod: pod, addresses: [],
            identity: SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: "checkout"),
            isMeshed: true, owner: "checkout")
    }

    func model(edges: Int = 100) -> HealthModel {
        var limits = HealthModel.Limits()
        limits.edges = edges
        return HealthModel(limits: limits) { Double($0) }
    }

    func clock(_ second: Int64) -> HealthClock {
        HealthClock(monotonicSeconds: second, wall: Timestamp(unixSeconds: 1_800_000_000 + second))
    }

    /// `latency` gives requests by bucket, and a bucket is a millisecond here.
    func delta(
        good: UInt64 = 0, bad: UInt64 = 0, latency: [UInt32: UInt64] = [:], to service: ObjectName? = nil,
        reporter: EdgeDelta.Reporter = .source, source: EdgePeer = EdgePeer(), secured: Bool = true
    ) -> EdgeDelta {
        EdgeDelta(
            reporter: reporter, source: source, destinationService: service ?? catalog, destinationPort: 80,
            applicationProtocol: .http1, isSecured: secured,
            requests: [RequestCount(status: 200, count: good), RequestCount(status: 503, count: bad)].filter {
                $0.count > 0
            },
            latency: LatencyBuckets(
                buckets: latency.sorted { $0.key < $1.key }.map { .init(index: $0.key, count: $0.value) }))
    }

    func report(_ edges: [EdgeDelta], ejections: [EjectionReport] = []) -> TelemetryReport {
        TelemetryReport(pod: pod, edges: edges, ejections: ejections)
    }

    @Test("Figures are of the last 60 seconds: they appear within the second and go when the window has passed")
    func window() {
        var model = model()
        for second in Int64(100)..<160 {
            model.ingest(
                report([delta(good: 9, bad: 1, latency: [10: 9, 400: 1])]), reporter: reporter, now: clock(second))
        }
        let full = model.observation(of: catalog, now: clock(159))
        #expect(full.requests == 600)
        #expect(full.failures == 60)
        #expect(full.recentRequests == 100)
        #expect(full.figures.requestsPerSecond == 10)
        #expect(full.figures.successRate == 0.9)
        #expect(full.figures.p50Milliseconds == 10)
        #expect(full.figures.p99Milliseconds == 400)
        #expect(model.observation(of: catalog, now: clock(189)).requests == 300)
        #expect(model.observation(of: catalog, now: clock(219)).requests == 0)
        #expect(model.observation(of: catalog, now: clock(300)).figures.successRate == nil)
    }

    @Test("What began within the window has its rates over the time since")
    func young() {
        var model = model()
        for second in Int64(100)..<105 {
            model.ingest(report([delta(good: 7)]), reporter: reporter, now: clock(second))
        }
        #expect(model.observation(of: catalog, now: clock(104)).figures.requestsPerSecond == 7)
        #expect(
            model.stat(from: nil, to: nil, namespace: nil, now: clock(104)).rows.first?.figures.requestsPerSecond == 7)
        #expect(model.edges(namespace: nil, now: clock(104)).edges.first?.requestsPerSecond == 7)
        #expect(model.observation(of: catalog, now: clock(109)).figures.requestsPerSecond == 3.5)
    }

    /// A control plane that has just begun hears at once of all that happened while there was none.
    @Test(
        "What a report collected over a longer time has its rates over that time, and is not taken for recent",
        arguments: [(1, 7, 7), (20, 140, 70), (60, 420, 70), (300, 420, 70)] as [(Int64, UInt64, UInt64)])
    func longReport(seconds: Int64, requests: UInt64, recent: UInt64) {
        var model = model()
        let collected = UInt64(seconds) * 7
        var delta = delta(good: collected)
        delta.bytesSent = collected * 100
        delta.retries = collected
        var report = report([delta])
        report.intervalMilliseconds = Int(seconds) * 1000
        // The machine has just started: its clock is younger than the report.
        model.ingest(report, reporter: reporter, now: clock(30))
        let seen = model.observation(of: catalog, now: clock(30))
        #expect(seen.requests == requests)
        #expect(seen.recentRequests == recent)
        #expect(seen.figures.requestsPerSecond == 7)
        #expect(abs(seen.figures.retriesPerSecond - 7) < 3)
        #expect(abs(seen.figures.sentBytesPerSecond - 700) < 300)
        #expect(model.edges(namespace: nil, now: clock(30)).edges.first?.requestsPerSecond == 7)
    }

    @Test("A report's time is held within bounds, whatever it says", arguments: [Int.min, -1, 0, 1499, Int.max])
    func absurdTime(milliseconds: Int) {
        var model = model()
        var report = report([delta(good: 7)])
        report.intervalMilliseconds = milliseconds
        model.ingest(report, reporter: reporter, now: clock(1000))
        let rate = model.observation(of: catalog, now: clock(1000)).figures.requestsPerSecond
        #expect(milliseconds == .max ? rate < 1 : rate == 7)
    }

    @Test("A request that both ends report counts once; callers without a sidecar are counted by the service's own")
    func both() {
        var model = model()
        let served = Workload(
            pod: ObjectName(namespace: "shop", name: "catalog-1"), addresses: [], owner: "catalog", service: catalog)
        let identity = reporter.identity
        model.ingest(report([delta(good: 10)]), reporter: reporter, now: clock(5))
        var other = report([
            delta(
                good: 10, reporter: .destination,
                source: EdgePeer(namespace: "shop", owner: "checkout", identity: identity)),
            delta(good: 3, reporter: .destination, source: EdgePeer(address: .loopback4), secured: false),
        ])
        other.pod = served.pod
        model.ingest(other, reporter: served, now: clock(5))
        #expect(model.observation(of: catalog, now: clock(5)).requests == 13)
        let edges = model.edges(namespace: nil, now: clock(5)).edges
        #expect(edges.map(\.source.name) == ["127.0.0.1", "checkout"])
        #expect(edges.map(\.security) == [.plaintext, .mutualTLS])
        #expect(edges.last?.source.identity == "spiffe://cluster.local/ns/shop/sa/checkout")
    }

    @Test("A connection that is open and idle is what it was", arguments: [true, false])
    func idleConnection(secured: Bool) {
        var model = model()
        var opened = delta(secured: secured)
        opened.connectionsOpened = 1
        opened.destination.address = .loopback4
        model.ingest(report([opened]), reporter: reporter, now: clock(100))
        let edges = model.edges(namespace: nil, now: clock(400)).edges
        #expect(edges.map(\.security) == [secured ? .mutualTLS : .plaintext])
        #expect(edges.map(\.openConnections) == [1])
    }

    @Test("Requests that reached nobody make an edge neither plaintext nor mixed, and no edge by themselves")
    func nobodyReached() {
        var model = model()
        var lost = delta(bad: 5, secured: false)
        model.ingest(report([lost]), reporter: reporter, now: clock(100))
        #expect(model.edges(namespace: nil, now: clock(100)).edges.isEmpty)
        #expect(model.stat(from: nil, to: nil, namespace: nil, now: clock(100)).rows.count == 1)
        model.ingest(report([delta(good: 5)]), reporter: reporter, now: clock(101))
        #expect(model.edges(namespace: nil, now: clock(101)).edges.map(\.security) == [.mutualTLS])
        lost.destination.address = .loopback4
        model.ingest(report([lost]), reporter: reporter, now: clock(102))
        #expect(model.edges(namespace: nil, now: clock(102)).edges.map(\.security) == [.mixed])
    }

    @Test("A sidecar's claim about its own end is not believed: the catalog says who it is")
    func claims() {
        var model = model()
        let claim = EdgePeer(
            namespace: "bank", owner: "vault", identity: SPIFFEID(trustDomain: "x", namespace: "a", serviceAccount: "b")
        )
        model.ingest(report([delta(good: 1, source: claim)]), reporter: reporter, now: clock(5))
        let row = model.stat(from: nil, to: nil, namespace: nil, now: clock(5)).rows.first
        #expect(
            row?.source
                == TrafficParty(
                    namespace: "shop", name: "checkout", identity: "spiffe://cluster.local/ns/shop/sa/checkout"))
    }

    @Test("Edges are limited: what has no room is counted, what is idle for ten minutes makes room")
    func limits() {
        var model = model(edges: 3)
        let names = (0..<5).map { ObjectName(namespace: "shop", name: "s\($0)") }
        model.ingest(report(names.map { delta(good: 1, to: $0) }), reporter: reporter, now: clock(0))
        #expect(model.edgeCount == 3)
        #expect(model.overflowedDeltas == 2)
        model.tick(now: clock(599))
        #expect(model.edgeCount == 3)
        model.tick(now: clock(609))
        #expect(model.edgeCount == 0)
        model.ingest(report([delta(good: 1, to: names[4])]), reporter: reporter, now: clock(610))
        #expect(model.observation(of: names[4], now: clock(610)).requests == 1)
    }

    @Test("stat filters by source, destination and namespace, plain names and namespace/name alike")
    func filters() {
        var model = model()
        let other = ObjectName(namespace: "bank", name: "vault")
        model.ingest(report([delta(good: 1), delta(good: 5, to: other)]), reporter: reporter, now: clock(1))
        func names(from: String? = nil, to: String? = nil, namespace: String? = nil) -> [String] {
            model.stat(from: from, to: to, namespace: namespace, now: clock(1)).rows.map(\.destination.name)
        }
        #expect(names() == ["vault", "catalog"])
        #expect(names(to: "catalog") == ["catalog"])
        #expect(names(to: "shop/catalog") == ["catalog"])
        #expect(names(to: "bank/catalog") == [])
        #expect(names(from: "shop/checkout") == ["vault", "catalog"])
        #expect(names(from: "vault") == [])
        #expect(names(namespace: "bank") == ["vault"])
    }

    @Test("Open connections are counted by reporter and go with it")
    func connections() {
        var model = model()
        var opened = delta()
        opened.connectionsOpened = 5
        var closed = delta()
        closed.connectionsClosed = 2
        model.ingest(report([opened]), reporter: reporter, now: clock(1))
        model.ingest(report([closed]), reporter: reporter, now: clock(2))
        #expect(model.observation(of: catalog, now: clock(2)).figures.openConnections == 3)
        model.forgetReporter(pod)
        #expect(model.observation(of: catalog, now: clock(2)).figures.openConnections == 0)
    }

    @Test("Ejections are those of each sidecar's last report")
    func ejections() {
        var model = model()
        let ejection = EjectionReport(
            service: catalog, address: .loopback4, sinceUnixMilliseconds: 1_800_000_000_000,
            why: "5 consecutive failures")
        model.ingest(report([], ejections: [ejection]), reporter: reporter, now: clock(1))
        #expect(model.ejectionsByService()[catalog]?.map(\.caller) == ["shop/checkout"])
        model.ingest(report([]), reporter: reporter, now: clock(2))
        #expect(model.ejectionsByService().isEmpty)
        model.ingest(report([], ejections: [ejection]), reporter: reporter, now: clock(3))
        model.forgetReporter(pod)
        #expect(model.ejectionsByService().isEmpty)
    }

    @Test("What is usual is learnt from busy minutes; a bad minute teaches little")
    func usual() throws {
        var model = model()
        func minute(_ number: Int64, _ delta: EdgeDelta) {
            for second in 0..<60 {
                model.ingest(report([delta]), reporter: reporter, now: clock(number * 60 + Int64(second)))
                model.tick(now: clock(number * 60 + Int64(second)))
            }
        }
        for number in Int64(0)..<5 { minute(number, delta(good: 10, latency: [90: 10])) }
        let usual = try #require(model.observation(of: catalog, now: clock(299)).usual)
        #expect(usual.successRate == 1)
        #expect(usual.p99Milliseconds == 90)
        minute(5, delta(good: 5, bad: 5, latency: [480: 10]))
        let after = try #require(model.observation(of: catalog, now: clock(359)).usual)
        #expect(after.successRate > 0.98)
        #expect((after.p99Milliseconds ?? 0) < 110)
        #expect(model.observation(of: catalog, now: clock(359)).figures.p99Milliseconds == 480)
    }

    @Test("Numbers that no sidecar of ours sends change nothing and trap nothing")
    func hostile() {
        var model = model()
        var delta = delta(good: .max, bad: .max, latency: [.max: .max, 3: .max])
        delta.retries = .max
        delta.bytesSent = .max
        delta.connectionsOpened = .max
        delta.connectionsClosed = 1
        delta.requests += (0..<2000).map { RequestCount(status: UInt16($0 % 700), reason: "reason\($0)", count: .max) }
        let long = String(repeating: "ä", count: 10_000)
        delta.destinationService = ObjectName(namespace: long, name: long)
        for second in Int64(0)..<200 {
            model.ingest(report([delta]), reporter: nil, now: clock(second))
            _ = model.stat(from: nil, to: nil, namespace: nil, now: clock(second))
            _ = model.edges(namespace: nil, now: clock(second))
            model.tick(now: clock(second))
        }
        let rows = model.stat(from: nil, to: nil, namespace: nil, now: clock(199)).rows
        #expect(rows.count == 1)
        #expect((rows.first?.destination.name.utf8.count ?? 0) < 300)
        #expect((rows.first?.responses.count ?? 0) <= 24 * 7)
    }
}
