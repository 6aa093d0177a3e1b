import MeshCore
import MeshProxy
import Synchronization
import Testing

/// Forms of requests and responses that are rare and right.
@Suite struct MessageFormTests {
    /// Answers with what it was sent, the fields in their order.
    private static func mirror() throws -> TestServer {
        try TestServer.http { head, body in
            TestServer.ok(
                ([head.startLine] + head.lines.filter { !$0.hasPrefix("traceparent") }).joined(separator: "|") + "|"
                    + String(decoding: body, as: UTF8.self))
        }
    }

    @Test(arguments: [
        (
            "GET http://other.example/a HTTP/1.1\r\nHost: catalog\r\nX: 1\r\n\r\n",
            "GET http://other.example/a HTTP/1.1|X: 1|Host: other.example|"
        ),
        ("GET http://catalog:80/ HTTP/1.1\r\nHost: CATALOG\r\n\r\n", "GET http://catalog:80/ HTTP/1.1|Host: CATALOG|"),
        ("OPTIONS * HTTP/1.1\r\nHost: catalog\r\n\r\n", "OPTIONS * HTTP/1.1|Host: catalog|"),
        ("GET /1.0 HTTP/1.0\r\nHost: catalog\r\n\r\n", "GET /1.0 HTTP/1.1|Host: catalog|"),
        ("GET /1.0 HTTP/1.0\r\n\r\n", "GET /1.0 HTTP/1.1|Host: 10.9.9.9:80|"),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            "POST / HTTP/1.1|Host: a|Content-Length: 2|ok"
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, gzip\r\nConnection: TE, X-Hop\r\nX-Hop: 1\r\n\r\n",
            "GET / HTTP/1.1|Host: a|TE: trailers|Connection: TE|"
        ),
        ("\r\nGET /after-an-empty-line HTTP/1.1\r\nHost: a\r\n\r\n", "GET /after-an-empty-line HTTP/1.1|Host: a|"),
        ("FROBNICATE /x HTTP/1.1\r\nhOST:a\r\nX-Y:  z \r\n\r\n", "FROBNICATE /x HTTP/1.1|hOST:a|X-Y:  z |"),
    ])
    func arrives(_ sent: String, as seen: String) async throws {
        try await onOwnThread {
            let server = try Self.mirror()
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write(sent)
            #expect(try client.readResponse().text == seen)
        }
    }

    @Test func chunksAreTakenApartForAnHTTP10Client() async throws {
        try await onOwnThread {
            let big = String(repeating: "x", count: 100_000)
            let server = try TestServer { socket, _ in
                while try socket.readHead() != nil {
                    try socket.write(
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;a=b\r\nhello\r\n")
                    try socket.write("186a0\r\n\(big)\r\n0\r\nX-Sum: 1\r\n\r\n")
                }
            }
            let mesh = try TestMesh(server)
            for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"] {
                let client = try mesh.client()
                try client.write(request)
                guard let head = try client.readHead() else { return }
                #expect(head.status == 200)
                #expect(head["connection"] == "close")
                #expect(head["transfer-encoding"] == nil)
                #expect(head["trailer"] == nil)
                #expect(try client.readToEnd() == Array(("hello" + big).utf8))
            }
            #expect(server.connections == 1, "the endpoint's connection outlives its client's")
            let head = try mesh.client()
            try head.write("HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            #expect(try head.readHead()?["transfer-encoding"] == nil)
        }
    }

    @Test func chunksThatBreakOffBreakOffForAnHTTP10ClientToo() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                try socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe")
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("GET / HTTP/1.0\r\n\r\n")
            #expect(throws: TestSocket.Failure.self, "an orderly end would pass for the whole") {
                _ = try client.readHead()
                _ = try client.readToEnd()
            }
        }
    }

    @Test(arguments: [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", 200, "content-length", "100"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "transfer-encoding", "chunked"),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200, "content-length", nil),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: x\r\n\r\n", 304, "content-length", "100"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, "content-length", nil),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, "content-length", nil),
    ])
    func anAnswerWithoutABodyLeavesTheConnectionInOrder(
        _ method: String, _ answer: String, _ status: Int, _ field: String, _ value: String?
    ) async throws {
        try await onOwnThread {
            let server = try TestServer.http { head, _ in
                head.startLine.contains("/next") ? TestServer.ok("next") : answer
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("\(method) / HTTP/1.1\r\nHost: a\r\n\r\n")
            let head = try client.readHead()
            #expect(head?.status == status)
            #expect(head?[field] == value)
            try client.write("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try client.readResponse().text == "next")
            #expect(server.connections == 1)
        }
    }

    @Test func anAnswerThatClaimsABodyItCannotHaveEndsItsConnection() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, number in
                while try socket.readHead() != nil {
                    let extra = number == 1 ? "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil" : ""
                    try socket.write("HTTP/1.1 204 No Content\r\nContent-Length: \(extra.utf8.count)\r\n\r\n\(extra)")
                }
            }
            let mesh = try TestMesh(server)
            for _ in 0..<2 { #expect(try mesh.get().status == 204) }
            #expect(server.connections == 2, "what followed the first answered nobody")
        }
    }

    @Test func aResponseOfNoLengthEndsBothConnections() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                try socket.write("HTTP/1.1 200 OK\r\n\r\nall of it")
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            guard let head = try client.readHead() else { return }
            #expect(head["connection"] == "close")
            #expect(try client.readToEnd() == Array("all of it".utf8))
        }
    }

    @Test func interimAnswersPassInTheirOrderButNotToHTTP10() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                while try socket.readHead() != nil {
                    try socket.write(
                        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
                            + TestServer.ok("x"))
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            #expect(try client.readHead()?.status == 102)
            let hints = try client.readHead()
            #expect(hints?.status == 103)
            #expect(hints?["link"] == "</a.css>")
            #expect(try client.readResponse().text == "x")
            let old = try mesh.client()
            try old.write("GET / HTTP/1.0\r\n\r\n")
            #expect(try old.readResponse().text == "x")
        }
    }

    @Test func connectionsAreToldToCloseWhileDraining() async throws {
        try await onOwnThread {
            let mayAnswer = Atomic<Bool>(false)
            let server = try TestServer.http { head, _ in
                if head.startLine.contains("/slow") {
                    try eventually("the drain") { mayAnswer.load(ordering: .relaxed) }
                }
                return TestServer.ok("hello")
            }
            let mesh = try TestMesh(server, plaintext: .permissive)
            let caller = try TestSocket.connected(to: mesh.sidecars[0])
            try caller.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try caller.readResponse().head["connection"] == nil)
            try caller.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            try eventually("the request is under way") { mesh.inboundReport.requestsInFlight == 1 }
            mesh.inbound.drain(deadlineMilliseconds: 10_000) { _ in }
            mayAnswer.store(true, ordering: .relaxed)
            let response = try caller.readResponse()
            #expect(response.text == "hello")
            #expect(response.head["connection"] == "close")
            #expect(caller.isEnded())
        }
    }
}

extension TestMesh {
    convenience init(_ server: TestServer, plaintext: MeshSettings.PlaintextPolicy) throws {
        try self.init([Endpoint(server: server.address)], plaintext: plaintext)
    }
}
