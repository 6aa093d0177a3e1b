import MeshProxy
import Testing

/// A client that asks before it sends its body (RFC 9110 §10.1.1).
@Suite struct ExpectTests {
    private static let put = "PUT / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"

    @Test func aClientThatWaitsForAContinueGetsIt() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    #expect(head["expect"] == "100-continue")
                    try socket.write("HTTP/1.1 100 Continue\r\n\r\n")
                    let body = try socket.readBody(head)
                    try socket.write(TestServer.ok("got \(body.count)"))
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            for _ in 0..<2 {
                try client.write(Self.put)
                #expect(try client.readHead()?.status == 100)
                try client.write("body")
                #expect(try client.readResponse().text == "got 4")
            }
        }
    }

    @Test func aClientThatDoesNotWaitIsServedAndKeepsItsConnection() async throws {
        try await onOwnThread {
            let server = try TestServer.http { _, body in TestServer.ok(String(decoding: body, as: UTF8.self)) }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            for _ in 0..<2 {
                try client.write(Self.put + "body")
                #expect(try client.readResponse().text == "body")
            }
        }
    }

    @Test func aFinalAnswerInsteadOfAContinueEndsTheConnection() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                while try socket.readHead() != nil {
                    try socket.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write(Self.put)
            let response = try client.readResponse()
            #expect(response.status == 403)
            #expect(response.text == "no")
            // Whether the body comes after all is open: what follows could be taken for it, or it for a request.
            #expect(response.head["connection"] == "close")
            #expect(client.isEnded())
            #expect(try mesh.get().status == 403, "the endpoint's connection is not used for another's request")
            #expect(server.connections == 2)
        }
    }

    @Test func whenThereIsNobodyToAskTheAnswerComesAtOnce() async throws {
        try await onOwnThread {
            let mesh = try TestMesh([])
            let client = try mesh.client()
            try client.write(Self.put)
            let response = try client.readResponse()
            #expect(response.reason == "no_healthy_upstream")
            #expect(response.head["connection"] == "close")
            #expect(client.isEnded())
        }
    }

    @Test func anUnknownExpectationFails() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            let response = try mesh.get(fields: "Expect: a-miracle\r\n")
            #expect(response.status == 417)
            #expect(response.reason == "invalid_request_unsupported_expectation")
            #expect(server.connections == 0)
        }
    }

    @Test func anExpectationOfHTTP10IsIgnored() async throws {
        try await onOwnThread {
            let server = try TestServer.http { head, body in
                TestServer.ok("\(head["expect"] ?? "none") \(String(decoding: body, as: UTF8.self))")
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("PUT / HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody")
            #expect(try client.readResponse().text == "none body")
        }
    }
}
