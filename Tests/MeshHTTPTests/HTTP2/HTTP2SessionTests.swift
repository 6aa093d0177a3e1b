import MeshAddress
import MeshHTTP
import MeshIO
import Testing

@Suite struct HTTP2SessionTests {
    /// A listening scripted server and the log of its sessions' ends.
    private func echo(_ rig: HTTP2Rig, limits: HTTP2Limits = HTTP2Limits(), _ log: Log<String>) async throws
        -> SocketAddress
    {
        try await rig.run { loop in
            let server = ScriptedServer(loop, limits: limits, log: log) { stream, _ in EchoStream(stream) }
            return try Listener(loop: loop, address: SocketAddress(.loopback4, 0), delegate: server).address
        }
    }

    private func client(
        _ rig: HTTP2Rig, _ address: SocketAddress, _ log: Log<String>, limits: HTTP2Limits = HTTP2Limits()
    ) async throws -> LoopBound<HTTP2Session> {
        try await rig.make { loop in
            HTTP2Session(connectingTo: address, loop: loop, limits: limits, delegate: LoggedClient(log))
        }
    }

    private static func bytes(_ count: Int, _ seed: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ seed) }
    }

    @Test func manyStreamsCarryBodiesBothWaysWithTrailers() async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        let results = Log<Exchange.Result>()
        let address = try await echo(rig, log)
        let session = try await client(rig, address, log)
        let sizes = [0, 1, 16_384, 65_535, 65_536, 300_000, 3_000_000] + (0..<40).map { $0 * 997 }
        try await rig.run { _ in
            for (index, size) in sizes.enumerated() {
                let exchange = Exchange(results, body: HTTP2SessionTests.bytes(size, index))
                let stream = try #require(session.value.open(requestHead("/\(index)"), delegate: exchange))
                exchange.pump(stream)
            }
        }
        let all = try await results.wait("all exchanges") { $0.count == sizes.count }
        #expect(
            all.allSatisfy { $0.status == 200 && $0.hasEnded && $0.cause == .finished && $0.trailers == ["x-end: yes"] }
        )
        let expected = Set(sizes.enumerated().map { HTTP2SessionTests.bytes($1, $0) })
        #expect(Set(all.map(\.body)) == expected)
        try await rig.run { _ in session.value.close() }
        try await log.wait("both ends to close") { $0.filter { $0 == "closed: finished" }.count == 2 }
    }

    @Test func aStreamThatIsNotReadDoesNotHoldUpOthers() async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        let stuck = Log<Exchange.Result>()
        let results = Log<Exchange.Result>()
        let address = try await echo(rig, log)
        let session = try await client(rig, address, log)
        try await rig.run { _ in
            let exchange = Exchange(stuck, body: HTTP2SessionTests.bytes(2_000_000, 1), isReading: false)
            let stream = try #require(session.value.open(requestHead(), delegate: exchange))
            exchange.pump(stream)
        }
        for index in 0..<20 {
            try await rig.run { _ in
                let exchange = Exchange(results, body: HTTP2SessionTests.bytes(50_000, index))
                let stream = try #require(session.value.open(requestHead(), delegate: exchange))
                exchange.pump(stream)
            }
        }
        let all = try await results.wait("the others") { $0.count == 20 }
        #expect(all.allSatisfy { $0.body.count == 50_000 && $0.cause == .finished })
        #expect(stuck.all.isEmpty)
        // Its window bounds what was taken in for it; the connection's loss ends it.
        try await rig.run { _ in session.value.abort(reason: "enough") }
        let ended = try await stuck.wait("the stuck stream") { $0.count == 1 }
        #expect(ended[0].cause == .connectionLost)
        #expect(ended[0].body.count <= HTTP2Limits().streamWindowBytes)
    }

    @Test func aClientOpensNoMoreStreamsThanTheServerPermits() async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        let results = Log<Exchange.Result>()
        var limits = HTTP2Limits()
        limits.concurrentStreams = 3
        let address = try await echo(rig, limits: limits, log)
        let session = try await client(rig, address, log)
        // One exchange shows that the server's settings have come.
        try await rig.run { _ in
            let exchange = Exchange(results, body: [1])
            exchange.pump(try #require(session.value.open(requestHead(), delegate: exchange)))
        }
        try await results.wait("the first exchange") { $0.count == 1 }
        let opened = try await rig.run { _ in
            (0..<5).filter { _ in session.value.open(requestHead(), delegate: Exchange(results, body: [])) != nil }
                .count
        }
        #expect(opened == 3)
    }

    @Test func shutdownLetsOpenStreamsEndAndTakesNoNewOnes() async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        let serverLog = Log<String>()
        let results = Log<Exchange.Result>()
        let server = try await rig.make { loop in
            ScriptedServer(loop, log: serverLog) { stream, _ in EchoStream(stream) }
        }
        let address = try await rig.run { loop in
            try Listener(loop: loop, address: SocketAddress(.loopback4, 0), delegate: server.value).address
        }
        let session = try await client(rig, address, log)
        let exchange = try await rig.make { _ in Exchange(results, body: HTTP2SessionTests.bytes(100_000, 7)) }
        let stream = try await rig.make { _ in
            let stream = try #require(session.value.open(requestHead(), delegate: exchange.value))
            [UInt8](repeating: 1, count: 10).withUnsafeBytes { stream.write($0) }
            return stream
        }
        try await log.wait("the connection") { $0.contains("opened") }
        try await rig.run { _ in for session in server.value.sessions { session.shutdown(graceMilliseconds: 20_000) } }
        try await log.wait("the GOAWAY") { $0.contains("goaway") }
        let isTaken = try await rig.run { _ in session.value.canOpenStream }
        #expect(!isTaken)
        try await rig.run { _ in exchange.value.pump(stream.value) }
        let all = try await results.wait("the open exchange") { $0.count == 1 }
        #expect(all[0].body.count == 100_010 && all[0].cause == .finished)
        try await serverLog.wait("the end") { $0.contains("closed: finished") }
    }

    @Test func aPeerThatStopsAnsweringIsGivenUp() async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        var limits = HTTP2Limits()
        limits.pingIntervalMilliseconds = 50
        limits.pingTimeoutMilliseconds = 100
        let address = try await echo(rig, limits: limits, log)
        let peer = try RawPeer(to: address)
        peer.send(RawPeer.preface + RawPeer.frame(4))
        try await log.wait("the ping's timeout") { $0 == ["closed: \(HTTP2CloseCause.pingTimeout)"] }
        #expect(RawPeer.frames(peer.readToEnd()).types.contains(6), "it was asked")
    }

    @Test func aPeerThatSaysNothingIsGivenUp() async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        var limits = HTTP2Limits()
        limits.settingsTimeoutMilliseconds = 100
        let address = try await echo(rig, limits: limits, log)
        let peer = try RawPeer(to: address)
        try await log.wait("the settings timeout") { $0 == ["closed: \(HTTP2CloseCause.settingsTimeout)"] }
        #expect(RawPeer.frames(peer.readToEnd()).goAwayCodes == [4])
    }

    @Test(arguments: ["resets", "pings", "settings", "priorities", "empty data"])
    func aFloodOfIdleFramesEndsTheConnection(kind: String) async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        let address = try await echo(rig, log)
        let peer = try RawPeer(to: address)
        // :method POST, :scheme http, :path /, :authority "a", all from the static table or literal.
        let head: [UInt8] = [0x83, 0x86, 0x84, 0x01, 0x01, 0x61]
        var bytes = RawPeer.preface + RawPeer.frame(4)
        if kind == "empty data" { bytes += RawPeer.frame(1, flags: 4, stream: 1, head) }
        for index in 0..<4000 as Range<UInt32> {
            switch kind {
            case "resets":
                bytes += RawPeer.frame(1, flags: 4, stream: index * 2 + 1, head)
                bytes += RawPeer.frame(3, stream: index * 2 + 1, [0, 0, 0, 8])
            case "pings": bytes += RawPeer.frame(6, [0, 0, 0, 0, 0, 0, 0, 1])
            case "settings": bytes += RawPeer.frame(4)
            case "priorities": bytes += RawPeer.frame(2, stream: 1, [0, 0, 0, 0, 16])
            default: bytes += RawPeer.frame(0, stream: 1)
            }
        }
        peer.send(bytes)
        try await log.wait("the end") { $0 == ["closed: \(HTTP2CloseCause.flood)"] }
    }

    @Test func garbageIsAProtocolViolation() async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        let address = try await echo(rig, log)
        let cases: [[UInt8]] = [
            Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8),
            RawPeer.preface + [UInt8](repeating: 0xff, count: 100),
            RawPeer.preface + RawPeer.frame(4) + RawPeer.frame(0, stream: 1, [1, 2, 3]),
            RawPeer.preface + RawPeer.frame(4) + RawPeer.frame(1, flags: 4, stream: 1, [0xff, 0xff, 0xff, 0xff, 0xff]),
            RawPeer.preface + RawPeer.frame(4) + RawPeer.frame(8, stream: 0, [0x7f, 0xff, 0xff, 0xff]),
        ]
        for (index, bytes) in cases.enumerated() {
            let peer = try RawPeer(to: address)
            peer.send(bytes)
            let ends = try await log.wait("the end of case \(index)") { $0.count == index + 1 }
            #expect(ends[index].hasPrefix("closed: the peer broke the HTTP/2 protocol"), "\(ends[index])")
        }
    }

    @Test func aHeaderListAboveTheLimitResetsItsStreamOnly() async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        let results = Log<Exchange.Result>()
        var limits = HTTP2Limits()
        limits.headerListBytes = 4096
        let address = try await echo(rig, limits: limits, log)
        let session = try await client(rig, address, log)
        try await rig.run { _ in
            let long = String(repeating: "x", count: 5000)
            let exchange = Exchange(results, body: [])
            exchange.pump(try #require(session.value.open(requestHead(extra: [("x-long", long)]), delegate: exchange)))
        }
        var all = try await results.wait("the reset") { $0.count == 1 }
        #expect(all[0].cause == .reset(.enhanceYourCalm))
        try await rig.run { _ in
            let exchange = Exchange(results, body: [5])
            exchange.pump(try #require(session.value.open(requestHead(extra: [("x", "y")]), delegate: exchange)))
        }
        all = try await results.wait("the next exchange") { $0.count == 2 }
        #expect(all[1].body == [5])
    }

    @Test func aRefusedConnectionClosesWithItsCause() async throws {
        let rig = try HTTP2Rig()
        let log = Log<String>()
        // A port that was free a moment ago.
        let address = try await rig.run { loop in
            let listener = try Listener(
                loop: loop, address: SocketAddress(.loopback4, 0),
                delegate: ScriptedServer(loop, log: log) { stream, _ in EchoStream(stream) })
            listener.close()
            return listener.address
        }
        let results = Log<Exchange.Result>()
        try await rig.run { loop in
            let session = HTTP2Session(connectingTo: address, loop: loop, delegate: LoggedClient(log))
            #expect(session.open(requestHead(), delegate: Exchange(results, body: [])) != nil)
        }
        try await log.wait("the failure") { $0.count == 1 && $0[0].hasPrefix("closed: transport: connectFailed") }
        #expect(try await results.wait("its stream") { $0.count == 1 }[0].cause == .connectionLost)
    }
}
