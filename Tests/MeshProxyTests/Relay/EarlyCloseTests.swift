import Foundation
import MeshCore
import MeshProxy
import Testing

/// Either side ends or resets its connection, at every point of an exchange. Whatever the point, the other side learns of it, the
/// answer or its lack is right, and nothing stays behind.
@Suite struct EarlyCloseTests {
    enum Ending: String, CaseIterable, Sendable {
        case finish, reset

        func end(_ socket: TestSocket) {
            switch self {
            case .finish: socket.finishWriting()
            case .reset: socket.reset()
            }
        }
    }

    enum ClientPoint: String, CaseIterable, Sendable {
        case beforeTheHead, withinTheHead, withinTheBody, withinAChunk, whileTheServerThinks, withinTheAnswer,
            betweenRequests

        var sent: String {
            switch self {
            case .beforeTheHead: ""
            case .withinTheHead: "GET / HTTP/1.1\r\nHo"
            case .withinTheBody: "POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
            case .withinAChunk: "POST /wait HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\na\r\nabc"
            case .whileTheServerThinks: "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"
            case .withinTheAnswer: "GET /half HTTP/1.1\r\nHost: a\r\n\r\n"
            case .betweenRequests: "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            }
        }

        /// Whether the request is whole, so that a client that only finishes its side is still owed an answer.
        var isWhole: Bool { self == .whileTheServerThinks || self == .withinTheAnswer }
    }

    @Test(arguments: ClientPoint.allCases, Ending.allCases)
    func aClientLeaves(_ point: ClientPoint, _ ending: Ending) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    if head.startLine.contains("/half") {
                        try socket.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ")
                        usleep(20_000)
                        try socket.write("whole")
                        continue
                    }
                    _ = try socket.readBody(head)
                    if head.startLine.contains("/wait") { usleep(20_000) }
                    try socket.write(TestServer.ok("hello"))
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write(point.sent)
            switch point {
            case .betweenRequests: _ = try client.readResponse()
            case .withinTheAnswer: _ = try client.readHead()
            case .whileTheServerThinks, .withinTheBody, .withinAChunk:
                try eventually("the request is under way") { mesh.inboundReport.requestsInFlight == 1 }
            case .beforeTheHead, .withinTheHead: break
            }
            ending.end(client)
            if ending == .finish {
                if point.isWhole {
                    let rest = String(decoding: try client.readToEnd(), as: UTF8.self)
                    #expect(rest.hasSuffix(point == .withinTheAnswer ? "half whole" : "hello"))
                } else {
                    #expect(client.isEnded(), "what is not a whole request is not answered")
                }
            }
            try eventually("nothing is left of it") {
                mesh.outboundReport.requestsInFlight == 0 && mesh.inboundReport.requestsInFlight == 0
                    && Self.clients(of: mesh) == 0
            }
            #expect(try mesh.get().text == "hello", "the next is served")
        }
    }

    private static func clients(of mesh: TestMesh) -> Int {
        let upstreams = TestMesh.dump(of: mesh.outbound).services.flatMap(\.targets).flatMap(\.upstreams)
        return mesh.outboundReport.connections - upstreams.reduce(0) { $0 + $1.idleConnections + $1.activeConnections }
    }

    enum ServerPoint: String, CaseIterable, Sendable {
        case atOnce, withinTheRequest, afterTheRequest, withinAnInterimAnswer, withinTheHead, withinTheBody,
            withinAChunk,
            behindTheAnswer

        var sent: String {
            switch self {
            case .withinAnInterimAnswer: "HTTP/1.1 100 Continue\r\n\r\n"
            case .withinTheHead: "HTTP/1.1 200 OK\r\nConte"
            case .withinTheBody: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
            case .withinAChunk: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha"
            case .behindTheAnswer: TestServer.ok("hello")
            case .atOnce, .withinTheRequest, .afterTheRequest: ""
            }
        }

        /// Nil where the client must see its answer break off.
        func status(isPost: Bool) -> Int? {
            switch self {
            case .behindTheAnswer: 200
            case .withinTheBody, .withinAChunk: nil
            default: 502
            }
        }
    }

    @Test(arguments: ServerPoint.allCases, Ending.allCases)
    func aServerLeaves(_ point: ServerPoint, _ ending: Ending) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                if point != .atOnce, let head = try socket.readHead() {
                    if point != .withinTheRequest { _ = try socket.readBody(head) }
                    try socket.write(point.sent)
                    // A reset overtakes what is still on its way.
                    if ending == .reset, !point.sent.isEmpty { usleep(20_000) }
                }
                ending.end(socket)
            }
            let mesh = try TestMesh([.init(server: server.address)]) { $0.retry.count = 0 }
            // Behind an answer, a second request would meet the same connection while the server is about to leave.
            for _ in 0..<(point == .behindTheAnswer ? 1 : 2) {
                let client = try mesh.client()
                try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
                if let status = point.status(isPost: true) {
                    var response = try client.readResponse()
                    if response.status == 100 { response = try client.readResponse() }
                    if point == .atOnce {
                        // Nobody has read it, so another try is allowed; what becomes of that depends on when the server leaves.
                        #expect(response.status == 502 || response.status == 503)
                    } else {
                        #expect(response.status == status)
                        #expect(response.reason == (status == 502 ? "upstream_reset" : nil))
                    }
                } else {
                    #expect(throws: TestSocket.Failure.self) { try client.readResponse() }
                }
            }
            try eventually("nothing is left of it") {
                mesh.outboundReport.requestsInFlight == 0 && mesh.inboundReport.requestsInFlight == 0
            }
        }
    }
}
