import Foundation
import MeshAddress
import MeshCore
import MeshProxy
import Testing

/// What an application sees of two sidecars between it and the one it calls: nothing, for everything that HTTP/1 allows.
@Suite struct HTTPRelayTests {
    @Test func aRequestGoesThroughTwoSidecarsAndIsAnswered() async throws {
        try await onOwnThread {
            let server = try TestServer.http { head, _ in
                #expect(head.startLine == "GET /item/7?x=1 HTTP/1.1")
                #expect(head["X-Mixed-Case".lowercased()] == "Kept")
                #expect(head.lines.contains("X-Mixed-Case: Kept"), "the case of names is kept")
                #expect(head["traceparent"]?.count == 55)
                #expect(head["connection"] == nil, "hop-by-hop fields are removed")
                return TestServer.ok("seven", fields: "X-Answer: Yes\r\n")
            }
            let mesh = try TestMesh(server)
            let response = try mesh.get("/item/7?x=1", fields: "X-Mixed-Case: Kept\r\nConnection: keep-alive\r\n")
            #expect(response.status == 200)
            #expect(response.text == "seven")
            #expect(response.head.lines.contains("X-Answer: Yes"))
        }
    }

    @Test func aConnectionIsKeptForManyRequestsAndReusedUpstream() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            for _ in 0..<50 {
                try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                #expect(try client.readResponse().text == "hello")
            }
            #expect(server.connections == 1)
        }
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() async throws {
        try await onOwnThread {
            let server = try TestServer.http { head, body in
                TestServer.ok(String(head.startLine.split(separator: " ")[1]) + String(decoding: body, as: UTF8.self))
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            var all = ""
            for index in 0..<20 {
                all += "POST /\(index) HTTP/1.1\r\nHost: catalog\r\nContent-Length: 3\r\n\r\nabc"
            }
            try client.write(all)
            for index in 0..<20 { #expect(try client.readResponse().text == "/\(index)abc") }
        }
    }

    @Test func chunkedBodiesAndTrailersPassBothWays() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    let body = try socket.readBody(head)
                    #expect(socket.trailers == ["X-Checksum: 9"])
                    try socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
                    for byte in body { try socket.write("1\r\n\(UnicodeScalar(byte))\r\n") }
                    try socket.write("0\r\nX-Sum: 1\r\n\r\n")
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            for _ in 0..<3 {
                try client.write("POST / HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n")
                try client.write("5\r\nhello\r\n")
                try client.write("6\r\n world\r\n0\r\nX-Checksum: 9\r\n\r\n")
                #expect(try client.readResponse().text == "hello world")
                #expect(client.trailers == ["X-Sum: 1"])
            }
        }
    }

    @Test func aHeadRequestGetsTheLengthAndNoBody() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    let isHead = head.startLine.hasPrefix("HEAD")
                    try socket.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\(isHead ? "" : "hello")")
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("HEAD / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            #expect(try client.readResponse(toHEAD: true).head["content-length"] == "5")
            try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            #expect(try client.readResponse().text == "hello")
        }
    }

    @Test func anHTTP10ClientIsServedAndItsConnectionClosed() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("GET / HTTP/1.0\r\n\r\n")
            let response = try client.readResponse()
            #expect(response.text == "hello")
            #expect(response.head["connection"] == "close")
            #expect(client.isEnded())
        }
    }

    @Test func anHTTP10ClientThatAsksKeepsItsConnection() async throws {
        try await onOwnThread {
            let server = try TestServer.http { _, _ in
                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            for _ in 0..<3 {
                try client.write("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                let response = try client.readResponse()
                #expect(response.text == "ok")
                #expect(response.head["connection"] == "keep-alive")
            }
        }
    }

    @Test func aResponseThatEndsWithItsConnectionIsWhole() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                try socket.write("HTTP/1.0 200 OK\r\n\r\n" + String(repeating: "x", count: 100_000))
            }
            let mesh = try TestMesh(server)
            let response = try mesh.get()
            #expect(response.status == 200)
            #expect(response.body.count == 100_000)
        }
    }

    @Test func aClientThatHalfClosesStillGetsItsAnswer() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            client.finishWriting()
            #expect(try client.readResponse().text == "hello")
            #expect(client.isEnded())
        }
    }

    @Test func aHeadThatComesByteByByteIsUnderstood() async throws {
        try await onOwnThread {
            let server = try TestServer.http { _, body in TestServer.ok(String(decoding: body, as: UTF8.self)) }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            for byte in "POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 3\r\n\r\nabc".utf8 {
                try client.write([byte])
            }
            #expect(try client.readResponse().text == "abc")
        }
    }

    @Test(arguments: [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400,
            "content_length_with_transfer_encoding"
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400,
            "duplicate_content_length"
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400, "invalid_content_length"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400, "obsolete_line_folding"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "whitespace_before_colon"),
        ("GET / HTTP/1.1\nHost: a\n\n", 400, "bare_line_feed"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "missing_host"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501, "unsupported_transfer_encoding"),
    ])
    func smugglingIsRefusedWithItsReason(_ request: String, _ status: Int, _ code: String) async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write(request)
            let response = try client.readResponse()
            #expect(response.status == status)
            #expect(response.reason == "invalid_request_\(code)")
            #expect(client.isEnded())
            #expect(server.connections == 0, "nothing of it is forwarded")
        }
    }

    @Test func aBadChunkBreaksTheRequestOff() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                _ = try? socket.readToEnd()
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            try client.write("zz\r\n")
            let response = try client.readResponse()
            #expect(response.status == 400)
            #expect(response.reason == "invalid_request_invalid_chunk_size")
        }
    }
}

/// What this process holds in memory.
func residentBytes() -> Int {
    guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8),
        let pages = Int(text.split(separator: " ")[1])
    else { return 0 }
    return pages * 4096
}
