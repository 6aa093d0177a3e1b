import Foundation
import MeshAddress
import MeshControl
import MeshCore
import MeshHTTP
import MeshIO
import MeshIdentity
import MeshXDS
import Synchronization
import Testing

@Suite("The control plane over real sockets with TLS", .serialized)
struct ControlPlaneTests {
    static let cart = ObjectName(namespace: "shop", name: "cart")
    static let vip = SocketAddress(IPAddress(v4: 0x0a60_0001), 80)

    static func pod(_ name: String, _ account: String, _ last: UInt32, service: ObjectName? = nil) -> Workload {
        Workload(
            pod: ObjectName(namespace: "shop", name: name), addresses: [IPAddress(v4: 0x0a01_0000 | last)],
            identity: SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: account),
            isMeshed: true,
            owner: account, node: "here", service: service)
    }

    static let caller = pod("checkout-1", "checkout", 1)

    static func endpoint(_ last: UInt32) -> Endpoint {
        Endpoint(
            service: cart, address: IPAddress(v4: 0x0a01_0000 | last), targetPorts: [80: 8080],
            workload: pod("cart-\(last)", "cart", last, service: cart))
    }

    static let cartService = Service(name: cart, addresses: [vip.ip], ports: [ServicePort(port: 80)])

    /// A control plane that runs while `body` does.
    func withControlPlane(
        _ source: ScriptedSource, storage: MemoryStorage = MemoryStorage(), port: UInt16 = 0,
        rotation: RootRotation = RootRotation(), stepSeconds: Double = 60,
        _ body: (ControlPlane) async throws -> Void
    ) async throws {
        var settings = ControlPlane.Settings(version: "test", mesh: MeshSettings())
        settings.discoveryAddress = SocketAddress(.loopback4, port)
        settings.queryAddress = SocketAddress(.loopback4, 0)
        settings.graceMilliseconds = 200
        settings.authority.rotation = rotation
        settings.authority.stepSeconds = stepSeconds
        let plane = try ControlPlane(settings: settings, source: source, reviewer: FakeReviewer(), storage: storage)
        let running = Task { try await plane.run() }
        let result: Result<Void, any Error>
        do {
            try await body(plane)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        running.cancel()
        try await running.value
        try result.get()
    }

    func open(_ plane: ControlPlane) async throws -> SocketAddress {
        #expect(try await eventually { plane.discoveryAddress != nil })
        return try #require(plane.discoveryAddress)
    }

    func startSidecar(_ plane: ControlPlane) async throws -> FakeSidecar {
        let address = try await open(plane)
        let sidecar = try FakeSidecar(pod: Self.caller.pod, serviceAccount: "checkout")
        let roots = try #require(plane.trustBundle?.roots)
        _ = try await sidecar.certify(at: address, roots: roots)
        sidecar.connect(to: address)
        return sidecar
    }

    func get(_ plane: ControlPlane, _ path: String) async throws -> (status: Int, body: Data) {
        let port = try #require(plane.queryAddress?.port)
        let url = try #require(URL(string: "http://127.0.0.1:\(port)\(path)"))
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["curl", "-s", "-m", "20", "-w", "\n%{http_code}", url.absoluteString]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        let end = try #require(output.lastIndex(of: 10))
        let status = try #require(Int(String(decoding: output[(end + 1)...], as: UTF8.self)))
        return (status, output[..<end])
    }

    @Test("A sidecar is certified, subscribes, and follows: unknown, known, an endpoint more, one less, gone")
    func follows() async throws {
        let source = ScriptedSource([.workload(Self.caller), .synchronized])
        try await withControlPlane(source) { plane in
            let sidecar = try await startSidecar(plane)
            defer { sidecar.close() }
            sidecar.subscribe(Self.vip)
            #expect(try await eventually { sidecar.state.destinations[Self.vip] == .unknown })
            #expect(try await eventually { sidecar.state.configuration?.workload == Self.caller })
            #expect(sidecar.state.bundles.first?.roots == plane.trustBundle?.roots)

            source.tell(.service(Self.cartService), .endpoint(Self.endpoint(7)))
            #expect(try await eventually { sidecar.state.destinations[Self.vip] == .service(Self.cart, port: 80) })
            #expect(sidecar.state.services[Self.cart] == Self.cartService)
            #expect(sidecar.state.endpoints[Self.cart] == [Self.endpoint(7).address])

            source.tell(.endpoint(Self.endpoint(8)))
            #expect(try await eventually { sidecar.state.endpoints[Self.cart]?.count == 2 })
            #expect(sidecar.state.endpointMessages == 2)
            source.tell(.endpointRemoved(service: Self.cart, address: Self.endpoint(7).address))
            #expect(try await eventually { sidecar.state.endpoints[Self.cart] == [Self.endpoint(8).address] })

            source.tell(
                .serviceRemoved(Self.cart), .endpointRemoved(service: Self.cart, address: Self.endpoint(8).address))
            #expect(try await eventually { sidecar.state.destinations[Self.vip] == .unknown })

            let pod = SocketAddress(Self.endpoint(9).address, 8080)
            sidecar.subscribe(pod)
            let workload = Self.pod("cart-9", "cart", 9)
            source.tell(.workload(workload))
            #expect(try await eventually { sidecar.state.destinations[pod] == .workload(workload) })
        }
    }

    @Test(
        "A sidecar may open no stream for a pod that its identity is not of, and gets no certificate for a token that is refused"
    )
    func refused() async throws {
        let other = Self.pod("vault-1", "vault", 2)
        let source = ScriptedSource([.workload(Self.caller), .workload(other), .synchronized])
        try await withControlPlane(source) { plane in
            let address = try await open(plane)
            let roots = try #require(plane.trustBundle?.roots)
            let thief = try FakeSidecar(pod: Self.caller.pod, serviceAccount: "checkout")
            await #expect(throws: FakeSidecar.NoCertificate.self) {
                try await thief.certify(at: address, roots: roots, token: "rejected:it has expired")
            }
            _ = try await thief.certify(at: address, roots: roots)
            thief.connect(to: address, as: other.pod)
            defer { thief.close() }
            thief.subscribe(Self.vip)
            #expect(
                try await eventually {
                    let metrics = String(decoding: try await get(plane, "/metrics").body, as: UTF8.self)
                    return !metrics.contains("apus_control_discovery_streams_refused_total 0\n")
                        && metrics.contains("apus_control_discovery_streams_refused_total")
                })
            #expect(thief.state.configuration == nil)
            #expect(thief.state.destinations.isEmpty)
            #expect(thief.state.bundles.isEmpty)
        }
    }

    @Test(
        "A sidecar that is faster than the word of its pod is let in, and sent away if the pod turns out to be another's"
    )
    func early() async throws {
        let source = ScriptedSource([.synchronized])
        try await withControlPlane(source) { plane in
            let address = try await open(plane)
            let roots = try #require(plane.trustBundle?.roots)
            let rightful = try await startSidecar(plane)
            defer { rightful.close() }
            let late = Self.pod("vault-1", "vault", 2)
            let thief = try FakeSidecar(pod: ObjectName(namespace: "shop", name: "thief"), serviceAccount: "checkout")
            _ = try await thief.certify(at: address, roots: roots)
            thief.connect(to: address, as: late.pod)
            defer { thief.close() }
            rightful.subscribe(Self.vip)
            thief.subscribe(Self.vip)
            #expect(try await eventually { rightful.state.destinations[Self.vip] == .unknown })
            #expect(try await eventually { thief.state.destinations[Self.vip] == .unknown })
            source.tell(.workload(Self.caller), .workload(late))
            #expect(try await eventually { rightful.state.configuration?.workload == Self.caller })
            #expect(try await eventually { !thief.state.isConnected })
            #expect(thief.state.configuration == nil)
        }
    }

    @Test(
        "A restarted control plane has the same roots, and a sidecar that kept its state is told what changed meanwhile"
    )
    func restart() async throws {
        let storage = MemoryStorage()
        let objects: [CatalogEvent] = [.workload(Self.caller), .service(Self.cartService), .endpoint(Self.endpoint(7))]
        var kept: FakeSidecar?
        var port: UInt16 = 0
        var roots: [[UInt8]] = []
        try await withControlPlane(
            ScriptedSource(objects + [.endpoint(Self.endpoint(8)), .synchronized]), storage: storage
        ) { plane in
            let sidecar = try await startSidecar(plane)
            sidecar.subscribe(Self.vip)
            #expect(try await eventually { sidecar.state.endpoints[Self.cart]?.count == 2 })
            kept = sidecar
            port = try #require(plane.discoveryAddress?.port)
            roots = try #require(plane.trustBundle?.roots)
        }
        let sidecar = try #require(kept)
        defer { sidecar.close() }
        #expect(try await eventually { !sidecar.state.isConnected })
        #expect(sidecar.state.endpoints[Self.cart]?.count == 2)
        let messages = sidecar.state.endpointMessages
        try await withControlPlane(ScriptedSource(objects + [.synchronized]), storage: storage, port: port) { plane in
            _ = try await open(plane)
            #expect(try await eventually { sidecar.state.endpoints[Self.cart] == [Self.endpoint(7).address] })
            #expect(plane.trustBundle?.roots == roots)
            #expect(sidecar.state.endpointMessages == messages + 1)
        }
    }

    @Test("A new root is known to sidecars before it signs; certificates of the old one go on being good")
    func rootRotation() async throws {
        let source = ScriptedSource([.workload(Self.caller), .service(Self.cartService), .synchronized])
        let storage = MemoryStorage()
        let rotation = RootRotation(propagationSeconds: 0)
        try await withControlPlane(source, storage: storage, rotation: rotation, stepSeconds: 0.05) { plane in
            let sidecar = try await startSidecar(plane)
            defer { sidecar.close() }
            sidecar.subscribe(Self.vip)
            #expect(try await eventually { sidecar.state.bundles.last?.roots.count == 1 })
            let old = try #require(plane.trustBundle?.roots.first)

            try storage.state.withLock { state in
                let stored = try #require(state.stored)
                var document = try JSONDecoder().decode(AuthorityState.self, from: Data(stored.document))
                document.rotationRequested = true
                let changed = Array(try JSONEncoder().encode(document))
                state.stored = StoredAuthority(document: changed, version: "asked")
            }
            #expect(try await eventually { sidecar.state.bundles.last?.roots.count == 2 })
            #expect(try await eventually { plane.trustBundle?.roots.first != old })
            let trusted = try #require(plane.trustBundle?.roots)
            #expect(trusted.count == 2 && trusted.last == old)

            let address = try await open(plane)
            let late = try FakeSidecar(pod: Self.caller.pod, serviceAccount: "checkout")
            let issued = try await late.certify(at: address, roots: trusted)
            let leaf = try #require(issued.chain.first)
            let now = Timestamp(unixSeconds: Int64(Date().timeIntervalSince1970))
            _ = try SVIDVerifier.verify(
                leafDER: leaf, roots: [trusted[0]], allowedTrustDomains: ["cluster.local"], now: now)
            late.connect(to: address)
            defer { late.close() }
            late.subscribe(Self.vip)
            source.tell(.endpoint(Self.endpoint(7)))
            for each in [sidecar, late] {
                #expect(try await eventually { each.state.endpoints[Self.cart] == [Self.endpoint(7).address] })
            }
        }
    }

    @Test("What a pod's sidecar has learned of its ports reaches the callers of its service, and goes with the pod")
    func protocolMemory() async throws {
        let server = Self.pod("cart-7", "cart", 7, service: Self.cart)
        var endpoint = Self.endpoint(7)
        endpoint.workload = server
        let source = ScriptedSource([
            .workload(Self.caller), .workload(server), .service(Self.cartService), .endpoint(endpoint), .synchronized,
        ])
        try await withControlPlane(source) { plane in
            let caller = try await startSidecar(plane)
            defer { caller.close() }
            caller.subscribe(Self.vip)
            #expect(try await eventually { caller.state.services[Self.cart] == Self.cartService })
            let callee = try FakeSidecar(pod: server.pod, serviceAccount: "cart")
            _ = try await callee.certify(
                at: try await open(plane), roots: try #require(plane.trustBundle?.roots))
            callee.connect(to: try await open(plane))
            defer { callee.close() }
            let port = try #require(endpoint.targetPorts[80])

            // A caller is not heard about somebody else's port.
            #expect(
                try await eventually {
                    await caller.report(TelemetryReport(pod: Self.caller.pod, learnedPorts: [port: .http1]))
                })
            #expect(
                try await eventually {
                    await callee.report(TelemetryReport(pod: server.pod, learnedPorts: [port: .serverFirst]))
                })
            #expect(
                try await eventually {
                    caller.state.services[Self.cart]?.ports.first?.learnedProtocol == .serverFirst
                })
            source.tell(.workloadRemoved(server.pod), .workload(server))
            var changed = Self.cartService
            changed.retry.count = 7
            source.tell(.service(changed))
            #expect(try await eventually { caller.state.services[Self.cart] == changed })
        }
    }

    @Test("Until everything is known nothing is answered, and readiness says why")
    func synchronization() async throws {
        let source = ScriptedSource([.workload(Self.caller)])
        try await withControlPlane(source) { plane in
            #expect(try await eventually { plane.trustBundle != nil })
            let early = try await get(plane, "/ready")
            #expect(early.status == 503)
            #expect(String(decoding: early.body, as: UTF8.self).contains("the catalog is not complete yet"))
            #expect(plane.discoveryAddress == nil)
            source.tell(.synchronized)
            #expect(try await eventually { try await get(plane, "/ready").status == 200 })
            #expect(plane.discoveryAddress != nil)
        }
    }

    @Test(
        "What sidecars report appears in status, stat, edges, sidecars and check, and the metrics are good Prometheus text"
    )
    func reports() async throws {
        let source = ScriptedSource([
            .workload(Self.caller), .service(Self.cartService), .endpoint(Self.endpoint(7)),
            .endpoint(Self.endpoint(8)),
            .synchronized,
        ])
        try await withControlPlane(source) { plane in
            let sidecar = try await startSidecar(plane)
            defer { sidecar.close() }
            sidecar.subscribe(Self.vip)
            let end = Int64(Date().timeIntervalSince1970) + 7200
            let report = TelemetryReport(
                pod: Self.caller.pod, sidecarVersion: "test", certificateNotAfterUnixSeconds: end,
                edges: [
                    EdgeDelta(
                        reporter: .source, destination: EdgePeer(identity: Self.endpoint(7).workload?.identity),
                        destinationService: Self.cart, destinationPort: 80, applicationProtocol: .http1,
                        isSecured: true,
                        requests: [
                            RequestCount(status: 200, count: 99),
                            RequestCount(status: 503, reason: "connect_failed", count: 1),
                        ],
                        latency: LatencyBuckets(buckets: [.init(index: 60, count: 100)], sum: 1_000_000), retries: 3)
                ],
                ejections: [
                    EjectionReport(
                        service: Self.cart, address: Self.endpoint(8).address, sinceUnixMilliseconds: 1_800_000_000_000,
                        why: "5 consecutive failures")
                ])
            #expect(try await eventually { await sidecar.report(report) })
            var status: StatusReport?
            #expect(
                try await eventually {
                    status = try JSONDecoder().decode(StatusReport.self, from: await get(plane, "/api/v1/status").body)
                    return status?.services.first?.ejectedEndpoints == 1
                        && status?.sidecars.first?.synchronization == .current
                })
            let service = try #require(status?.services.first)
            #expect(service.verdict == .degraded)
            #expect(service.reasons.first?.hasPrefix("1 of 2 endpoints ejected by shop/checkout since") == true)
            #expect(service.figures.successRate == 0.99)
            let shown = try #require(status?.sidecars.first)
            #expect(shown.version == "test")
            #expect(shown.certificateNotAfter?.unixSeconds == end)
            #expect(shown.node == "here")
            #expect(shown.identity == "spiffe://cluster.local/ns/shop/sa/checkout")

            let stat = try JSONDecoder().decode(StatReport.self, from: await get(plane, "/api/v1/stat?to=cart").body)
            #expect(stat.rows.map(\.responses) == [["2xx": 99, "connect_failed": 1]])
            let none = try JSONDecoder().decode(
                StatReport.self, from: await get(plane, "/api/v1/stat?namespace=bank").body)
            #expect(none.rows.isEmpty)
            let edges = try JSONDecoder().decode(EdgesReport.self, from: await get(plane, "/api/v1/edges").body)
            #expect(edges.edges.map(\.security) == [.mutualTLS])
            #expect(edges.edges.first?.destination.identity == "spiffe://cluster.local/ns/shop/sa/cart")
            let sidecars = try JSONDecoder().decode(
                SidecarsReport.self, from: await get(plane, "/api/v1/sidecars").body)
            #expect(sidecars.sidecars.count == 1)
            let check = try JSONDecoder().decode(CheckReport.self, from: await get(plane, "/api/v1/check").body)
            #expect(check.isPassed)
            #expect(check.findings.contains { $0.area == "services" && $0.result == .warning })
            #expect(try await get(plane, "/api/v1/nothing").status == 404)

            let metrics = try await get(plane, "/metrics")
            #expect(metrics.status == 200)
            let objections = try promtool(metrics.body)
            #expect(objections == "")
            #expect(
                String(decoding: metrics.body, as: UTF8.self).contains(
                    "apus_control_certificate_requests_total{outcome=\"issued\"} 1\n"))
        }
    }

    /// What Prometheus' own checker objects to.
    func promtool(_ metrics: Data) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["promtool", "check", "metrics"]
        let (input, output) = (Pipe(), Pipe())
        process.standardInput = input
        process.standardOutput = output
        process.standardError = output
        try process.run()
        input.fileHandleForWriting.write(metrics)
        try input.fileHandleForWriting.close()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: text, as: UTF8.self)
    }
}
