import Glibc
import Logging
import MeshAddress
import MeshCore
import MeshIO
import MeshIdentity
import MeshProxy
import MeshTelemetry
import Synchronization

/// Two data planes: one as the caller's sidecar, one as the sidecars of all endpoints, between them mTLS with certificates
/// made for the test.
final class TestMesh: Sendable {
    struct Endpoint {
        var server: SocketAddress
        var isMeshed = true
        /// Who the caller expects there.
        var expectedAccount = "catalog"
        var isReady = true
    }

    static let serviceName = ObjectName(namespace: "shop", name: "catalog")
    static let serviceAddress = SocketAddress(IPAddress(v4: 0x0a09_0909), 80)

    let authority: CertificateAuthority
    let outbound: DataPlane
    let inbound: DataPlane
    /// Where each endpoint's sidecar listens.
    let sidecars: [SocketAddress]

    /// Servers that live as long as the mesh.
    private let kept = Mutex<[TestServer]>([])

    func keep(_ servers: TestServer...) { kept.withLock { $0 += servers } }

    /// The address that the application's connections go to.
    var entrance: SocketAddress { outbound.outboundAddresses[0] }

    init(
        _ endpoints: [Endpoint], declared: ApplicationProtocol? = .http1,
        plaintext: MeshSettings.PlaintextPolicy = .strict,
        destination: SocketAddress = TestMesh.serviceAddress, knowsDestination: Bool = true,
        resolver: (any DestinationResolver)? = nil, adjust: (inout Service) -> Void = { _ in },
        configure: (inout DataPlane.Configuration) -> Void = { _ in }
    ) throws {
        let now = Timestamp(unixSeconds: Int64(time(nil)))
        authority = try CertificateAuthority(
            trustDomain: "cluster.local", root: SigningRoot.create(trustDomain: "cluster.local", now: now))

        var called = DataPlane.Configuration(logger: TestMesh.logger)
        called.outbound = []
        called.inbound = endpoints.map {
            DataPlane.ListenerConfiguration(SocketAddress($0.server.ip, 0), destination: .fixed($0.server))
        }
        configure(&called)
        inbound = try DataPlane(called)
        sidecars = inbound.inboundAddresses
        try inbound.use(TestMesh.identity("catalog", authority), trustRoots: [authority.rootDER])
        inbound.apply([.own(TestMesh.configuration("catalog", declared, plaintext, unknown: .allow))])

        var calling = DataPlane.Configuration(logger: TestMesh.logger)
        calling.inbound = []
        calling.outbound = [
            DataPlane.ListenerConfiguration(SocketAddress(.loopback4, 0), destination: .fixed(destination))
        ]
        calling.resolver = resolver
        configure(&calling)
        outbound = try DataPlane(calling)
        try outbound.use(TestMesh.identity("checkout", authority), trustRoots: [authority.rootDER])
        outbound.apply([.own(TestMesh.configuration("checkout", nil, .strict, unknown: .allow))])

        var service = Service(
            name: TestMesh.serviceName, addresses: [TestMesh.serviceAddress.ip],
            ports: [ServicePort(port: 80, declaredProtocol: declared)])
        adjust(&service)
        var changes: [SnapshotChange] = [.service(service)]
        for (index, endpoint) in endpoints.enumerated() {
            changes.append(.endpoint(endpointValue(endpoint, index)))
        }
        if knowsDestination { changes.append(.destination(TestMesh.serviceAddress, .service(service.name, port: 80))) }
        outbound.apply(changes)
    }

    func endpointValue(_ endpoint: Endpoint, _ index: Int) -> MeshCore.Endpoint {
        let target = endpoint.isMeshed ? sidecars[index] : endpoint.server
        return MeshCore.Endpoint(
            service: TestMesh.serviceName, address: target.ip, targetPorts: [80: target.port],
            isReady: endpoint.isReady,
            workload: Workload(
                pod: ObjectName(namespace: "shop", name: "catalog-\(index)"), addresses: [target.ip],
                identity: TestMesh.spiffe(endpoint.expectedAccount), isMeshed: endpoint.isMeshed, owner: "catalog",
                app: "catalog", version: "v1"))
    }

    deinit {
        outbound.stop()
        inbound.stop()
    }

    /// One endpoint behind a sidecar.
    convenience init(
        _ server: TestServer, declared: ApplicationProtocol? = .http1, adjust: (inout Service) -> Void = { _ in }
    ) throws {
        try self.init([Endpoint(server: server.address)], declared: declared, adjust: adjust)
    }

    func client(receiveBuffer: Int32? = nil) throws -> TestSocket {
        try TestSocket.connected(to: entrance, receiveBuffer: receiveBuffer)
    }

    /// One request on a connection of its own.
    func get(_ path: String = "/", method: String = "GET", fields: String = "", body: String = "") throws -> Response {
        let client = try client()
        let length = body.isEmpty ? "" : "Content-Length: \(body.utf8.count)\r\n"
        try client.write("\(method) \(path) HTTP/1.1\r\nHost: catalog\r\n\(fields)\(length)\r\n\(body)")
        return try client.readResponse(toHEAD: method == "HEAD")
    }

    var outboundReport: LoopReport { TestMesh.report(of: outbound) }
    var inboundReport: LoopReport { TestMesh.report(of: inbound) }

    private static func report(of plane: DataPlane) -> LoopReport {
        let answer = Answer<LoopReport>()
        plane.report { if let first = $0.first { answer.give(first) } }
        return answer.wait()
    }

    static func metrics(of plane: DataPlane) -> MetricsSnapshot {
        let answer = Answer<MetricsSnapshot>()
        plane.metrics { answer.give($0) }
        return answer.wait()
    }

    static func dump(of plane: DataPlane) -> SnapshotDump {
        let answer = Answer<SnapshotDump>()
        plane.dump { if let first = $0.first { answer.give(first) } }
        return answer.wait()
    }

    static func telemetry(of plane: DataPlane) -> LoopTelemetry {
        let answer = Answer<LoopTelemetry>()
        plane.takeTelemetry { if let first = $0.first { answer.give(first) } }
        return answer.wait()
    }

    static func identity(_ account: String, _ authority: CertificateAuthority) throws -> TLSContext.Identity {
        let issued = try authority.issueServing(
            identity: spiffe(account), dnsNames: [], now: Timestamp(unixSeconds: Int64(time(nil))))
        return TLSContext.Identity(chain: issued.certificate.chain, privateKeyDER: issued.privateKeyDER)
    }

    static func spiffe(_ account: String) -> SPIFFEID {
        SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: account)
    }

    static func configuration(
        _ account: String, _ declared: ApplicationProtocol?, _ plaintext: MeshSettings.PlaintextPolicy,
        unknown: MeshSettings.UnknownDestinationPolicy
    ) -> SidecarConfiguration {
        SidecarConfiguration(
            workload: Workload(
                pod: ObjectName(namespace: "shop", name: "\(account)-1"), addresses: [IPAddress(v4: 0x0a01_0101)],
                identity: spiffe(account), isMeshed: true, owner: account, app: account, version: "v1"),
            trustDomain: "cluster.local", plaintext: plaintext, unknownDestinations: unknown)
    }

    static var logger: Logger {
        Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    }
}

/// What a loop tells, waited for.
private final class Answer<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)

    func give(_ given: Value) { value.withLock { $0 = given } }

    func wait() -> Value {
        while true {
            if let given = value.withLock({ $0 }) { return given }
            usleep(1000)
        }
    }
}
