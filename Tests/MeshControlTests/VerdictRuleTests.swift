import MeshAddress
import MeshControl
import MeshCore
import Testing

@Suite("The verdict on a service, and its reason")
struct VerdictRuleTests {
    let now = Timestamp("2026-11-22T12:30:00Z") ?? Timestamp(unixSeconds: 0)

    func address(_ last: UInt32) -> IPAddress { IPAddress(v4: 0x0a01_0000 | last) }

    func service(_ change: (inout ServiceObservation) -> Void = { _ in }) -> ServiceObservation {
        var service = ServiceObservation()
        service.readyEndpoints = [address(1), address(2), address(3)]
        service.endpoints = 3
        service.meshedEndpoints = 3
        service.traffic.isReported = true
        service.traffic.requests = 600
        service.traffic.recentRequests = 100
        change(&service)
        return service
    }

    func ejection(_ last: UInt32, by caller: String = "shop/checkout", since: String = "2026-11-22T12:01:30Z")
        -> EndpointEjection
    {
        EndpointEjection(
            address: address(last), caller: caller, since: Timestamp(since) ?? now, why: "5 consecutive failures")
    }

    func expect(
        _ verdict: Verdict, _ reasons: [String], _ change: (inout ServiceObservation) -> Void,
        location: SourceLocation = #_sourceLocation
    ) {
        let judged = VerdictRule.judge(service(change), now: now)
        #expect(judged.verdict == verdict, sourceLocation: location)
        #expect(judged.reasons == reasons, sourceLocation: location)
    }

    @Test("Nothing wrong")
    func healthy() {
        expect(.healthy, ["success 100 % over the last 60 s"]) { _ in }
        expect(.healthy, ["success 99.8 % over the last 60 s"]) { $0.traffic.failures = 1 }
        expect(.healthy, ["its connections succeed"]) {
            $0.traffic.requests = 0
            $0.traffic.connectionsOpened = 4
        }
    }

    @Test("Nothing to judge by")
    func quiet() {
        func silence(_ service: inout ServiceObservation) {
            service.traffic = TrafficObservation()
        }
        expect(.idle, ["no traffic within 60 s"], silence)
        expect(.unknown, ["none of its endpoints has a sidecar, and no caller reported"]) {
            silence(&$0)
            $0.meshedEndpoints = 0
        }
        expect(.idle, ["it has no endpoint, and nobody called it within 60 s"]) {
            silence(&$0)
            $0.endpoints = 0
            $0.readyEndpoints = []
        }
        expect(.unknown, ["the control plane has not read everything that runs yet"]) { $0.isSynchronized = false }
    }

    @Test("Endpoints")
    func endpoints() {
        expect(.failing, ["no ready endpoint (0 of 3)"]) { $0.readyEndpoints = [] }
        expect(.failing, ["no endpoint at all, and it is being called"]) {
            $0.readyEndpoints = []
            $0.endpoints = 0
        }
        expect(.degraded, ["2 of 3 endpoints ejected by shop/checkout since 12:01 UTC"]) {
            $0.ejections = [ejection(1), ejection(2, since: "2026-11-22T12:20:00Z")]
        }
        expect(.degraded, ["1 of 3 endpoints ejected by a/a, b/b, c/c and 1 more since 12:01 UTC"]) {
            $0.ejections = ["a/a", "c/c", "b/b", "d/d"].map { ejection(1, by: $0) }
        }
        expect(.failing, ["3 of 3 endpoints ejected by shop/checkout since 12:01 UTC"]) {
            $0.ejections = [ejection(1), ejection(2), ejection(3)]
        }
        expect(.healthy, ["success 100 % over the last 60 s"]) { $0.ejections = [ejection(9)] }
    }

    @Test("Success")
    func success() {
        expect(.degraded, ["success 91.1 % over the last 60 s (usual 99.9 %)"]) {
            $0.traffic.failures = 53
            $0.traffic.usual = Usual(successRate: 0.999, p99Milliseconds: nil)
        }
        expect(.failing, ["success 40 % over the last 10 s", "success 90 % over the last 60 s"]) {
            $0.traffic.failures = 60
            $0.traffic.recentFailures = 60
        }
        expect(.degraded, ["success 50 % over the last 60 s"]) {
            $0.traffic.requests = 4
            $0.traffic.failures = 2
            $0.traffic.recentRequests = 4
            $0.traffic.recentFailures = 4
        }
    }

    @Test("Connections of services that are not HTTP")
    func connections() {
        expect(.degraded, ["3 connections failed over the last 60 s, 9 succeeded"]) {
            $0.traffic.requests = 0
            $0.traffic.recentRequests = 0
            $0.traffic.connectionsOpened = 9
            $0.traffic.connectionsFailed = 3
        }
        expect(.failing, ["3 connections failed over the last 60 s, 0 succeeded"]) {
            $0.traffic.requests = 0
            $0.traffic.recentRequests = 0
            $0.traffic.connectionsFailed = 3
        }
    }

    @Test("Latency is compared with its own past")
    func latency() {
        func slow(_ p99: Double, usual: Double?) -> (inout ServiceObservation) -> Void {
            { service in
                service.traffic.figures.p99Milliseconds = p99
                service.traffic.usual = Usual(successRate: 1, p99Milliseconds: usual)
            }
        }
        expect(.degraded, ["p99 480 ms against its usual 90 ms"], slow(480, usual: 90))
        expect(.healthy, ["success 100 % over the last 60 s"], slow(170, usual: 90))
        expect(.healthy, ["success 100 % over the last 60 s"], slow(20, usual: 1.5))
        expect(.healthy, ["success 100 % over the last 60 s"], slow(5000, usual: nil))
    }

    @Test("Certificates that should have been renewed")
    func certificates() {
        let pod = ObjectName(namespace: "shop", name: "cart-1")
        expect(.degraded, ["the certificate of shop/cart-1 ends in 12 min and has not been renewed"]) {
            $0.endingCertificates = [.init(pod: pod, notAfter: now.advanced(bySeconds: 720))]
        }
        expect(.degraded, ["the certificate of shop/cart-1 ended at 12:29 UTC"]) {
            $0.endingCertificates = [.init(pod: pod, notAfter: now.advanced(bySeconds: -1))]
        }
    }

    @Test("What makes it failing is told before what only degrades it")
    func order() {
        expect(.failing, ["no ready endpoint (0 of 3)", "success 50 % over the last 60 s"]) {
            $0.readyEndpoints = []
            $0.traffic.failures = 300
        }
    }
}
