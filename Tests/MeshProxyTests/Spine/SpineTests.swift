import Foundation
import MeshAddress
import MeshCore
import MeshIO
import MeshIdentity
import MeshProxy
import MeshTelemetry
import Synchronization
import Testing

/// Whom the two spines let in, and where they lead.
@Suite struct SpineTests {
    private static let second = IPAddress(v4: 0x7f00_0002)

    // MARK: - Identity

    @Test func aSidecarWithAnotherIdentityIsNotSpokenTo() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh([.init(server: server.address, expectedAccount: "payment")])
            let response = try mesh.get()
            #expect(response.status == 503)
            #expect(response.reason == "identity_mismatch")
            #expect(server.connections == 0)
        }
    }

    @Test func aCallerOfAnotherAuthorityIsNotServed() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let foreign = try TestMesh(server)
            try mesh.outbound.use(
                TestMesh.identity("checkout", foreign.authority), trustRoots: [mesh.authority.rootDER])
            let response = try mesh.get()
            #expect(response.status == 503 || response.status == 502)
            #expect(server.connections == 0)
        }
    }

    @Test func aNewCertificateIsUsedForNewConnections() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            #expect(try mesh.get().status == 200)
            try mesh.inbound.use(TestMesh.identity("stranger", mesh.authority), trustRoots: [mesh.authority.rootDER])
            #expect(try mesh.get().status == 200, "the connection that stands keeps the certificate it began with")
            let fresh = try TestMesh(server)
            try fresh.inbound.use(TestMesh.identity("stranger", fresh.authority), trustRoots: [fresh.authority.rootDER])
            _ = fresh.inboundReport
            #expect(try fresh.get().reason == "identity_mismatch")
        }
    }

    // MARK: - Plaintext

    @Test func strictPolicyAnswersPlaintextHTTPWithTheReason() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let client = try TestSocket.connected(to: mesh.sidecars[0])
            try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            let response = try client.readResponse()
            #expect(response.status == 403)
            #expect(response.reason == "mtls_required")
            #expect(server.connections == 0)
            let edge = try #require(TestMesh.metrics(of: mesh.inbound).edges.first)
            #expect(edge.labels.security == .none && edge.labels.destination.workload == "catalog")
            #expect(edge.series.map(\.key) == [ResponseKey(status: 403, reason: .mtlsRequired)])
        }
    }

    @Test func strictPolicyResetsOtherPlaintext() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let client = try TestSocket.connected(to: mesh.sidecars[0])
            try client.write("\u{1}\u{2}binary")
            #expect(client.isEnded())
            #expect(server.connections == 0)
        }
    }

    @Test func permissivePolicyServesPlaintext() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh([.init(server: server.address)], plaintext: .permissive)
            let client = try TestSocket.connected(to: mesh.sidecars[0])
            try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            #expect(try client.readResponse().text == "hello")
            #expect(mesh.inboundReport.counters.plaintextAccepted == 1)
        }
    }

    @Test func permissivePolicyLetsAServerSpeakFirst() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                try socket.write("220 ready\r\n")
                #expect(try socket.readText(4) == "HELO")
            }
            let mesh = try TestMesh([.init(server: server.address)], declared: nil, plaintext: .permissive)
            let client = try TestSocket.connected(to: mesh.sidecars[0])
            #expect(try client.readText(11) == "220 ready\r\n")
            try client.write("HELO")
        }
    }

    // MARK: - Protocols

    @Test(arguments: [ApplicationProtocol.opaque, nil], [true, false])
    func bytesPassWithBothHalfCloses(_ declared: ApplicationProtocol?, _ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                let all = try socket.readToEnd()
                try socket.write(all.reversed())
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)], declared: declared)
            let client = try mesh.client()
            let payload = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            try client.write([0] + payload)
            client.finishWriting()
            #expect(try client.readToEnd() == payload.reversed() + [0])
            let count = UInt64(payload.count + 1)
            try eventually("every byte is counted") {
                let streams = TestMesh.metrics(of: mesh.outbound).edges.first?.streams ?? StreamCounts()
                return streams.receivedBytes == count && streams.sentBytes == count && streams.connectionsClosed == 1
            }
        }
    }

    @Test func aServerThatSpeaksFirstIsHeardWithoutADeclaration() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                try socket.write("+OK redis\r\n")
                #expect(try socket.readText(4) == "PING")
                try socket.write("+PONG")
            }
            let mesh = try TestMesh(server, declared: nil)
            let client = try mesh.client()
            #expect(try client.readText(11) == "+OK redis\r\n")
            try client.write("PING")
            #expect(try client.readText(5) == "+PONG")
        }
    }

    @Test func undeclaredHTTPIsRecognised() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server, declared: nil)
            #expect(try mesh.get().text == "hello")
            #expect(mesh.outboundReport.counters.requests == 1)
        }
    }

    /// And HTTP/1 likewise: what leaves the mesh is passed on as it is.
    @Test(arguments: ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
    func whatLeavesTheMeshPassesAsBytes(_ first: String) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                #expect(try socket.readText(first.utf8.count) == first)
                try socket.write("settings")
            }
            let mesh = try TestMesh([], destination: server.address, knowsDestination: false)
            mesh.outbound.apply([.destination(server.address, .unknown)])
            let client = try mesh.client()
            try client.write(first)
            #expect(try client.readText(8) == "settings")
            #expect(mesh.outboundReport.counters.requests == 0)
        }
    }

    // MARK: - Destinations

    private final class Answering: DestinationResolver {
        let asked = Mutex<[SocketAddress]>([])
        func resolve(_ address: SocketAddress) { asked.withLock { $0.append(address) } }
        func keepAlive(_ addresses: [SocketAddress]) {}
    }

    @Test func aConnectionWaitsForItsDestinationToBecomeKnown() async throws {
        try await onOwnThread {
            let resolver = Answering()
            let server = try TestServer.http()
            let mesh = try TestMesh([.init(server: server.address)], knowsDestination: false, resolver: resolver)
            let client = try mesh.client()
            try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            try eventually("the destination is asked for") {
                resolver.asked.withLock { $0.contains(TestMesh.serviceAddress) }
            }
            mesh.outbound.apply([.destination(TestMesh.serviceAddress, .service(TestMesh.serviceName, port: 80))])
            #expect(try client.readResponse().text == "hello")
        }
    }

    /// An end that comes while the destination is asked for is the relay's to judge, like one that comes later.
    @Test(
        arguments: [nil, ApplicationProtocol.http1],
        ["GET / HTTP/1.1\r\nHost: catalog\r\n\r\n", "GET / HTTP/1.1\r\nHost:"])
    func aClientThatFinishesWhileItsDestinationIsAskedFor(declared: ApplicationProtocol?, request: String) async throws
    {
        try await onOwnThread {
            let resolver = Answering()
            let server = try TestServer.http()
            let mesh = try TestMesh(
                [.init(server: server.address)], declared: declared, knowsDestination: false, resolver: resolver)
            let client = try mesh.client()
            try client.write(request)
            client.finishWriting()
            try eventually("the destination is asked for") {
                resolver.asked.withLock { $0.contains(TestMesh.serviceAddress) }
            }
            mesh.outbound.apply([.destination(TestMesh.serviceAddress, .service(TestMesh.serviceName, port: 80))])
            if request.hasSuffix("\r\n\r\n") {
                #expect(try client.readResponse().text == "hello")
                #expect(mesh.outboundReport.counters.requests == 1)
            }
            #expect(client.isEnded())
        }
    }

    @Test func anUnknownDestinationIsPassedThroughByDefault() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh([], destination: server.address, knowsDestination: false)
            mesh.outbound.apply([.destination(server.address, .unknown)])
            #expect(try mesh.get().text == "hello")
        }
    }

    @Test func anUnknownDestinationIsDeniedByPolicy() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh([], destination: server.address, knowsDestination: false)
            mesh.outbound.apply([
                .own(TestMesh.configuration("checkout", nil, .strict, unknown: .deny)),
                .destination(server.address, .unknown),
            ])
            let response = try mesh.get()
            #expect(response.status == 403)
            #expect(response.reason == "unknown_destination_denied")
            #expect(server.connections == 0)
            let edge = try #require(TestMesh.metrics(of: mesh.outbound).edges.first)
            #expect(edge.labels.destination.address == server.address.ip, "it names what was dialled")
            #expect(edge.series.map(\.key) == [ResponseKey(status: 403, reason: .unknownDestinationDenied)])
        }
    }

    @Test func aConnectionToTheSidecarItselfIsRefused() async throws {
        try await onOwnThread {
            var configuration = DataPlane.Configuration(logger: TestMesh.logger)
            configuration.outbound = [.init(SocketAddress(.loopback4, 0))]
            configuration.inbound = [.init(SocketAddress(.loopback4, 0))]
            let plane = try DataPlane(configuration)
            defer { plane.stop() }
            for address in plane.outboundAddresses + plane.inboundAddresses {
                #expect(try TestSocket.connected(to: address).isEnded())
            }
        }
    }

    @Test func thePodsOwnAddressIsReachedWithoutTLS() async throws {
        try await onOwnThread {
            let server = try TestServer.http(on: Self.second)
            let mesh = try TestMesh([.init(server: server.address)])
            var own = TestMesh.configuration("checkout", nil, .strict, unknown: .allow)
            own.workload.addresses = [Self.second]
            var endpoint = mesh.endpointValue(.init(server: server.address), 0)
            endpoint.targetPorts = [80: server.address.port]
            mesh.outbound.apply([.own(own), .endpoint(endpoint)])
            #expect(try mesh.get().text == "hello")
            #expect(mesh.inboundReport.counters.requests == 0)
        }
    }

    // MARK: - Changes

    @Test func anEndpointThatIsRemovedGetsNothingMore() async throws {
        try await onOwnThread {
            let one = try TestServer.http { _, _ in TestServer.ok("one") }
            let other = try TestServer.http(on: Self.second) { _, _ in TestServer.ok("other") }
            let mesh = try TestMesh([.init(server: one.address), .init(server: other.address)]) {
                $0.loadBalancing = .roundRobin
            }
            let client = try mesh.client()
            func ask() throws -> String {
                try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                return try client.readResponse().text
            }
            #expect(Set(try (0..<4).map { _ in try ask() }) == ["one", "other"])
            let before = mesh.outboundReport.changesApplied
            mesh.outbound.apply([.endpointRemoved(service: TestMesh.serviceName, address: one.address.ip)])
            try eventually("the change is applied") { mesh.outboundReport.changesApplied > before }
            #expect(Set(try (0..<8).map { _ in try ask() }) == ["other"])
        }
    }

    @Test func aTerminatingEndpointIsUsedOnlyWhenNoOtherIsLeft() async throws {
        try await onOwnThread {
            let one = try TestServer.http { _, _ in TestServer.ok("one") }
            let other = try TestServer.http(on: Self.second) { _, _ in TestServer.ok("other") }
            let mesh = try TestMesh([.init(server: one.address, isReady: false), .init(server: other.address)])
            for _ in 0..<10 { #expect(try mesh.get().text == "other") }
            mesh.outbound.apply([.endpointRemoved(service: TestMesh.serviceName, address: other.address.ip)])
            try eventually("the one that is left answers") { try mesh.get().text == "one" }
        }
    }

    // MARK: - Drain

    @Test func drainingLetsRequestsFinishAndEndsConnections() async throws {
        try await onOwnThread {
            let release = Atomic<Bool>(false)
            let server = try TestServer.http { head, _ in
                if head.startLine.contains("/slow") { try eventually("release") { release.load(ordering: .relaxed) } }
                return TestServer.ok("done")
            }
            let mesh = try TestMesh(server)
            let slow = try mesh.client()
            try slow.write("GET /slow HTTP/1.1\r\nHost: catalog\r\n\r\n")
            try eventually("the request is in flight") { mesh.inboundReport.requestsInFlight == 1 }
            let left = Atomic<Int>(-1)
            mesh.inbound.drain(deadlineMilliseconds: 10_000) { left.store($0, ordering: .relaxed) }
            #expect(try mesh.get("/new").text == "done", "new connections are still served")
            #expect(left.load(ordering: .relaxed) == -1)
            release.store(true, ordering: .relaxed)
            #expect(try slow.readResponse().text == "done")
            try eventually("the drain has ended") { left.load(ordering: .relaxed) == 0 }
        }
    }
}
