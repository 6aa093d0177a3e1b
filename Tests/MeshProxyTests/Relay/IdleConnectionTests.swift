import Foundation
import MeshProxy
import Synchronization
import Testing

/// Applications that close idle connections: no request is lost to it, whatever its method, and none is done twice.
@Suite struct IdleConnectionTests {
    private static func post(_ body: String) -> String {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }

    /// The application closes when it is told to, and the request is on its way a moment later, before anybody has had time to notice. What comes
    /// first, the news of the one or the other, is left to chance.
    @Test(arguments: [true, false])
    func aPostMeetsAConnectionThatTheApplicationClosesAtThatMoment(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let seen = Counter()
            let turn = Atomic<Int>(0)
            let server = try TestServer { socket, _ in
                guard let head = try socket.readHead() else { return }
                let body = String(decoding: try socket.readBody(head), as: UTF8.self)
                seen.add(body)
                let mine = turn.load(ordering: .relaxed)
                try socket.write(TestServer.ok(body))
                try promptly("the client's turn ends") { turn.load(ordering: .acquiring) != mine }
                socket.close()
                turn.add(1, ordering: .releasing)
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)])
            let client = try mesh.client()
            let count = 1000
            for number in 0..<count {
                let body = "payment \(number)"
                try client.write(Self.post(body))
                let response = try client.readResponse()
                #expect(response.status == 200, "\(response.reason ?? "") at \(number)")
                #expect(response.text == body)
                turn.add(1, ordering: .acquiringAndReleasing)
                try promptly("the connection is closed") { turn.load(ordering: .acquiring) % 2 == 0 }
            }
            #expect(seen.all.count == count, "each was seen")
            #expect(seen.all.values.allSatisfy { $0 == 1 }, "none was seen twice")
            #expect(server.connections == count)
        }
    }

    @Test func aLargePostMeetsAConnectionThatIsClosed() async throws {
        try await onOwnThread {
            let closed = Atomic<Int>(0)
            let server = try TestServer { socket, _ in
                guard let head = try socket.readHead() else { return }
                let body = try socket.readBody(head)
                try socket.write(TestServer.ok("\(body.count)"))
                socket.close()
                closed.add(1, ordering: .releasing)
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: false)])
            let client = try mesh.client()
            // More than is kept for another try.
            let body = [UInt8](repeating: 65, count: 300_000)
            for number in 0..<50 {
                try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.count)\r\n\r\n")
                try client.write(body)
                let response = try client.readResponse()
                #expect(response.status == 200, "\(response.reason ?? "")")
                #expect(response.text == "\(body.count)")
                try promptly("the connection is closed") { closed.load(ordering: .acquiring) > number }
            }
        }
    }

    @Test func aPostIsNotTrustedToAConnectionThatWasIdleForLong() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh([.init(server: server.address, isMeshed: false)])
            let client = try mesh.client()
            func exchange(_ request: String, afterMilliseconds pause: UInt32 = 0) throws -> Int {
                usleep(pause * 1000)
                try client.write(request)
                #expect(try client.readResponse().status == 200)
                return server.connections
            }
            let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            #expect(try exchange(Self.post("1")) == 1)
            #expect(try exchange(Self.post("2")) == 1, "it was used a moment ago")
            #expect(try exchange(Self.post("3"), afterMilliseconds: 1100) == 2)
            #expect(try exchange(get, afterMilliseconds: 1300) == 2, "what may be repeated finds out")
            #expect(try exchange(Self.post("4"), afterMilliseconds: 1100) == 2, "and after that it is known to be kept")
        }
    }

    @Test func manyDeadConnectionsAtOnceCostNobodyAnything() async throws {
        try await onOwnThread {
            let barrier = Atomic<Int>(0)
            let dies = Atomic<Bool>(false)
            let dead = Atomic<Int>(0)
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    _ = try socket.readBody(head)
                    if head.startLine.contains("/together") {
                        barrier.add(1, ordering: .relaxed)
                        try eventually("all are here") { barrier.load(ordering: .relaxed) == 16 }
                        try socket.write(TestServer.ok("x"))
                        try eventually("the end") { dies.load(ordering: .relaxed) }
                        socket.close()
                        dead.add(1, ordering: .releasing)
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
            try promptly("all are closed") { dead.load(ordering: .acquiring) == clients.count }
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
