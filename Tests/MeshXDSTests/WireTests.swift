import Foundation
import MeshAPI
import MeshAddress
import MeshCore
import MeshXDS
import Testing

@Suite struct WireTests {
    private static let identity = SPIFFEID(trustDomain: "test", namespace: "a", serviceAccount: "b")

    @Test func everyValueComesBackAsItWent() throws {
        let full = Workload(
            pod: ObjectName("p"), addresses: [ip(1), IPAddress(high: 1, low: 2)], identity: WireTests.identity,
            isMeshed: true,
            owner: "o", app: "a", version: "v", node: "n",
            ports: [1: .http1, 2: .http2, 3: .grpc, 4: .tls, 5: .opaque],
            learnedPorts: [6: .http1, 7: .http2, 8: .tls, 9: .opaque, 10: .serverFirst],
            service: ObjectName("s"), skippedInboundPorts: [9, 65_535])
        let empty = Workload(pod: ObjectName("p"), addresses: [])
        for destination in [
            Destination.unknown, .service(ObjectName("s"), port: 65_535), .workload(full), .workload(empty),
        ] {
            let bytes = ResourceEncoding.bytes(ResourceEncoding.encode(destination))
            #expect(try ResourceDecoding.destination(bytes) == destination)
        }
        var service = Service(
            name: ObjectName("s"), addresses: [ip(1)],
            ports: [
                ServicePort(port: 80, name: "http", declaredProtocol: .grpc),
                ServicePort(port: 81, learnedProtocol: .serverFirst),
            ],
            retry: RetryPolicy(count: 0, statuses: [503, 429], grpcStatuses: [14], perTryTimeoutMilliseconds: 10),
            requestTimeoutMilliseconds: 20, connectTimeoutMilliseconds: 30, loadBalancing: .random)
        service.requestBodyLimitBytes = 1 << 40
        for balancing in [LoadBalancing.peakEWMA, .roundRobin, .random] {
            service.loadBalancing = balancing
            #expect(try ResourceDecoding.service(ResourceEncoding.bytes(ResourceEncoding.encode(service))) == service)
        }
        let plain = Service(name: ObjectName("s"))
        #expect(try ResourceDecoding.service(ResourceEncoding.bytes(ResourceEncoding.encode(plain))) == plain)
        for endpoint in [
            Endpoint(
                service: ObjectName("s"), address: ip(1), targetPorts: [80: 8080, 81: 81], isReady: false,
                workload: full),
            Endpoint(service: ObjectName("s"), address: IPAddress(high: 7, low: 8), targetPorts: [:]),
        ] {
            #expect(
                try ResourceDecoding.endpoint(ResourceEncoding.bytes(ResourceEncoding.encode(endpoint))) == endpoint)
        }
        for plaintext in MeshSettings.PlaintextPolicy.allCases {
            for unknown in MeshSettings.UnknownDestinationPolicy.allCases {
                let configuration = SidecarConfiguration(
                    workload: full, trustDomain: "t", plaintext: plaintext, unknownDestinations: unknown)
                let bytes = ResourceEncoding.bytes(ResourceEncoding.encode(configuration))
                #expect(try ResourceDecoding.configuration(bytes) == configuration)
            }
        }
        let bundle = TrustBundle(trustDomain: "t", roots: [[1], [2, 3]])
        #expect(try ResourceDecoding.trustBundle(ResourceEncoding.bytes(ResourceEncoding.encode(bundle))) == bundle)
    }

    @Test func equalValuesAreEqualBytes() {
        // A dictionary's order differs between two of the same content.
        let ports = Dictionary(
            uniqueKeysWithValues: (1...200 as ClosedRange<UInt16>).map { ($0, ApplicationProtocol.http1) })
        let reversed = Dictionary(
            uniqueKeysWithValues: (1...200 as ClosedRange<UInt16>).reversed().map { ($0, ApplicationProtocol.http1) })
        let workloads = [ports, reversed].map { Workload(pod: ObjectName("p"), addresses: [], ports: $0) }
        let bytes = workloads.map { ResourceEncoding.bytes(ResourceEncoding.encode(Destination.workload($0))) }
        #expect(bytes[0] == bytes[1])
        #expect(EncodedResource.version(of: bytes[0]).count == 16)
        #expect(EncodedResource.version(of: []) == "cbf29ce484222325")
    }

    @Test func anInvalidResourceNamesTheFieldAndItsValue() throws {
        typealias Case = (bytes: [UInt8], decode: ([UInt8]) throws -> Void, reason: String)
        let service = ResourceEncoding.encode(Service(name: ObjectName("s")))
        func changed<Value>(_ value: Value, _ body: (inout Value) -> Void) -> Value {
            var value = value
            body(&value)
            return value
        }
        let decodeService: ([UInt8]) throws -> Void = { _ = try ResourceDecoding.service($0) }
        let decodeEndpoint: ([UInt8]) throws -> Void = { _ = try ResourceDecoding.endpoint($0) }
        let endpoint = ResourceEncoding.encode(
            Endpoint(service: ObjectName("s"), address: ip(1), targetPorts: [80: 80]))
        let cases: [Case] = [
            (
                ResourceEncoding.bytes(changed(service) { $0.name.name = "" }), decodeService,
                "name 'shop/' is not a namespace and a name"
            ),
            (
                ResourceEncoding.bytes(changed(service) { $0.name.name = "a/b" }), decodeService,
                "name 'shop/a/b' is not a namespace and a name"
            ),
            (
                ResourceEncoding.bytes(changed(service) { $0.connectTimeoutMilliseconds = 0 }), decodeService,
                "connect_timeout_milliseconds is 0, at least 1 is expected"
            ),
            (
                ResourceEncoding.bytes(changed(service) { $0.addresses = [Data([1, 2, 3])] }), decodeService,
                "addresses has 3 bytes, an address has 4 or 16"
            ),
            (
                ResourceEncoding.bytes(changed(service) { $0.retry.statuses = [99] }), decodeService,
                "retry.statuses 99 is not an HTTP status (100 to 599)"
            ),
            (
                ResourceEncoding.bytes(changed(endpoint) { $0.targetPorts[0].port = 65_536 }), decodeEndpoint,
                "target_ports.port 65536 is not a port (1 to 65535)"
            ),
            (
                ResourceEncoding.bytes(
                    changed(endpoint) {
                        $0.workload.pod = ResourceEncoding.encode(ObjectName("p"))
                        $0.workload.identity = "http://x"
                    }), decodeEndpoint,
                "workload.identity: 'http://x' is not a SPIFFE ID: it does not start with spiffe://"
            ),
            (
                [], { _ = try ResourceDecoding.destination($0) },
                "the destination is neither service, workload nor unknown"
            ),
            ([], { _ = try ResourceDecoding.trustBundle($0) }, "trust_domain is empty"),
            ([], { _ = try ResourceDecoding.configuration($0) }, "trust_domain is empty"),
        ]
        for (bytes, decode, reason) in cases {
            #expect(throws: InvalidResource(reason)) { try decode(bytes) }
        }
    }

    @Test func anyBytesAreAResourceOrARefusalButNeverATrap() {
        var random = SeededRandom(7)
        let seeds = [
            ResourceEncoding.bytes(ResourceEncoding.encode(Destination.workload(workload("w", ip(1))))),
            ResourceEncoding.bytes(ResourceEncoding.encode(Service(name: ObjectName("s"), addresses: [ip(1)]))),
        ]
        for _ in 0..<20_000 {
            var bytes = seeds[Int(random.next() % 2)]
            for _ in 0...Int(random.next() % 4) {
                let index = Int(random.next() % UInt64(bytes.count))
                switch random.next() % 3 {
                case 0: bytes[index] = UInt8(truncatingIfNeeded: random.next())
                case 1: bytes.remove(at: index)
                default: bytes.insert(UInt8(truncatingIfNeeded: random.next()), at: index)
                }
                if bytes.isEmpty { bytes = [0] }
            }
            _ = try? ResourceDecoding.destination(bytes)
            _ = try? ResourceDecoding.service(bytes)
            _ = try? ResourceDecoding.endpoint(bytes)
            _ = try? ResourceDecoding.configuration(bytes)
            _ = try? ResourceDecoding.trustBundle(bytes)
        }
    }

    @Test func aReportComesBackAsItWent() throws {
        let pod = ObjectName(namespace: "shop", name: "p")
        let edge = EdgeDelta(
            reporter: .destination,
            source: EdgePeer(
                pod: ObjectName("s"), namespace: "n", owner: "o", app: "a", version: "v", identity: WireTests.identity,
                address: ip(1)),
            destination: EdgePeer(namespace: "m"), destinationService: ObjectName("d"), destinationPort: 80,
            applicationProtocol: .grpc, isSecured: true,
            requests: [
                RequestCount(status: 200, grpcStatus: 14, reason: "", count: 5),
                RequestCount(status: 503, reason: "no_healthy_upstream", count: 1),
            ],
            latency: LatencyBuckets(buckets: [.init(index: 3, count: 2), .init(index: 99, count: UInt64.max)], sum: 7),
            retries: 1, connectionsOpened: 2, connectionsClosed: 3, connectionsFailed: 4, bytesSent: 5,
            bytesReceived: UInt64.max)
        let report = TelemetryReport(
            pod: pod, sidecarVersion: "1", certificateNotAfterUnixSeconds: -5, discoveryVersion: "77",
            intervalMilliseconds: 1000, edges: [edge, EdgeDelta(reporter: .source)],
            ejections: [
                EjectionReport(service: ObjectName("d"), address: ip(2), sinceUnixMilliseconds: 9, why: "5 in a row")
            ],
            refusals: [ResourceRefusal(type: "Service", name: "a/b", version: "1", reason: "bad")],
            learnedPorts: [3306: .serverFirst, 80: .http1])
        let decoded = try TelemetryWire.decode(TelemetryWire.encode(report), pod: pod)
        #expect(decoded.report == report && decoded.dropped == 0)
        #expect(throws: InvalidResource("pod 'shop/p' is not the stream's pod 'shop/q'")) {
            try TelemetryWire.decode(TelemetryWire.encode(report), pod: ObjectName(namespace: "shop", name: "q"))
        }
        var long = report
        long.edges = Array(repeating: edge, count: TelemetryReport.edgeLimit + 3)
        var message = TelemetryWire.encode(long)
        message.edges += Array(repeating: message.edges[0], count: 3)
        #expect(try TelemetryWire.decode(message, pod: pod).dropped == 3)
        long = report
        long.learnedPorts = Dictionary(uniqueKeysWithValues: (1...100).map { ($0, .tls) })
        #expect(try TelemetryWire.decode(TelemetryWire.encode(long), pod: pod).report.learnedPorts.count == 64)
    }

    @Test func delaysGrowToFiveSecondsAndAreNeverTheSameForAll() {
        var backoff = Backoff(seed: 5)
        var bounds = 50
        for _ in 0..<20 {
            let delay = backoff.delayMilliseconds()
            #expect(delay <= bounds && delay >= bounds / 2)
            bounds = min(bounds * 2, 5000)
        }
        backoff.reset()
        #expect(backoff.delayMilliseconds() <= 50)
        let firsts = Set(
            (0..<50 as Range<UInt64>).map { seed in
                var backoff = Backoff(seed: seed &* 7919)
                for _ in 0..<8 { _ = backoff.delayMilliseconds() }
                return backoff.delayMilliseconds()
            })
        #expect(firsts.count > 25)
    }
}
