import Foundation
import MeshProxy
import Synchronization
import Testing

/// A server that answers while the request still comes (RFC 9112 §9.3, §9.6).
@Suite struct EarlyAnswerTests {
    @Test func aServerThatGoesOnReadingGetsTheWholeRequest() async throws {
        try await onOwnThread {
            let received = Atomic<Int>(0)
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    try socket.write(TestServer.ok("early"))
                    received.add(try socket.readBody(head).count, ordering: .relaxed)
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            for count in 1...2 {
                try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
                let response = try client.readResponse()
                #expect(response.text == "early")
                #expect(response.head["connection"] == nil)
                try client.write([UInt8](repeating: 65, count: 3_000_000))
                // The next request goes behind the body of this one.
                try eventually("the body") { received.load(ordering: .relaxed) == count * 3_000_000 }
            }
            #expect(server.connections == 1)
            #expect(mesh.outboundReport.requestsInFlight == 0)
            #expect(mesh.inboundReport.requestsInFlight == 0)
        }
    }

    @Test func aPipelinedRequestBehindAnAnsweredBodyIsServed() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    try socket.write(TestServer.ok(head.startLine))
                    _ = try socket.readBody(head)
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            #expect(try client.readResponse().text == "POST /1 HTTP/1.1")
            try client.write("0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try client.readResponse().text == "GET /2 HTTP/1.1")
            #expect(try client.readResponse().text == "GET /3 HTTP/1.1")
        }
    }

    @Test(arguments: [true, false])
    func aServerThatClosesTellsItsClientToStop(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                try socket.write("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
                socket.finishWriting()
                _ = try socket.readToEnd()
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)])
            let client = try mesh.client()
            try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
            try client.write([UInt8](repeating: 65, count: 100_000))
            let response = try client.readResponse()
            #expect(response.status == 413)
            #expect(response.text == "big")
            #expect(response.head["connection"] == "close")
        }
    }

    @Test func anAnswerReachesAClientThatSendsOnThroughAResetOfTheServer() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                try socket.write("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                // Closing over what has not been read resets the connection.
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\n")
            for _ in 0..<6 { try client.write([UInt8](repeating: 65, count: 100_000)) }
            #expect(try client.readResponse().status == 401)
        }
    }

    @Test func aClientThatStopsAfterAnEarlyAnswerLeavesNothingBehind() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                guard let head = try socket.readHead() else { return }
                try socket.write(TestServer.ok("early"))
                _ = try? socket.readBody(head)
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbegin")
            #expect(try client.readResponse().text == "early")
            client.finishWriting()
            #expect(client.isEnded())
            try eventually("nothing is under way") {
                mesh.outboundReport.requestsInFlight == 0 && mesh.inboundReport.requestsInFlight == 0
                    && mesh.outboundReport.connections == 0
            }
        }
    }

    @Test func aBodyThatHaltsBehindAnEarlyAnswerEndsTheConnection() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                guard let head = try socket.readHead() else { return }
                try socket.write(TestServer.ok("early"))
                _ = try? socket.readBody(head)
            }
            let mesh = try TestMesh(
                [.init(server: server.address)],
                configure: {
                    $0.deadlines.bodyMilliseconds = 50
                    $0.deadlines.headMilliseconds = 50
                })
            let client = try mesh.client()
            try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbegin")
            #expect(try client.readResponse().text == "early")
            #expect(client.isEnded())
        }
    }
}
