import Foundation
import MeshAddress
import MeshCore
import MeshProxy
import Synchronization
import Testing

/// What happens when an endpoint fails: another one, or an answer that says why.
@Suite struct RetryTests {
    private static let second = IPAddress(v4: 0x7f00_0002)

    @Test func anIdempotentRequestWhoseEndpointDiesIsAnsweredByAnother() async throws {
        try await onOwnThread {
            let dying = try TestServer { socket, _ in
                _ = try socket.readHead()
                socket.reset()
            }
            let healthy = try TestServer.http(on: Self.second)
            // In turn, so that the dying one is surely asked.
            let mesh = try TestMesh(
                [.init(server: dying.address), .init(server: healthy.address)],
                adjust: { $0.loadBalancing = .roundRobin })
            for _ in 0..<10 { #expect(try mesh.get().status == 200) }
            #expect(dying.connections > 0, "it was tried")
        }
    }

    @Test func aPostWhoseEndpointDiesAfterItWasSentIsNotRepeated() async throws {
        try await onOwnThread {
            let seen = Atomic<Int>(0)
            let dying: @Sendable (TestSocket, Int) throws -> Void = { socket, _ in
                if let head = try socket.readHead() {
                    _ = try socket.readBody(head)
                    seen.add(1, ordering: .relaxed)
                }
                socket.reset()
            }
            let one = try TestServer(script: dying)
            let other = try TestServer(on: Self.second, script: dying)
            let mesh = try TestMesh([.init(server: one.address), .init(server: other.address)])
            let response = try mesh.get(method: "POST", body: "pay")
            #expect(response.status == 502)
            #expect(response.reason == "upstream_reset")
            #expect(seen.load(ordering: .relaxed) == 1)
        }
    }

    @Test func aPostThatNoApplicationHasSeenGoesToAnother() async throws {
        try await onOwnThread {
            let refusing = try TestServer.refusing()
            let healthy = try TestServer.http(on: Self.second) { _, body in
                TestServer.ok(String(decoding: body, as: UTF8.self))
            }
            let mesh = try TestMesh([.init(server: refusing.address), .init(server: healthy.address)])
            for _ in 0..<10 {
                let response = try mesh.get(method: "POST", body: "pay")
                #expect(response.status == 200)
                #expect(response.text == "pay")
            }
        }
    }

    @Test func whenAllEndpointsAreDownTheAnswerSaysSo() async throws {
        try await onOwnThread {
            let server = try TestServer.refusing()
            for isMeshed in [true, false] {
                let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)])
                let response = try mesh.get()
                #expect(response.status == 503)
                #expect(response.reason == "connect_failed")
            }
            let mesh = try TestMesh([])
            let response = try mesh.get()
            #expect(response.status == 503)
            #expect(response.reason == "no_healthy_upstream")
        }
    }

    @Test func aResponseThatBreaksOffIsBrokenOffForTheClientToo() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                try socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            #expect(throws: TestSocket.Failure.self) { try client.readResponse() }
        }
    }

    @Test func listedStatusesAreRetriedOnAnotherEndpoint() async throws {
        try await onOwnThread {
            let overloaded = try TestServer.http { _, _ in
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
            }
            let healthy = try TestServer.http(on: Self.second)
            let endpoints = [TestMesh.Endpoint(server: overloaded.address), TestMesh.Endpoint(server: healthy.address)]
            let retrying = try TestMesh(endpoints) { $0.retry.statuses = [503] }
            for _ in 0..<20 { #expect(try retrying.get().status == 200) }
            let plain = try TestMesh(endpoints) { $0.loadBalancing = .roundRobin }
            #expect(Set(try (0..<4).map { _ in try plain.get().status }) == [200, 503])
        }
    }

    @Test func anEndpointThatKeepsFailingIsEjected() async throws {
        try await onOwnThread {
            let failing = Atomic<Int>(0)
            let broken = try TestServer.http { _, _ in
                failing.add(1, ordering: .relaxed)
                return "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
            }
            let healthy = try TestServer.http(on: Self.second)
            let mesh = try TestMesh([.init(server: broken.address), .init(server: healthy.address)]) {
                $0.loadBalancing = .roundRobin
            }
            for _ in 0..<40 { _ = try mesh.get() }
            #expect(failing.load(ordering: .relaxed) == OutlierDetector.consecutiveFailureLimit)
            #expect(mesh.outboundReport.counters.ejections == 1)
        }
    }

    @Test func aRequestThatTakesTooLongIsAnsweredInTime() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                _ = try socket.readToEnd()
            }
            let mesh = try TestMesh(server) { $0.requestTimeoutMilliseconds = 100 }
            let response = try mesh.get()
            #expect(response.status == 504)
            #expect(response.reason == "request_timeout")
        }
    }

    @Test func aTryThatTakesTooLongIsGivenToAnotherEndpoint() async throws {
        try await onOwnThread {
            let hanging = try TestServer { socket, _ in _ = try socket.readToEnd() }
            let healthy = try TestServer.http(on: Self.second)
            let mesh = try TestMesh([.init(server: hanging.address), .init(server: healthy.address)]) {
                $0.retry.perTryTimeoutMilliseconds = 1000
                $0.loadBalancing = .roundRobin
            }
            for _ in 0..<2 { #expect(try mesh.get().status == 200) }
        }
    }

    @Test func anIdleConnectionThatTheEndpointClosedCostsNobodyAnything() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                // One request a connection, without saying so.
                if let head = try socket.readHead() {
                    _ = try socket.readBody(head)
                    try socket.write(TestServer.ok("hello"))
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            for count in 1...10 {
                try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                #expect(try client.readResponse().status == 200)
                #expect(server.connections == count)
            }
        }
    }

    @Test func theRetryBudgetBoundsWhatAnOutageCauses() async throws {
        try await onOwnThread {
            let tries = Atomic<Int>(0)
            let server = try TestServer { socket, _ in
                if try socket.readHead() != nil { tries.add(1, ordering: .relaxed) }
                socket.reset()
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: false)]) { $0.retry.count = 1 }
            let requests = 100
            for _ in 0..<requests { #expect(try mesh.get().status == 502) }
            let allowance = requests / 5 + RetryBudget.retriesPerSecond * RetryBudget.windowSeconds
            #expect(tries.load(ordering: .relaxed) <= requests + allowance)
            #expect(mesh.outboundReport.counters.retriesOverBudget > 0)
        }
    }

    @Test(arguments: [true, false])
    func anEndpointThatClosesWithoutAnAnswerLeavesNoConnectionBehind(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in _ = try socket.readHead() }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)]) { $0.retry.count = 0 }
            for _ in 0..<20 { #expect(try mesh.get().status == 502) }
            let upstreams = TestMesh.dump(of: mesh.outbound).services.flatMap(\.targets).flatMap(\.upstreams)
            #expect(upstreams.map(\.activeConnections) == [0])
            #expect(upstreams.map(\.pending) == [0])
            try eventually("the connections are closed") {
                mesh.outboundReport.connections <= 2 && mesh.inboundReport.connections <= 2
            }
        }
    }
}
