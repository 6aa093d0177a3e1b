import MeshCore
import MeshProxy
import Testing

/// Connections that leave HTTP: by an upgrade (RFC 9110 §7.8) or by CONNECT (§9.3.6).
@Suite struct TunnelTests {
    private static let connect = "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n"

    @Test func anUpgradeTurnsTheConnectionIntoBytes() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                guard let head = try socket.readHead() else { return }
                #expect(head["upgrade"] == "websocket")
                #expect(head["connection"]?.lowercased() == "upgrade")
                try socket.write(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst")
                #expect(try socket.readText(4) == "ping")
                try socket.write("pong")
                socket.finishWriting()
                #expect(try socket.readToEnd() == Array("last".utf8))
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write(
                "GET /ws HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping")
            let head = try client.readHead()
            #expect(head?.status == 101)
            #expect(head?["upgrade"] == "websocket")
            #expect(try client.readText(9) == "firstpong")
            #expect(try client.readToEnd().isEmpty)
            try client.write("last")
            client.finishWriting()
            #expect(mesh.outboundReport.counters.upgrades == 1)
            #expect(mesh.inboundReport.counters.upgrades == 1)
        }
    }

    @Test func anUpgradeThatTheServerDeclinesLeavesHTTP() async throws {
        try await onOwnThread {
            let server = try TestServer.http { head, _ in TestServer.ok(head.startLine) }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write(
                "GET /ws HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                    + "GET /next HTTP/1.1\r\nHost: catalog\r\n\r\n")
            #expect(try client.readResponse().text == "GET /ws HTTP/1.1")
            #expect(try client.readResponse().text == "GET /next HTTP/1.1")
            #expect(mesh.outboundReport.counters.upgrades == 0)
        }
    }

    @Test func aSwitchThatNobodyAskedForIsRefused() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                try socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
                _ = try socket.readToEnd()
            }
            let mesh = try TestMesh(server)
            let response = try mesh.get()
            #expect(response.status == 502)
            #expect(response.reason == "invalid_response")
        }
    }

    @Test(arguments: [true, false])
    func anAcceptedConnectIsATunnel(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                guard let head = try socket.readHead() else { return }
                #expect(head.startLine == "CONNECT db.example:5432 HTTP/1.1")
                #expect(head["host"] == "db.example:5432")
                // A length here has no meaning; it must not be taken for a framing.
                try socket.write("HTTP/1.1 200 Connection established\r\nContent-Length: 3\r\n\r\n")
                #expect(try socket.readText(12) == "GET / HTTP/9")
                try socket.write("\u{0}raw")
                socket.finishWriting()
                #expect(try socket.readToEnd() == Array("end".utf8))
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)])
            let client = try mesh.client()
            // What the client sends ahead reaches the server when the tunnel stands, and as bytes.
            try client.write(Self.connect + "GET / HTTP/9")
            let head = try client.readHead()
            #expect(head?.status == 200)
            #expect(head?["content-length"] == nil)
            #expect(try client.readText(4) == "\u{0}raw")
            #expect(try client.readToEnd().isEmpty)
            try client.write("end")
            client.finishWriting()
            try eventually("the tunnel's end") { mesh.outboundReport.connections == 0 }
            #expect(mesh.outboundReport.counters.tunnels == 1)
            #expect(mesh.outboundReport.counters.requests == 1)
            #expect(mesh.outboundReport.requestsInFlight == 0)
        }
    }

    @Test func aDeclinedConnectIsAnsweredAndNothingBehindItIsARequest() async throws {
        try await onOwnThread {
            let server = try TestServer.http { head, _ in
                #expect(head.startLine.hasPrefix("CONNECT"))
                return "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 2\r\n\r\nno"
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write(Self.connect + "GET /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n")
            let response = try client.readResponse()
            #expect(response.status == 405)
            #expect(response.text == "no")
            #expect(response.head["connection"] == "close")
            #expect(client.isEnded())
            #expect(mesh.outboundReport.counters.requests == 1)
            #expect(mesh.outboundReport.counters.tunnels == 0)
        }
    }

    @Test func whoIsAskedForCredentialsMayTryAgain() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    if head["proxy-authorization"] == nil {
                        try socket.write(
                            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
                        )
                    } else {
                        try socket.write("HTTP/1.1 200 OK\r\n\r\nhello")
                        return
                    }
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write(Self.connect)
            let challenge = try client.readResponse()
            #expect(challenge.status == 407)
            #expect(challenge.head["proxy-authenticate"] == "Basic")
            try client.write(
                "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\nProxy-Authorization: Basic eDp5\r\n\r\n")
            #expect(try client.readHead()?.status == 200)
            #expect(try client.readText(5) == "hello")
        }
    }

    @Test(arguments: [
        ("Content-Length: 3\r\n", "abc", "invalid_request_connect_with_body"),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n", "invalid_request_connect_with_body"),
    ])
    func aConnectWithABodyIsRefused(_ fields: String, _ body: String, _ reason: String) async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\(fields)\r\n\(body)")
            let response = try client.readResponse()
            #expect(response.status == 400)
            #expect(response.reason == reason)
            #expect(server.connections == 0)
        }
    }

    @Test func aConnectThatCannotBeForwardedSaysWhy() async throws {
        try await onOwnThread {
            let mesh = try TestMesh([])
            let client = try mesh.client()
            try client.write(Self.connect + "GET /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n")
            let response = try client.readResponse()
            #expect(response.status == 503)
            #expect(response.reason == "no_healthy_upstream")
            #expect(client.isEnded())
        }
    }
}
