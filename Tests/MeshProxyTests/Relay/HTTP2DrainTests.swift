import Glibc
import MeshAddress
import MeshCore
import MeshIdentity
import MeshProxy
import Synchronization
import Testing

/// An endpoint's sidecar stops while its callers go on.
@Suite struct HTTP2DrainTests {
    private static let second = IPAddress(v4: 0x7f00_0002)

    /// Another endpoint of the mesh's service, behind a sidecar of its own.
    private func addEndpoint(_ server: TestServer, to mesh: TestMesh) throws -> DataPlane {
        mesh.keep(server)
        var configuration = DataPlane.Configuration(logger: TestMesh.logger)
        configuration.outbound = []
        configuration.inbound = [
            DataPlane.ListenerConfiguration(SocketAddress(server.address.ip, 0), destination: .fixed(server.address))
        ]
        let sidecar = try DataPlane(configuration)
        try sidecar.use(TestMesh.identity("catalog", mesh.authority), trustRoots: [mesh.authority.rootDER])
        sidecar.apply([.own(TestMesh.configuration("catalog", .grpc, .strict, unknown: .allow))])
        mesh.outbound.apply([.endpoint(endpoint(at: sidecar.inboundAddresses[0]))])
        return sidecar
    }

    private func endpoint(at address: SocketAddress) -> MeshCore.Endpoint {
        MeshCore.Endpoint(
            service: TestMesh.serviceName, address: address.ip, targetPorts: [80: address.port], isReady: true,
            workload: Workload(
                pod: ObjectName(namespace: "shop", name: "catalog-9"), addresses: [address.ip],
                identity: TestMesh.spiffe("catalog"), isMeshed: true, owner: "catalog", app: "catalog", version: "v1"))
    }

    @Test func openStreamsFinishAndNewOnesGoElsewhere() async throws {
        try await onOwnThread {
            let release = Atomic<Bool>(false)
            let leaving = try TestServer.http2(on: Self.second) { peer, stream in
                if peer.received[stream]?.head[":path"] == "/long" {
                    try peer.send(head: [(":status", "200"), ("content-type", "application/grpc")], on: stream)
                    while !release.load(ordering: .relaxed) { usleep(5_000) }
                    try peer.send(.data, stream: stream, Array("leaving".utf8))
                    try peer.send(head: [("grpc-status", "0")], on: stream, ends: true)
                } else {
                    try peer.answerCall(stream, message: "leaving")
                }
            }
            let mesh = try TestMesh.http2(
                TestServer.calls(message: "staying"), adjust: { $0.loadBalancing = .roundRobin })
            let sidecar = try addEndpoint(leaving, to: mesh)
            defer { sidecar.stop() }
            let client = try mesh.http2Client()
            let answers = Set(try (0..<10).map { _ in try client.call().text })
            #expect(answers == ["staying", "leaving"])
            // Two in a row: one of them is at the endpoint that leaves.
            let long = try (0..<2).map { _ in
                try client.open(HTTP2Peer.request("POST", "/long", HTTP2Peer.grpc), ends: true)
            }
            try eventually("one is under way there") { mesh.outboundReport.requestsInFlight == 1 }
            usleep(50_000)
            let left = Atomic<Int>(-1)
            sidecar.drain(deadlineMilliseconds: 10_000) { left.store($0, ordering: .relaxed) }
            try eventually("the caller has been told") { mesh.outboundReport.counters.withdrawals == 1 }
            for _ in 0..<20 { #expect(try client.call().text == "staying") }
            #expect(left.load(ordering: .relaxed) == -1, "the open one is waited for")
            release.store(true, ordering: .relaxed)
            for stream in long { #expect(try client.response(stream).grpcStatus == "0") }
            try eventually("the drain ends") { left.load(ordering: .relaxed) == 0 }
            try mesh.becomesQuiet()
        }
    }

    @Test func theLastEndpointServesUntilItIsGone() async throws {
        try await onOwnThread {
            let mesh = try TestMesh.http2(TestServer.calls())
            let client = try mesh.http2Client()
            #expect(try client.call().text == "answer")
            mesh.inbound.drain(deadlineMilliseconds: 10_000) { _ in }
            try eventually("the caller has been told") { mesh.outboundReport.counters.withdrawals == 1 }
            for _ in 0..<20 { #expect(try client.call().text == "answer") }
        }
    }

    @Test func idleConnectionsOfCallersEndWithTheDrain() async throws {
        try await onOwnThread {
            let mesh = try TestMesh.http2(TestServer.calls())
            let client = try mesh.http2Client()
            #expect(try client.call().text == "answer")
            #expect(mesh.inboundReport.connections >= 1)
            mesh.inbound.drain(deadlineMilliseconds: 10_000) { _ in }
            try eventually("the caller's sidecar lets go") {
                // What is left is the pooled connection to the application.
                mesh.inboundReport.connections <= 1
            }
        }
    }

    @Test func aRolloutUnderLoadLosesNoCall() async throws {
        try await onOwnThread {
            let mesh = try TestMesh.http2(TestServer.calls(message: "0"))
            let isOver = Atomic<Bool>(false)
            let calls = Atomic<Int>(0)
            let failures = Mutex<[String]>([])
            let running = Atomic<Int>(4)
            for _ in 0..<4 {
                startThread {
                    defer { running.subtract(1, ordering: .relaxed) }
                    do {
                        let client = try mesh.http2Client()
                        while !isOver.load(ordering: .relaxed) {
                            let streams = try (0..<16).map { _ in
                                try client.open(HTTP2Peer.request("POST", "/", HTTP2Peer.grpc), body: "message")
                            }
                            for stream in streams {
                                let call = try client.response(stream)
                                if call.grpcStatus != "0" || call.text.isEmpty {
                                    failures.withLock { $0.append("\(call.grpcStatus ?? "none") \(call.reason ?? "")") }
                                }
                                client.forget(stream)
                                calls.add(1, ordering: .relaxed)
                            }
                        }
                    } catch { failures.withLock { $0.append("\(error)") } }
                }
            }
            for round in 1...10 {
                let server = try TestServer.calls(on: Self.second, message: "\(round)")
                let sidecar = try addEndpoint(server, to: mesh)
                usleep(200_000)
                let left = Atomic<Int>(-1)
                sidecar.drain(deadlineMilliseconds: 5_000) { left.store($0, ordering: .relaxed) }
                usleep(50_000)
                mesh.outbound.apply([
                    .endpointRemoved(
                        service: TestMesh.serviceName, address: sidecar.inboundAddresses[0].ip)
                ])
                try eventually("the drain ends") { left.load(ordering: .relaxed) == 0 }
                sidecar.stop()
            }
            isOver.store(true, ordering: .relaxed)
            try eventually("the callers stop") { running.load(ordering: .relaxed) == 0 }
            #expect(failures.withLock { $0 } == [])
            #expect(calls.load(ordering: .relaxed) > 1_000)
            try mesh.becomesQuiet()
        }
    }
}
