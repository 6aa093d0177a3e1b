import Glibc
import MeshAddress
import MeshProxy
import Synchronization
import Testing

/// Flow control from end to end: nobody sends more than its reader takes.
@Suite struct HTTP2FlowTests {
    private static let size = 100 * 1024 * 1024
    /// What two sidecars and the kernel's buffers may hold of one body.
    private static let held = 16 * 1024 * 1024

    @Test(arguments: [false, true])
    func aHundredMebibytesPassBothWaysInConstantMemory(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                peer.keptBodyBytes = 0
                try peer.read { peer.received[stream]?.isOver ?? true }
                #expect(peer.received[stream]?.bodyBytes == Self.size)
                try peer.send(head: [(":status", "200")], on: stream)
                try peer.sendBody(stream, count: Self.size)
            }
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let client = try mesh.http2Client()
            client.keptBodyBytes = 0
            let before = residentBytes()
            let stream = try client.open(ends: false)
            try client.sendBody(stream, count: Self.size)
            let afterRequest = residentBytes()
            let answer = try client.response(stream)
            #expect(answer.bodyBytes == Self.size && answer.hasEnded)
            #expect(afterRequest - before < Self.held)
            #expect(residentBytes() - before < Self.held)
            try mesh.becomesQuiet()
        }
    }

    @Test(arguments: [false, true])
    func aSlowReaderSlowsItsServerAndNobodyElse(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let written = Atomic<Int>(0)
            let server = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                guard peer.received[stream]?.head[":path"] == "/large" else {
                    return try peer.answer(stream, body: "small")
                }
                try peer.send(head: [(":status", "200")], on: stream)
                written.store(try peer.sendUntilStandstill(stream), ordering: .relaxed)
            }
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let slow = try mesh.http2Client()
            slow.givesWindow = false
            let large = try slow.open(HTTP2Peer.request("GET", "/large"))
            try slow.read { slow.received[large]?.bodyBytes == 65_535 }
            // No more than its window of one sidecar, or of both.
            try eventually("the server comes to a standstill") { written.load(ordering: .relaxed) > 0 }
            let sent = written.load(ordering: .relaxed)
            #expect(sent <= 65_535 + (isMeshed ? 2 : 1) * 128 * 1024)
            // The same connection carries others, once it has the window for them; another client's does anyhow.
            try slow.giveWindow(1 << 20, stream: 0)
            #expect(try slow.exchange(HTTP2Peer.request("GET", "/")).text == "small")
            #expect(try mesh.http2Client().exchange(HTTP2Peer.request("GET", "/")).text == "small")
            #expect(slow.received[large]?.bodyBytes == 65_535)
            try slow.reset(large)
            try mesh.becomesQuiet()
        }
    }

    @Test(arguments: [false, true])
    func aServerThatDoesNotReadSlowsItsClient(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                peer.givesWindow = peer.received[stream]?.head[":path"] != "/large"
                guard peer.givesWindow else { return }
                try peer.read { peer.received[stream]?.isOver ?? true }
                try peer.answer(stream, body: "small")
            }
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let client = try mesh.http2Client()
            let stream = try client.open(HTTP2Peer.request("POST", "/large"), ends: false)
            let sent = try client.sendUntilStandstill(stream)
            #expect((65_535...65_535 + (isMeshed ? 2 : 1) * 128 * 1024).contains(sent))
            try client.reset(stream)
            try mesh.becomesQuiet()
        }
    }

    @Test func aStreamWhoseReaderTakesNothingEnds() async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                try peer.send(head: [(":status", "200")], on: stream)
                try peer.sendAvailable(stream)
            }
            // One sidecar, or which of the two ends it would be a race.
            let mesh = try TestMesh.http2(
                server, isMeshed: false, configure: { $0.deadlines.byteIdleMilliseconds = 400 })
            let client = try mesh.http2Client()
            client.givesWindow = false
            let answer = try client.exchange(HTTP2Peer.request("GET", "/"))
            #expect(answer.bodyBytes == 65_535 && answer.resetCode == 8)
            try mesh.becomesQuiet()
            #expect(mesh.outboundReport.counters.http2Stalled == 1)
            #expect(TestMesh.requests(of: mesh.outbound, "apus_reason=\"idle_timeout\"") == 1)
        }
    }

    @Test func manyStalledStreamsLeaveRoomForOtherClients() async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                guard peer.received[stream]?.head[":path"] == "/large" else {
                    return try peer.answer(stream, body: "small")
                }
                try peer.send(head: [(":status", "200")], on: stream)
                try peer.sendAvailable(stream)
            }
            let mesh = try TestMesh.http2(server, isMeshed: false)
            let before = residentBytes()
            let stalled = try mesh.http2Client()
            stalled.givesWindow = false
            for _ in 0..<150 { try stalled.open(HTTP2Peer.request("GET", "/large")) }
            // More than a connection may hold for them: the next takes another connection.
            try eventually("a second connection is needed") {
                let other = try mesh.http2Client()
                return try other.exchange(HTTP2Peer.request("GET", "/")).text == "small" && server.connections == 2
            }
            #expect(residentBytes() - before < 64 * 1024 * 1024)
            stalled.socket.reset()
            try mesh.becomesQuiet()
        }
    }
}
