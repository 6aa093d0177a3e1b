import Glibc
import MeshAddress
import MeshCore
import MeshProxy
import Synchronization
import Testing

/// What happens to an HTTP/2 request whose endpoint refuses it, fails or takes too long.
@Suite struct HTTP2RetryTests {
    private static let second = IPAddress(v4: 0x7f00_0002)
    private static let post = HTTP2Peer.request("POST", "/", HTTP2Peer.grpc)

    /// Two endpoints that are asked in turn.
    private func pair(
        _ one: TestServer, _ other: TestServer, isMeshed: Bool = false, adjust: (inout Service) -> Void = { _ in }
    ) throws -> TestMesh {
        let mesh = try TestMesh(
            [.init(server: one.address, isMeshed: isMeshed), .init(server: other.address, isMeshed: isMeshed)],
            declared: .grpc,
            adjust: {
                $0.loadBalancing = .roundRobin
                adjust(&$0)
            })
        mesh.keep(one, other)
        return mesh
    }

    /// Serves nothing, in one of the ways in which that is certain.
    private static func refusing(_ kind: String) throws -> TestServer {
        switch kind {
        case "refused stream": try TestServer.http2 { peer, stream in try peer.reset(stream, 7) }
        case "goaway":
            try TestServer.http2 { peer, stream in
                try peer.goAway(lastStream: 0)
                try peer.read { peer.isEnded }
            }
        default: try TestServer.refusing()
        }
    }

    @Test(arguments: ["refused stream", "goaway", "connection refused"], [false, true])
    func aCallThatWasNotProcessedIsMadeElsewhere(_ kind: String, _ isMeshed: Bool) async throws {
        try await onOwnThread {
            let refusing = try Self.refusing(kind)
            let mesh = try pair(refusing, try TestServer.calls(on: Self.second), isMeshed: isMeshed)
            let client = try mesh.http2Client()
            for _ in 0..<6 {
                let call = try client.call()
                #expect(call.text == "answer" && call.grpcStatus == "0")
            }
            if kind != "connection refused" { #expect(refusing.connections > 0, "it was asked") }
            try mesh.becomesQuiet()
        }
    }

    @Test func aServerThatTakesOneCallAConnectionLosesNone() async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                try peer.goAway(lastStream: stream)
                try peer.read { peer.received[stream]?.isOver ?? true }
                try peer.answerCall(stream, message: "answer")
                try peer.read { peer.isEnded }
            }
            let mesh = try TestMesh.http2(server, isMeshed: false)
            let client = try mesh.http2Client()
            for _ in 0..<20 { #expect(try client.call().text == "answer") }
            #expect(server.connections >= 20)
            try mesh.becomesQuiet()
        }
    }

    @Test func aRequestThatMayHaveBeenProcessedIsRepeatedOnlyWhenThatDoesNoHarm() async throws {
        try await onOwnThread {
            let seen = Atomic<Int>(0)
            let dying = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                seen.add(1, ordering: .relaxed)
                peer.socket.reset()
            }
            let mesh = try pair(dying, try TestServer.calls(on: Self.second))
            let client = try mesh.http2Client()
            var statuses: [String?] = []
            for _ in 0..<4 { statuses.append(try client.call().grpcStatus) }
            #expect(statuses.count { $0 == "14" } == seen.load(ordering: .relaxed))
            #expect(statuses.contains("14") && statuses.contains("0"))
            for _ in 0..<4 { #expect(try client.exchange(HTTP2Peer.request("GET", "/")).text == "answer") }
            try mesh.becomesQuiet()
        }
    }

    @Test func theReasonOfALostCallIsTold() async throws {
        try await onOwnThread {
            let dying = try TestServer.http2 { peer, _ in peer.socket.reset() }
            for isMeshed in [false, true] {
                let mesh = try TestMesh.http2(dying, isMeshed: isMeshed)
                let call = try mesh.http2Client().call()
                #expect(call.grpcStatus == "14" && call.reason == "upstream_reset")
                #expect(call.head["grpc-message"]?.hasPrefix("apus: ") ?? false)
            }
            let refusing = try TestMesh.http2(TestServer.refusing(), isMeshed: false)
            let refused = try refusing.http2Client().call()
            #expect(refused.grpcStatus == "14" && refused.reason == "connect_failed")
            let empty = try TestMesh([], declared: .grpc)
            let none = try empty.http2Client().call()
            #expect(none.grpcStatus == "14" && none.reason == "no_healthy_upstream")
        }
    }

    private static func unavailable(_ fields: [HTTP2Peer.Field] = []) throws -> TestServer {
        try TestServer.http2 { peer, stream in
            try peer.read { peer.received[stream]?.isOver ?? true }
            try peer.answerCall(stream, status: 14, fields)
        }
    }

    @Test(
        arguments: [(nil, true), ("0", true), ("20", true), ("-1", false), ("soon", false), ("99999999", false)]
            as [(String?, Bool)])
    func listedStatusesAreRetriedAsTheServerWishes(_ pushback: String?, _ isRetried: Bool) async throws {
        try await onOwnThread {
            let busy = try Self.unavailable(pushback.map { [("grpc-retry-pushback-ms", $0)] } ?? [])
            let mesh = try pair(busy, try TestServer.calls(on: Self.second)) { $0.retry.grpcStatuses = [14] }
            let client = try mesh.http2Client()
            let statuses = try (0..<4).map { _ in try client.call().grpcStatus }
            #expect(statuses.contains("14") == !isRetried)
            #expect(busy.connections == 1, "it was asked")
            try mesh.becomesQuiet()
        }
    }

    @Test func statusesThatAreNotListedAreTheClients() async throws {
        try await onOwnThread {
            let mesh = try pair(try Self.unavailable(), try TestServer.calls(on: Self.second)) {
                $0.retry.grpcStatuses = [8]
            }
            let client = try mesh.http2Client()
            #expect(Set(try (0..<4).map { _ in try client.call().grpcStatus }) == ["0", "14"])
        }
    }

    @Test func theRetryBudgetBoundsWhatAnOutageCauses() async throws {
        try await onOwnThread {
            let mesh = try TestMesh.http2(Self.unavailable(), isMeshed: false, adjust: { $0.retry.grpcStatuses = [14] })
            let client = try mesh.http2Client()
            let streams = try (0..<200).map { _ in try client.open(Self.post) }
            for stream in streams { #expect(try client.response(stream).grpcStatus == "14") }
            let counters = mesh.outboundReport.counters
            #expect(counters.retriesOverBudget > 0)
            #expect(counters.retries <= 200 / 5 + UInt64(RetryBudget.retriesPerSecond * RetryBudget.windowSeconds))
            try mesh.becomesQuiet()
        }
    }

    @Test func aCallThatTakesTooLongEndsAtItsDeadline() async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                guard peer.received[stream]?.head[":path"] == "/half" else { return }
                try peer.send(head: [(":status", "200"), ("content-type", "application/grpc")], on: stream)
                try peer.send(.data, stream: stream, [1, 2, 3])
            }
            let mesh = try TestMesh.http2(server)
            let client = try mesh.http2Client()
            let none = try client.exchange(Self.post + [("grpc-timeout", "100m")])
            #expect(none.grpcStatus == "4" && none.reason == "request_timeout")
            let half = try client.exchange(
                HTTP2Peer.request("POST", "/half", HTTP2Peer.grpc + [("grpc-timeout", "100000u")]))
            #expect(half.grpcStatus == "4" && half.reason == "request_timeout" && half.bodyBytes == 3)
            try mesh.becomesQuiet()
            #expect(TestMesh.requests(of: mesh.outbound, "grpc_response_status=\"4\"") == 2)
            #expect(TestMesh.requests(of: mesh.inbound, "grpc_response_status=\"1\"") == 2)
            // A deadline beyond all reckoning is none.
            let endless = try client.open(Self.post + [("grpc-timeout", "99999999H")])
            usleep(50_000)
            try client.reset(endless)
            try mesh.becomesQuiet()
            #expect(TestMesh.requests(of: mesh.outbound, "grpc_response_status=\"1\"") == 1)
            let limited = try TestMesh.http2(server, adjust: { $0.requestTimeoutMilliseconds = 50 })
            let plain = try limited.http2Client().exchange()
            #expect(plain.status == 504 && plain.reason == "request_timeout")
        }
    }

    @Test func aTryThatTakesTooLongIsGivenToAnotherEndpoint() async throws {
        try await onOwnThread {
            let resets = Atomic<Int>(0)
            let hanging = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.resetCode != nil }
                resets.add(1, ordering: .relaxed)
            }
            let mesh = try pair(hanging, try TestServer.calls(on: Self.second)) {
                $0.retry.perTryTimeoutMilliseconds = 100
                $0.retry.grpcStatuses = [4]
            }
            let client = try mesh.http2Client()
            for _ in 0..<4 { #expect(try client.call().text == "answer") }
            #expect(try client.exchange(HTTP2Peer.request("GET", "/")).text == "answer")
            try eventually("the hanging one is let off") { resets.load(ordering: .relaxed) > 0 }
            try mesh.becomesQuiet()
        }
    }

    @Test func anEndpointWhoseCallsKeepFailingIsEjected() async throws {
        try await onOwnThread {
            for isTrailersOnly in [true, false] {
                let failing = Atomic<Int>(0)
                let broken = try TestServer.http2 { peer, stream in
                    try peer.read { peer.received[stream]?.isOver ?? true }
                    failing.add(1, ordering: .relaxed)
                    try peer.answerCall(stream, status: 13, message: isTrailersOnly ? nil : "half")
                }
                let mesh = try pair(broken, try TestServer.calls(on: Self.second))
                let client = try mesh.http2Client()
                for _ in 0..<30 { _ = try client.call() }
                #expect(failing.load(ordering: .relaxed) == OutlierDetector.consecutiveFailureLimit)
                #expect(mesh.outboundReport.counters.ejections == 1)
            }
        }
    }

    @Test func aCallersFaultEjectsNobody() async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                try peer.answerCall(stream, status: 5)
            }
            let mesh = try pair(server, try TestServer.calls(on: Self.second))
            let client = try mesh.http2Client()
            for _ in 0..<30 { _ = try client.call() }
            #expect(mesh.outboundReport.counters.ejections == 0)
        }
    }

    // MARK: - The peer's limit of streams

    /// Takes ten streams a connection, and answers each after a moment.
    private static func narrow() throws -> TestServer {
        try TestServer { socket, _ in
            let peer = try HTTP2Peer(server: socket, settings: [(HTTP2Peer.maxConcurrentStreams, 10)])
            var waiting: [UInt32] = []
            while true {
                while let next = try peer.pendingRequest() { waiting.append(next) }
                if waiting.isEmpty {
                    guard let next = try peer.nextRequest() else { return }
                    waiting.append(next)
                    continue
                }
                #expect(waiting.count <= 10)
                try peer.answerCall(waiting.removeFirst(), message: "answer")
            }
        }
    }

    @Test(arguments: [false, true])
    func moreCallsThanAConnectionTakesWaitOrGoOnAnother(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try Self.narrow()
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let client = try mesh.http2Client()
            // The server's settings are known after the first.
            #expect(try client.call().text == "answer")
            for _ in 0..<5 {
                let streams = try (0..<200).map { _ in try client.open(Self.post) }
                for stream in streams { #expect(try client.response(stream).text == "answer") }
            }
            #expect((2...16).contains(server.connections))
            try mesh.becomesQuiet()
        }
    }

    @Test func whoWaitsDoesNotSufferFromAConnectionThatCannotBeMade() async throws {
        try await onOwnThread {
            let accepted = Atomic<Int>(0)
            let server = try TestServer { socket, _ in
                guard accepted.add(1, ordering: .relaxed).newValue == 1 else {
                    // It is not even greeted: to a sidecar that is a handshake that fails, to a client a connection lost.
                    return socket.reset()
                }
                let peer = try HTTP2Peer(server: socket, settings: [(HTTP2Peer.maxConcurrentStreams, 1)])
                while let stream = try peer.nextWholeRequest() { try peer.answerCall(stream, message: "answer") }
            }
            let mesh = try TestMesh.http2(server, isMeshed: false)
            let client = try mesh.http2Client()
            #expect(try client.call().text == "answer")
            let streams = try (0..<50).map { _ in try client.open(HTTP2Peer.request("GET", "/")) }
            var answered = 0
            for stream in streams where try client.response(stream).text == "answer" { answered += 1 }
            #expect(answered >= 45)
            try mesh.becomesQuiet()
        }
    }

    @Test func aFullQueueIsToldAsSuch() async throws {
        try await onOwnThread {
            // The server takes one call a connection and answers none.
            let server = try TestServer.http2(settings: [(HTTP2Peer.maxConcurrentStreams, 1)]) { peer, stream in
                if peer.received[stream]?.head[":path"] == "/first" { try peer.answerCall(stream) }
            }
            let mesh = try TestMesh.http2(server, isMeshed: false)
            let clients = try (0..<3).map { _ in try mesh.http2Client() }
            _ = try clients[0].exchange(HTTP2Peer.request("POST", "/first", HTTP2Peer.grpc))
            var streams: [(HTTP2Peer, UInt32)] = []
            for client in clients {
                for _ in 0..<400 { streams.append((client, try client.open(Self.post))) }
            }
            // 1,024 may wait and 16 are under way: what exceeds them is answered.
            let refused = 1200 - 1024 - 16
            try eventually("the rest is refused") {
                TestMesh.requests(of: mesh.outbound, "apus_reason=\"queue_full\"") >= refused
            }
            let last = clients[2]
            try last.read { last.received.values.contains { $0.isOver } }
            let answer = try #require(last.received.values.first { $0.isOver })
            #expect(answer.grpcStatus == "14" && answer.reason == "queue_full")
        }
    }
}
