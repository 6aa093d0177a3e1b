import Foundation
import MeshCore
import MeshProxy
import Testing

/// Long, many and slow: every limit of docs/limits.md for HTTP/1 on the data path, just below it and just above.
@Suite struct LimitTests {
    private static func request(_ fields: String = "", target: String = "/") -> String {
        "GET \(target) HTTP/1.1\r\nHost: a\r\n\(fields)\r\n"
    }

    private static func filled(to count: Int) -> String {
        let empty = request("X: \r\n")
        return request("X: \(String(repeating: "x", count: count - empty.utf8.count))\r\n")
    }

    @Test(arguments: [
        // What this sidecar adds must fit the next one's limit too.
        (Self.filled(to: 60 * 1024 - 128), 200, nil),
        (Self.filled(to: 60 * 1024 + 1), 431, "head_too_large"),
        (Self.request(String(repeating: "a: b\r\n", count: 198)), 200, nil),
        (Self.request(String(repeating: "a: b\r\n", count: 200)), 431, "too_many_fields"),
        (Self.request(target: "/" + String(repeating: "x", count: 16 * 1024 - 1)), 200, nil),
        (Self.request(target: "/" + String(repeating: "x", count: 16 * 1024)), 414, "target_too_long"),
        (Self.request("Connection: " + (1...32).map { "x\($0)" }.joined(separator: ", ") + "\r\n"), 200, nil),
        (
            Self.request("Connection: " + (1...33).map { "x\($0)" }.joined(separator: ", ") + "\r\n"), 400,
            "too_many_connection_options"
        ),
    ])
    func heads(_ request: String, _ status: Int, _ code: String?) async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write(request)
            let response = try client.readResponse()
            #expect(response.status == status)
            #expect(response.reason == code.map { "invalid_request_\($0)" })
            #expect(mesh.outboundReport.counters.invalidRequests == (status == 200 ? 0 : 1))
        }
    }

    @Test(arguments: [
        ("1;\(String(repeating: "x", count: 4000))\r\nz\r\n0\r\n\r\n", 200, nil),
        ("1;\(String(repeating: "x", count: 5000))\r\nz\r\n0\r\n\r\n", 400, "chunk_line_too_long"),
        (
            String(repeating: "1;\(String(repeating: "x", count: 100))\r\nz\r\n", count: 50), 400,
            "chunk_extensions_too_large"
        ),
        ("0\r\n" + String(repeating: "a: b\r\n", count: 200) + "\r\n", 200, nil),
        ("0\r\n" + String(repeating: "a: b\r\n", count: 201) + "\r\n", 431, "trailers_too_large"),
        (
            "0\r\n" + String(repeating: "a: \(String(repeating: "b", count: 4000))\r\n", count: 5) + "\r\n", 431,
            "trailers_too_large"
        ),
        ("fffffffffffffffff\r\n", 400, "chunk_size_too_large"),
    ])
    func chunks(_ body: String, _ status: Int, _ code: String?) async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
            let response = try client.readResponse()
            #expect(response.status == status)
            #expect(response.reason == code.map { "invalid_request_\($0)" })
        }
    }

    @Test func aResponseWithTooLargeAHeadIsNotPassedOn() async throws {
        try await onOwnThread {
            let server = try TestServer.http { _, _ in
                TestServer.ok("x", fields: "X: \(String(repeating: "x", count: 62_000))\r\n")
            }
            let mesh = try TestMesh(server)
            let response = try mesh.get()
            #expect(response.status == 502)
            #expect(response.reason == "invalid_response")
            #expect(response.text.contains("head_too_large"))
        }
    }

    @Test(arguments: [
        ("Content-Length: 10\r\n\r\n0123456789", 200), ("Content-Length: 11\r\n\r\n", 413),
        ("Content-Length: 11\r\nExpect: 100-continue\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 413), ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
    ])
    func aBodyBeyondTheServicesLimitIsRefused(_ rest: String, _ status: Int) async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server, adjust: { $0.requestBodyLimitBytes = 10 })
            let client = try mesh.client()
            try client.write("POST / HTTP/1.1\r\nHost: a\r\n\(rest)")
            if status == 413, rest.contains("chunked") { try client.write("8\r\n01234567\r\n") }
            let response = try client.readResponse()
            #expect(response.status == status)
            #expect(response.reason == (status == 413 ? "request_body_too_large" : nil))
            if status == 413 {
                #expect(client.isEnded())
                #expect(mesh.outboundReport.counters.bodiesTooLarge == 1)
            }
        }
    }

    private func mesh(_ server: TestServer, _ adjust: @escaping (inout DataPlane.Deadlines) -> Void) throws -> TestMesh
    {
        try TestMesh([.init(server: server.address)], configure: { adjust(&$0.deadlines) })
    }

    @Test func aHeadThatComesTooSlowlyIsAnswered408() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try mesh(server) { $0.headMilliseconds = 100 }
            let client = try mesh.client()
            // A byte now and then does not help: the time is that of the whole head.
            try client.write("GET / HTTP/1.1\r\n")
            for byte in "Host: ca".utf8 {
                try client.write([byte])
                usleep(5_000)
            }
            let response = try client.readResponse()
            #expect(response.status == 408)
            #expect(response.reason == "head_timeout")
            #expect(client.isEnded())
            #expect(server.connections == 0)
        }
    }

    @Test(arguments: [
        "Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\na\r\nabc", "Content-Length: 10\r\n\r\n",
    ])
    func aBodyThatHaltsIsAnswered408(_ rest: String) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                guard let head = try socket.readHead() else { return }
                #expect(throws: TestSocket.Failure.self, "the server must not take it for whole") {
                    try socket.readBody(head)
                }
            }
            let mesh = try mesh(server) { $0.bodyMilliseconds = 50 }
            let client = try mesh.client()
            try client.write("POST / HTTP/1.1\r\nHost: a\r\n\(rest)")
            let response = try client.readResponse()
            #expect(response.status == 408)
            #expect(response.reason == "body_timeout")
            #expect(client.isEnded())
            // Either sidecar may lose patience first.
            let counted = mesh.outboundReport.counters.bodyTimeouts + mesh.inboundReport.counters.bodyTimeouts
            #expect(counted >= 1)
        }
    }

    @Test func whoWaitsForAContinueOrForTheServerIsNotSlow() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                guard let head = try socket.readHead() else { return }
                usleep(200_000)
                try socket.write("HTTP/1.1 100 Continue\r\n\r\n")
                _ = try socket.readBody(head)
                usleep(200_000)
                try socket.write(TestServer.ok("patient"))
            }
            let mesh = try mesh(server) { $0.bodyMilliseconds = 50 }
            let client = try mesh.client()
            try client.write("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            #expect(try client.readHead()?.status == 100)
            try client.write("body")
            #expect(try client.readResponse().text == "patient")
        }
    }

    @Test func anExchangeOnWhichNothingMovesIsEnded() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                _ = try socket.readToEnd()
            }
            let mesh = try mesh(server) {
                $0.byteIdleMilliseconds = 60
                $0.idleMilliseconds = 40
            }
            let client = try mesh.client()
            try client.write(Self.request())
            #expect(client.isEnded())
            #expect(mesh.outboundReport.requestsInFlight == 0)
        }
    }
}
