import Glibc
import MeshAddress
import MeshProxy
import Synchronization
import Testing

/// Clients and servers that mean harm, or are broken, and honest ones that only look like it.
@Suite struct HTTP2AttackTests {
    private static let get = HTTP2Peer.block(HTTP2Peer.request("GET", "/"))

    /// A mesh with an endpoint that answers every request.
    private func mesh(_ configure: (inout DataPlane.Configuration) -> Void = { _ in }) throws -> TestMesh {
        try TestMesh.http2(
            TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                if peer.received[stream]?.hasEnded ?? false { try peer.answer(stream, body: "answer") }
            }, configure: configure)
    }

    /// What was attacked goes on serving others, and nothing of the attack is left.
    private func recovers(_ mesh: TestMesh) throws {
        #expect(try mesh.http2Client().exchange().text == "answer")
        try mesh.becomesQuiet()
        #expect(mesh.inboundReport.counters.http2Floods == 0, "the caller's sidecar keeps it from the others")
        #expect(mesh.inboundReport.counters.http2Violations == 0)
    }

    @Test(arguments: ["resets", "continuations", "settings", "pings", "empty data", "window updates", "priorities"])
    func aFloodEndsItsConnectionAndNoOther(_ kind: String) async throws {
        try await onOwnThread {
            let mesh = try mesh()
            let peer = try mesh.http2Client()
            var bytes: [UInt8] = []
            switch kind {
            case "continuations": bytes = HTTP2Peer.frame(.headers, flags: 1, stream: 1, Self.get)
            case "empty data", "window updates": bytes = HTTP2Peer.frame(.headers, flags: 4, stream: 1, Self.get)
            default: break
            }
            let count = kind == "pings" || kind == "window updates" ? 60_000 : 20_000
            for index in 0..<UInt32(count) {
                switch kind {
                case "resets":
                    bytes += HTTP2Peer.frame(.headers, flags: 5, stream: index * 2 + 1, Self.get)
                    bytes += HTTP2Peer.frame(.reset, stream: index * 2 + 1, [0, 0, 0, 8])
                case "continuations": bytes += HTTP2Peer.frame(.continuation, stream: 1)
                case "settings": bytes += HTTP2Peer.frame(.settings)
                case "pings": bytes += HTTP2Peer.frame(.ping, [0, 0, 0, 0, 0, 0, 0, 1])
                case "empty data": bytes += HTTP2Peer.frame(.data, stream: 1)
                case "window updates": bytes += HTTP2Peer.frame(.windowUpdate, stream: 1, [0, 0, 0, 1])
                default: bytes += HTTP2Peer.frame(.priority, stream: 1, [0, 0, 0, 0, 16])
                }
            }
            // It is cut off within; what the peer then sees is a GOAWAY, or a reset when it had not read.
            startThread { [socket = peer.socket, bytes] in try? socket.write(bytes) }
            try? peer.readToEnd()
            let counters = mesh.outboundReport.counters
            // The library itself ends a block of too many pieces.
            #expect(counters.http2Floods + counters.http2Violations == 1, "\(kind)")
            if kind != "continuations" { #expect(counters.http2Floods == 1 && peer.goAways.last?.code ?? 11 == 11) }
            try recovers(mesh)
        }
    }

    @Test(arguments: [
        "data without a stream", "window of the connection", "window of a stream", "header table", "frame too long",
        "settings of an odd length", "even stream", "not HTTP/2",
    ])
    func aBreachOfTheProtocolEndsItsConnection(_ kind: String) async throws {
        try await onOwnThread {
            let mesh = try mesh()
            let peer = try mesh.http2Client()
            let stream = try peer.open(ends: false)
            switch kind {
            case "data without a stream": try peer.send(.data, stream: 99, [1])
            case "window of the connection": try peer.giveWindow(0x7fff_ffff, stream: 0)
            case "window of a stream": try peer.giveWindow(0x7fff_ffff, stream: stream)
            case "header table": try peer.send(.headers, flags: 5, stream: stream + 2, [0xff, 0xff, 0xff, 0xff, 0xff])
            case "frame too long": try peer.socket.write([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])
            case "settings of an odd length": try peer.send(.settings, [0, 1, 2])
            case "even stream": try peer.send(.headers, flags: 5, stream: 2, Self.get)
            default: try peer.socket.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            }
            if kind == "window of a stream" {
                // A stream's window is that stream's affair (RFC 9113 §6.9.1).
                #expect(try peer.response(stream).resetCode == 3)
            } else {
                try peer.readToEnd()
                #expect(peer.goAways.last.map { $0.code != 0 } ?? false)
                #expect(mesh.outboundReport.counters.http2Violations == 1)
            }
            try recovers(mesh)
        }
    }

    @Test func aHeaderBlockThatGrowsWithoutEndEndsItsConnection() async throws {
        try await onOwnThread {
            let mesh = try mesh()
            let peer = try mesh.http2Client()
            // One entry of the table of 4,000 bytes, then named again and again by one byte each.
            var block = HTTP2Peer.block(HTTP2Peer.request("GET", "/"))
            block += [0x40, 1, 0x78, 0x7f, 0xa1, 0x1e] + [UInt8](repeating: 0x79, count: 4000)
            block += [UInt8](repeating: 0xbe, count: 10_000)
            try peer.send(.headers, flags: 5, stream: 1, block)
            try peer.readToEnd()
            #expect(mesh.outboundReport.counters.http2Violations == 1)
            try recovers(mesh)
        }
    }

    @Test func aClientThatNeverReadsIsCutOffBeforeItsAnswersPileUp() async throws {
        try await onOwnThread {
            let mesh = try mesh()
            let before = residentBytes()
            let socket = try mesh.client(receiveBuffer: 4096)
            // Each of these asks for an answer; none is read.
            var bytes = HTTP2Peer.preface + HTTP2Peer.settingsFrame([])
            for index in 0..<UInt32(1_000_000) {
                bytes += HTTP2Peer.frame(
                    .headers, flags: 5, stream: index * 2 + 1, [0x82, 0x86, 0x84, 0x01, 0x01, 0x61])
            }
            try? socket.write(bytes)
            try eventually("it is cut off") { mesh.outboundReport.counters.http2Floods == 1 }
            try eventually("its connection is gone") { mesh.outboundReport.connections <= 2 }
            #expect(residentBytes() - before < 64 * 1024 * 1024)
            try mesh.becomesQuiet()
            #expect(try mesh.http2Client().exchange().text == "answer")
        }
    }

    @Test func aClientThatOpensAllStreamsAndReadsNothingHoldsABoundedAmount() async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                try peer.send(head: [(":status", "200")], on: stream)
                try peer.sendAvailable(stream)
            }
            let mesh = try TestMesh.http2(server)
            let before = residentBytes()
            let peer = try mesh.http2Client()
            for _ in 0..<512 { try peer.open(HTTP2Peer.request("GET", "/")) }
            try eventually("all are under way") { mesh.outboundReport.requestsInFlight == 512 }
            #expect(residentBytes() - before < 64 * 1024 * 1024)
            peer.socket.reset()
            try mesh.becomesQuiet()
        }
    }

    @Test func manyHonestCancellationsAreNoAttack() async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                // A stream of messages, of which the client wants the first.
                try peer.send(head: [(":status", "200"), ("content-type", "application/grpc")], on: stream)
                try peer.send(.data, stream: stream, [0, 0, 0, 0, 0])
            }
            let mesh = try TestMesh.http2(server)
            let client = try mesh.http2Client()
            for _ in 0..<5_000 {
                let stream = try client.open(HTTP2Peer.request("POST", "/", HTTP2Peer.grpc))
                try client.read { client.received[stream]?.bodyBytes == 5 }
                try client.reset(stream)
            }
            try mesh.becomesQuiet()
            #expect(client.goAways.isEmpty)
            #expect(mesh.outboundReport.counters.http2Floods + mesh.inboundReport.counters.http2Floods == 0)
            #expect(server.connections == 1)
        }
    }

    @Test func anOutageInWhichEveryCallTimesOutCutsNobodyOff() async throws {
        try await onOwnThread {
            let mesh = try TestMesh.http2(TestServer.http2 { _, _ in })
            let client = try mesh.http2Client()
            for _ in 0..<8 {
                let streams = try (0..<400).map { _ in
                    try client.open(HTTP2Peer.request("POST", "/", HTTP2Peer.grpc + [("grpc-timeout", "150m")]))
                }
                for stream in streams { #expect(try client.response(stream).grpcStatus == "4") }
            }
            #expect(client.goAways.isEmpty)
            #expect(mesh.inboundReport.counters.http2Floods == 0)
            try mesh.becomesQuiet()
        }
    }

    @Test func manyPingsAndWindowUpdatesOfAnHonestClientAreNoAttack() async throws {
        try await onOwnThread {
            let mesh = try mesh()
            let client = try mesh.http2Client()
            for _ in 0..<2_000 {
                try client.send(.ping, [1, 2, 3, 4, 5, 6, 7, 8])
                try client.giveWindow(1, stream: 0)
                #expect(try client.exchange().text == "answer")
            }
            #expect(client.pongs >= 1_999 && client.goAways.isEmpty)
        }
    }

    @Test func aServerThatBreaksTheProtocolCostsItsCallsAndNothingElse() async throws {
        try await onOwnThread {
            let count = Atomic<Int>(0)
            let server = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                switch count.add(1, ordering: .relaxed).newValue {
                case 1: try peer.send(.data, stream: stream, [1])
                case 2: try peer.send(.push, flags: 4, stream: stream, [0, 0, 0, 2] + Self.get)
                case 3: try peer.send(.headers, flags: 5, stream: stream, [0xff, 0xff, 0xff, 0xff, 0xff])
                case 4:
                    for _ in 0..<20_000 { try peer.send(.settings) }
                    try peer.readToEnd()
                default: try peer.answer(stream, body: "answer")
                }
            }
            let mesh = try TestMesh.http2(server, isMeshed: false)
            let client = try mesh.http2Client()
            for _ in 0..<4 { #expect(try client.exchange().status == 502) }
            #expect(try client.exchange().text == "answer")
            #expect(mesh.outboundReport.counters.http2Floods == 1)
            try mesh.becomesQuiet()
        }
    }

    @Test func tensOfThousandsOfCallsLeaveNothingBehind() async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                try peer.answer(stream, body: "answer")
                peer.forget(stream)
            }
            let mesh = try TestMesh.http2(server)
            let client = try mesh.http2Client()
            func round(_ count: Int) throws {
                for _ in 0..<count / 100 {
                    let streams = try (0..<100).map { _ in try client.open(HTTP2Peer.request("GET", "/")) }
                    for stream in streams {
                        #expect(try client.response(stream).text == "answer")
                        client.forget(stream)
                    }
                }
            }
            try round(5_000)
            let before = residentBytes()
            try round(50_000)
            #expect(residentBytes() - before < 8 * 1024 * 1024)
            try mesh.becomesQuiet()
        }
    }
}
