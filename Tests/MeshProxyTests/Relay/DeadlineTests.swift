import Foundation
import MeshAddress
import MeshCore
import MeshProxy
import Synchronization
import Testing

/// What slow or silent clients and changing endpoints meet with.
@Suite struct DeadlineTests {
    private func mesh(_ server: TestServer, _ adjust: @escaping (inout DataPlane.Deadlines) -> Void) throws -> TestMesh
    {
        try TestMesh([.init(server: server.address)], configure: { adjust(&$0.deadlines) })
    }

    @Test(arguments: ["GET / HTTP/1.1\r\nHost:", "GET /a-line-that-does-not-end", "G"])
    func aHeadThatNeverEndsIsAnswered408(_ beginning: String) async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try mesh(server) { $0.headMilliseconds = 50 }
            let client = try mesh.client()
            try client.write(beginning)
            let response = try client.readResponse()
            #expect(response.status == 408)
            #expect(response.reason == "head_timeout")
            #expect(client.isEnded())
        }
    }

    @Test func anIdleClientIsLetGo() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try mesh(server) { $0.idleMilliseconds = 50 }
            let client = try mesh.client()
            try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            #expect(try client.readResponse().status == 200)
            #expect(client.isEnded())
        }
    }

    @Test func aByteStreamOnWhichNothingMovesIsClosed() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in _ = try socket.readToEnd() }
            let mesh = try TestMesh(
                [.init(server: server.address)], declared: .opaque,
                configure: { $0.deadlines.byteIdleMilliseconds = 50 })
            let client = try mesh.client()
            try client.write("x")
            #expect(client.isEnded())
        }
    }

    @Test func aDestinationThatNobodyAnswersForIsLeftToPolicy() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(
                [], destination: server.address, knowsDestination: false,
                configure: { $0.deadlines.destinationMilliseconds = 50 })
            #expect(try mesh.get().text == "hello")
            mesh.outbound.apply([.own(TestMesh.configuration("checkout", nil, .strict, unknown: .deny))])
            let response = try mesh.get()
            #expect(response.status == 503)
            #expect(response.reason == "destination_timeout")
        }
    }

    /// Endpoints come, go and are drained all the time, under load from several connections; nobody notices.
    @Test func endpointsThatComeAndGoCostNoRequest() async throws {
        try await onOwnThread {
            let servers = try (1...3).map { number in
                try TestServer.http(on: IPAddress(v4: 0x7f00_0000 + UInt32(number))) { _, _ in
                    TestServer.ok("\(number)")
                }
            }
            let mesh = try TestMesh(servers.map { .init(server: $0.address) })
            let failures = Mutex<[String]>([])
            let answered = Atomic<Int>(0)
            let finished = Atomic<Int>(0)
            for _ in 0..<4 {
                startThread {
                    defer { finished.add(1, ordering: .relaxed) }
                    do {
                        let client = try mesh.client()
                        for index in 0..<1000 {
                            let method = index % 2 == 0 ? "GET" : "POST"
                            try client.write("\(method) / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 1\r\n\r\nx")
                            let response = try client.readResponse()
                            if response.status != 200 {
                                failures.withLock { $0.append("\(response.status) \(response.text)") }
                            }
                            answered.add(1, ordering: .relaxed)
                        }
                    } catch {
                        failures.withLock { $0.append("\(error)") }
                    }
                }
            }
            var round = 0
            while finished.load(ordering: .relaxed) < 4 {
                let index = round % 3
                let endpoint = mesh.endpointValue(.init(server: servers[index].address), index)
                mesh.outbound.apply([.endpointRemoved(service: TestMesh.serviceName, address: endpoint.address)])
                usleep(2000)
                mesh.outbound.apply([.endpoint(endpoint)])
                usleep(2000)
                round += 1
            }
            #expect(failures.withLock { $0 } == [])
            #expect(answered.load(ordering: .relaxed) == 4000)
        }
    }
}
