import Foundation
import MeshProxy
import Synchronization
import Testing

/// Applications that close idle connections: no request is lost to it, whatever its method, and none is done twice.
@Suite struct IdleConnectionTests {
    /// Answers `requests` requests on each connection and closes it after `delayMicroseconds` more, without a word.
    private func closing(
        after requests: Int, delayMicroseconds: @escaping @Sendable () -> UInt32, seen: Counter
    ) throws -> TestServer {
        try TestServer { socket, _ in
            for _ in 0..<requests {
                guard let head = try socket.readHead() else { return }
                let body = try socket.readBody(head)
                seen.add(String(decoding: body, as: UTF8.self))
                try socket.write(TestServer.ok(String(decoding: body, as: UTF8.self)))
            }
            let delay = delayMicroseconds()
            if delay > 0 { usleep(delay) }
        }
    }

    @Test(arguments: [true, false])
    func aPostMeetsAnApplicationThatClosesAtThatMoment(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let seen = Counter()
            let server = try closing(after: 2, delayMicroseconds: { UInt32.random(in: 0..<150) }, seen: seen)
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)])
            let client = try mesh.client()
            let count = 2000
            for number in 0..<count {
                let body = "payment \(number)"
                try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
                let response = try client.readResponse()
                #expect(response.status == 200, "\(response.reason ?? "") at \(number)")
                #expect(response.text == body)
                usleep(UInt32.random(in: 0..<100))
            }
            #expect(seen.all.count == count, "each was seen")
            #expect(seen.all.values.allSatisfy { $0 == 1 }, "none was seen twice")
        }
    }

    @Test func aLargePostMeetsAConnectionThatIsClosed() async throws {
        try await onOwnThread {
            let seen = Counter()
            let server = try closing(after: 1, delayMicroseconds: { 0 }, seen: seen)
            let mesh = try TestMesh([.init(server: server.address, isMeshed: false)])
            let client = try mesh.client()
            // More than is kept for another try.
            let body = [UInt8](repeating: 65, count: 300_000)
            for _ in 0..<50 {
                try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.count)\r\n\r\n")
                usleep(500)
                try client.write(body)
                let response = try client.readResponse()
                #expect(response.status == 200, "\(response.reason ?? "")")
                #expect(response.body.count == body.count)
                usleep(500)
            }
        }
    }

    @Test func manyDeadConnectionsAtOnceCostNobodyAnything() async throws {
        try await onOwnThread {
            let barrier = Atomic<Int>(0)
            let dies = Atomic<Bool>(false)
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    _ = try socket.readBody(head)
                    if head.startLine.contains("/together") {
                        barrier.add(1, ordering: .relaxed)
                        try eventually("all are here") { barrier.load(ordering: .relaxed) == 16 }
                        try socket.write(TestServer.ok("x"))
                        try eventually("the end") { dies.load(ordering: .relaxed) }
                        return
                    }
                    try socket.write(TestServer.ok("y"))
                }
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: false)])
            let clients = try (0..<16).map { _ in try mesh.client() }
            for client in clients { try client.write("GET /together HTTP/1.1\r\nHost: a\r\n\r\n") }
            for client in clients { #expect(try client.readResponse().text == "x") }
            dies.store(true, ordering: .relaxed)
            for client in clients {
                try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nz")
            }
            for client in clients { #expect(try client.readResponse().text == "y") }
        }
    }

    @Test(arguments: [("timeout=0", 3), ("timeout=1", 2), ("timeout=60", 1)])
    func whatTheServerSaysOfIdleConnectionsIsHonoured(_ value: String, _ connections: Int) async throws {
        try await onOwnThread {
            let server = try TestServer.http { _, _ in TestServer.ok("x", fields: "Keep-Alive: \(value)\r\n") }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            for pause: UInt32 in [0, 0, 1_000_000] {
                if pause > 0 { usleep(pause) }
                try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nz")
                let response = try client.readResponse()
                #expect(response.status == 200)
                #expect(response.head["keep-alive"] == nil, "that was about another connection")
            }
            #expect(server.connections == connections)
        }
    }

    @Test func itIsLearnedWhenTheApplicationClosesIdleConnections() async throws {
        try await onOwnThread {
            let closed = Atomic<Int>(0)
            let server = try TestServer { socket, _ in
                while true {
                    // A server's own limit of idleness.
                    guard try socket.waitForInput(milliseconds: 700) else {
                        closed.add(1, ordering: .relaxed)
                        return
                    }
                    guard let head = try socket.readHead() else { return }
                    _ = try socket.readBody(head)
                    try socket.write(TestServer.ok("x"))
                }
            }
            let mesh = try TestMesh(server)
            let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nz"
            let client = try mesh.client()
            try client.write(post)
            #expect(try client.readResponse().status == 200)
            try eventually("the application closes") { closed.load(ordering: .relaxed) == 1 }
            try client.write(post)
            #expect(try client.readResponse().status == 200)
            usleep(640_000)
            // The connection still stands, but not for long enough to be trusted.
            try client.write(post)
            #expect(try client.readResponse().status == 200)
            #expect(server.connections == 3)
        }
    }
}

/// Counts by name, on any thread.
final class Counter: Sendable {
    private let counts = Mutex<[String: Int]>([:])

    func add(_ name: String) { counts.withLock { $0[name, default: 0] += 1 } }

    var all: [String: Int] { counts.withLock { $0 } }
}
