import MeshAddress
import MeshControl
import MeshCore
import MeshXDS
import Testing

@Suite("What check finds wrong, and what to do about it")
struct CheckRuleTests {
    let now = HealthClock(monotonicSeconds: 1000, wall: Timestamp(unixSeconds: 1_800_000_000))

    func overview(_ change: (inout MeshOverview) -> Void = { _ in }) -> MeshOverview {
        var overview = MeshOverview(
            version: "test", settings: MeshSettings(), health: HealthModel { Double($0) }, startedAt: now.wall)
        overview.rootNotAfter = now.wall.advanced(bySeconds: 1000 * 86_400)
        overview.servingNotAfter = now.wall.advanced(bySeconds: 86_400)
        overview.apply([.synchronized])
        change(&overview)
        return overview
    }

    func findings(_ change: (inout MeshOverview) -> Void, troubles: [String] = []) -> [CheckFinding] {
        overview(change).check(troubles: troubles, now: now).findings.filter { $0.result != .passed }
    }

    @Test("Nothing wrong: one line for each area, and it passes")
    func passed() {
        let report = overview().check(now: now)
        #expect(report.isPassed)
        #expect(report.findings.map(\.area) == ["control plane", "identity", "sidecars", "services"])
        #expect(report.findings.allSatisfy { $0.result == .passed && $0.remedy.isEmpty })
    }

    @Test("A control plane that does not know everything says so, and nothing of what it does not know")
    func ignorant() {
        var early = MeshOverview(
            version: "test", settings: MeshSettings(), health: HealthModel { Double($0) }, startedAt: now.wall)
        early.rootNotAfter = now.wall.advanced(bySeconds: 1000 * 86_400)
        let report = early.check(now: now)
        #expect(!report.isPassed)
        #expect(report.findings.map(\.area) == ["control plane", "identity"])
    }

    @Test("Troubles of the process's parts are failures, each with its own sentence")
    func troubles() {
        let found = findings({ _ in }, troubles: ["the API does not serve pods: Unreachable", "no webhook"])
        #expect(found.map(\.message) == ["the API does not serve pods: Unreachable", "no webhook"])
        #expect(found.allSatisfy { $0.result == .failed && !$0.remedy.isEmpty })
    }

    @Test(
        "Ends of certificates",
        arguments: [
            (20 * 86_400, 86_400, [CheckFinding.Result.warning]), (-1, 86_400, [.failed]),
            (1000 * 86_400, 600, [.failed]),
            (1000 * 86_400, 86_400, []),
        ] as [(Int64, Int64, [CheckFinding.Result])])
    func certificates(rootSeconds: Int64, servingSeconds: Int64, results: [CheckFinding.Result]) {
        let found = findings({ overview in
            overview.rootNotAfter = now.wall.advanced(bySeconds: rootSeconds)
            overview.servingNotAfter = now.wall.advanced(bySeconds: servingSeconds)
        })
        #expect(found.map(\.result) == results)
        #expect(found.allSatisfy { $0.area == "identity" && !$0.remedy.isEmpty })
    }

    @Test("An authority that is not loaded is a failure")
    func authority() {
        #expect(findings { $0.rootNotAfter = nil }.map(\.result) == [.failed])
    }

    @Test("A sidecar that never connected is named; a pod without one is not")
    func silent() {
        let found = findings { overview in
            for (name, isMeshed) in [("cart-1", true), ("plain-1", false)] {
                overview.apply([
                    .workload(
                        Workload(pod: ObjectName(namespace: "shop", name: name), addresses: [], isMeshed: isMeshed))
                ])
            }
        }
        #expect(found.map(\.message) == ["shop/cart-1 has a sidecar that never connected"])
    }

    @Test("A report that comes after its pod has gone leaves no sidecar behind")
    func late() {
        var overview = overview()
        let pod = ObjectName(namespace: "shop", name: "cart-1")
        overview.apply([.workload(Workload(pod: pod, addresses: [], isMeshed: true))])
        overview.take(TelemetryReport(pod: pod, sidecarVersion: "1"), now: now)
        #expect(overview.sidecarStatuses.map(\.version) == ["1"])
        overview.apply([.workloadRemoved(pod)])
        #expect(overview.sidecarStatuses.isEmpty)
        overview.take(TelemetryReport(pod: pod, sidecarVersion: "1"), now: now)
        overview.certified(pod: pod, notAfter: now.wall)
        #expect(overview.sidecarStatuses.isEmpty)
        #expect(overview.sidecars.count == 0)
    }

    @Test("A failing service fails the check, a degraded one warns")
    func services() {
        let cart = ObjectName(namespace: "shop", name: "cart")
        let found = findings { overview in
            overview.apply([
                .service(Service(name: cart)),
                .endpoint(Endpoint(service: cart, address: .loopback4, targetPorts: [:], isReady: false)),
            ])
        }
        #expect(found.map(\.result) == [.failed])
        #expect(found.map(\.message) == ["shop/cart is failing: no ready endpoint (0 of 1)"])
    }
}
