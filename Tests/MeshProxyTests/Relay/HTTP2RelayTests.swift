import Glibc
import MeshAddress
import MeshCore
import MeshProxy
import Synchronization
import Testing

/// HTTP/2 from a client's stream to an endpoint's and back, through one sidecar and through a pair.
@Suite struct HTTP2RelayTests {
    @Test(arguments: [false, true])
    func headBodyAndTrailersPassWholeBothWays(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let seen = Mutex<HTTP2Peer.Received?>(nil)
            let server = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                seen.withLock { $0 = peer.received[stream] }
                try peer.answer(
                    stream, 200, [("content-type", "application/grpc"), ("x-head-bin", "AAE=")], body: "answer",
                    trailers: [("grpc-status", "0"), ("x-end", "yes"), ("x-end-bin", "/w==")])
            }
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let client = try mesh.http2Client()
            let stream = try client.open(
                HTTP2Peer.request(
                    "POST", "/a?b", HTTP2Peer.grpc + [("x-one", "1"), ("x-one", "2"), ("key-bin", "AA")]),
                body: "message", ends: false)
            try client.send(head: [("x-sum", "7")], on: stream, ends: true)
            let answer = try client.response(stream)
            #expect(answer.status == 200 && answer.text == "answer" && answer.hasEnded)
            #expect(answer.head["x-head-bin"] == "AAE=" && answer.grpcStatus == "0")
            #expect(answer.trailers["x-end"] == "yes" && answer.trailers["x-end-bin"] == "/w==")
            let request = try #require(seen.withLock { $0 })
            #expect(request.text == "message" && request.trailers["x-sum"] == "7")
            #expect(request.head[":path"] == "/a?b" && request.head[":authority"] == "catalog")
            #expect(request.head.filter { $0.name == "x-one" }.map(\.value) == ["1", "2"])
            #expect(request.head["key-bin"] == "AA" && request.head["te"] == "trailers")
            #expect(request.head["traceparent"]?.count == 55)
            try mesh.becomesQuiet()
        }
    }

    @Test(arguments: [false, true])
    func responsesWithoutABodyAndInformationalOnesKeepTheirForm(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                let head = peer.received[stream]?.head ?? []
                switch head[":path"] {
                case "/hints":
                    try peer.send(head: [(":status", "103"), ("link", "</a>")], on: stream)
                    try peer.answer(stream, body: "late")
                case "/204": try peer.answer(stream, 204)
                case "/304": try peer.answer(stream, 304, [("content-length", "10")])
                default: try peer.answer(stream, 200, [("content-length", "10")])
                }
            }
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let client = try mesh.http2Client()
            let hints = try client.exchange(HTTP2Peer.request("GET", "/hints"))
            #expect(hints.informational == [103] && hints.status == 200 && hints.text == "late")
            for (method, path, status) in [("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", "/", 200)] {
                let answer = try client.exchange(HTTP2Peer.request(method, path))
                #expect(answer.status == status && answer.body.isEmpty && answer.hasEnded)
                #expect(answer.head["content-length"] == (status == 204 ? nil : "10"))
            }
            try mesh.becomesQuiet()
        }
    }

    @Test(arguments: [false, true])
    func anAnswerBeforeTheEndOfTheRequestEndsIt(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let resets = Mutex<[UInt32?]>([])
            let server = try TestServer.http2 { peer, stream in
                try peer.answer(stream, body: "enough")
                try peer.read { peer.received[stream]?.isOver ?? true }
                resets.withLock { $0.append(peer.received[stream]?.resetCode) }
            }
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let client = try mesh.http2Client()
            let stream = try client.open(body: "part", ends: false)
            let answer = try client.response(stream)
            #expect(answer.text == "enough" && answer.hasEnded)
            try client.read { client.received[stream]?.resetCode == 0 }
            try eventually("the server hears that no more will come") { resets.withLock { $0 } == [0] }
            try mesh.becomesQuiet()
        }
    }

    @Test(arguments: [false, true])
    func aRequestThatItsClientGivesUpIsGivenUpAtTheServer(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let resets = Mutex<[UInt32?]>([])
            let server = try TestServer.http2 { peer, stream in
                if peer.received[stream]?.head[":path"] == "/half" {
                    try peer.send(head: [(":status", "200")], on: stream)
                    try peer.send(.data, stream: stream, [1, 2, 3])
                }
                try peer.read { peer.received[stream]?.resetCode != nil }
                resets.withLock { $0.append(peer.received[stream]?.resetCode) }
            }
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let client = try mesh.http2Client()
            for path in ["/none", "/half"] {
                let stream = try client.open(HTTP2Peer.request("POST", path, HTTP2Peer.grpc), body: "part", ends: false)
                if path == "/half" { try client.read { client.received[stream]?.bodyBytes == 3 } }
                try eventually("it is at the server") { mesh.inboundReport.requestsInFlight == (isMeshed ? 1 : 0) }
                usleep(20_000)
                try client.reset(stream, 8)
                try mesh.becomesQuiet()
            }
            try eventually("both were given up") { resets.withLock { $0 } == [8, 8] }
            #expect(
                TestMesh.requests(of: mesh.outbound, "apus_reason=\"client_gone\"", "grpc_response_status=\"1\"") == 2)
        }
    }

    @Test(arguments: [false, true])
    func aServersResetReachesTheClientWithItsCode(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let isSeen = Atomic<Bool>(false)
            let server = try TestServer.http2 { peer, stream in
                try peer.send(head: [(":status", "200")], on: stream)
                try peer.send(.data, stream: stream, [1, 2, 3])
                while !isSeen.load(ordering: .relaxed) { usleep(1_000) }
                try peer.reset(stream, 11)
            }
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let client = try mesh.http2Client()
            let stream = try client.open()
            try client.read { client.received[stream]?.bodyBytes == 3 }
            isSeen.store(true, ordering: .relaxed)
            let answer = try client.response(stream)
            #expect(answer.status == 200 && !answer.hasEnded && answer.resetCode == 11)
            try mesh.becomesQuiet()
        }
    }

    @Test(arguments: [false, true])
    func anAnswerThatBreaksOffIsNeverTakenForAWholeOne(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let isSeen = Atomic<Bool>(false)
            let server = try TestServer.http2 { peer, stream in
                try peer.send(head: [(":status", "200"), ("content-type", "application/grpc")], on: stream)
                try peer.send(.data, stream: stream, [0, 0, 0, 0, 0])
                while !isSeen.exchange(false, ordering: .relaxed) { usleep(1_000) }
                peer.socket.reset()
            }
            let mesh = try TestMesh.http2(server, isMeshed: isMeshed)
            let client = try mesh.http2Client()
            func breakOff(_ fields: [HTTP2Peer.Field]) throws -> HTTP2Peer.Received {
                let stream = try client.open(HTTP2Peer.request("POST", "/", fields))
                try client.read { client.received[stream]?.bodyBytes == 5 }
                isSeen.store(true, ordering: .relaxed)
                return try client.response(stream)
            }
            let call = try breakOff(HTTP2Peer.grpc)
            #expect(call.grpcStatus == "14" && call.reason == "upstream_truncated")
            let plain = try breakOff([])
            #expect(plain.status == 200 && !plain.hasEnded && plain.resetCode == 2)
            try mesh.becomesQuiet()
        }
    }

    @Test func theRequestsOfOneConnectionAreSpreadOverTheEndpoints() async throws {
        try await onOwnThread {
            let servers = try (1...3).map { number in
                try TestServer.calls(on: IPAddress(v4: 0x7f00_0000 + UInt32(number)), message: "\(number)")
            }
            let mesh = try TestMesh(servers.map { .init(server: $0.address) }, declared: .grpc) {
                $0.loadBalancing = .roundRobin
            }
            let client = try mesh.http2Client()
            let streams = try (0..<30).map { _ in try client.open(HTTP2Peer.request("POST", "/", HTTP2Peer.grpc)) }
            let answers = try streams.map { try client.response($0).text }
            for number in 1...3 { #expect(answers.count { $0 == "\(number)" } == 10) }
            #expect(servers.map(\.connections) == [1, 1, 1])
            try mesh.becomesQuiet()
        }
    }

    @Test func whatTheClientSpeaksCountsAndNotWhatIsDeclared() async throws {
        try await onOwnThread {
            #expect(try TestMesh.http2(TestServer.http()).get().text == "hello")
            let new = try TestServer.calls()
            let mesh = try TestMesh(new, declared: .http1)
            mesh.keep(new)
            #expect(try mesh.http2Client().call().text == "answer")
        }
    }

    @Test(arguments: [false, true])
    func aRequestThatIsNotServedIsAnsweredWithItsReason(_ isGRPC: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer.calls()
            let mesh = try TestMesh([.init(server: server.address)], declared: .grpc) { $0.requestBodyLimitBytes = 100 }
            let client = try mesh.http2Client()
            let kind = isGRPC ? HTTP2Peer.grpc : []
            func expect(_ answer: HTTP2Peer.Received, _ status: Int, _ code: Int, _ reason: String) {
                #expect(answer.status == (isGRPC ? 200 : status))
                #expect(answer.grpcStatus == (isGRPC ? "\(code)" : nil))
                #expect(answer.reason == reason)
            }
            let long = String(repeating: "x", count: 101)
            expect(
                try client.exchange(HTTP2Peer.request("POST", "/", kind + [("content-length", "101")]), body: long),
                413, 8,
                "request_body_too_large")
            let open = try client.open(HTTP2Peer.request("POST", "/", kind), body: long, ends: false)
            expect(try client.response(open), 413, 8, "request_body_too_large")
            // No frame is longer than 16 KiB, so the block goes in five.
            let large = HTTP2Peer.block(
                HTTP2Peer.request("POST", "/", kind + (0..<14).map { ("x-\($0)", String(repeating: "y", count: 5000)) })
            )
            let stream = try client.open(HTTP2Peer.request("GET", "/"))
            _ = try client.response(stream)
            let next = stream + 2
            for offset in Swift.stride(from: 0, to: large.count, by: 16_000) {
                let end = min(offset + 16_000, large.count)
                try client.send(
                    offset == 0 ? .headers : .continuation,
                    flags: (offset == 0 ? 1 : 0) | (end == large.count ? 4 : 0), stream: next,
                    Array(large[offset..<end]))
            }
            expect(try client.response(next), 431, 8, "invalid_request_head_too_large")
            #expect(mesh.outboundReport.counters.bodiesTooLarge == 2)
            try mesh.becomesQuiet()
        }
    }

    @Test func aCallerThatPolicyDeniesIsToldWhy() async throws {
        try await onOwnThread {
            let mesh = try TestMesh.http2(TestServer.calls())
            let client = try HTTP2Peer(client: TestSocket.connected(to: mesh.sidecars[0]))
            let call = try client.call()
            #expect(call.grpcStatus == "7" && call.reason == "mtls_required")
            let other = try HTTP2Peer(client: TestSocket.connected(to: mesh.sidecars[0]))
            let plain = try other.exchange()
            #expect(plain.status == 403 && plain.reason == "mtls_required" && plain.text.hasPrefix("apus: "))
            try client.readToEnd()
            #expect(client.goAways.last?.code == 0)
            #expect(mesh.inboundReport.counters.plaintextRefused == 2)
            try eventually("nothing of it is left") { mesh.inboundReport.connections == 0 }
        }
    }

    @Test func aTunnelThroughHTTP2IsRefused() async throws {
        try await onOwnThread {
            let mesh = try TestMesh.http2(TestServer.calls())
            let client = try mesh.http2Client()
            let answer = try client.exchange([(":method", "CONNECT"), (":authority", "catalog:80")])
            #expect(answer.status == 501 && answer.reason == "method_not_supported")
        }
    }

    @Test(
        arguments: [
            [("X-Upper", "a")], [("connection", "close")], [("transfer-encoding", "chunked")], [("bad name", "a")],
            [("x", "a\u{0}b")], [("te", "gzip")], [(":path", "/again")],
        ] as [[(String, String)]])
    func aRequestThatBreaksTheRulesOfHTTPIsResetAlone(_ fields: [(String, String)]) async throws {
        try await onOwnThread {
            let mesh = try TestMesh.http2(TestServer.calls())
            let client = try mesh.http2Client()
            let broken = try client.exchange(HTTP2Peer.request("POST", "/", fields.map { ($0.0, $0.1) }))
            #expect(broken.blocks.isEmpty && broken.resetCode == 1)
            #expect(try client.call().text == "answer", "the connection goes on")
            #expect(mesh.outboundReport.counters.invalidRequests == 1)
            try mesh.becomesQuiet()
        }
    }

    @Test(arguments: ["head", "length", "large"])
    func anAnswerThatBreaksTheRulesOfHTTPIsNotPassedOn(_ kind: String) async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                switch kind {
                case "head": try peer.answer(stream, 200, [("connection", "close")])
                case "length": try peer.answer(stream, 200, [("content-length", "nine")])
                default:
                    let fields = (0..<5).map { ("x-\($0)", String(repeating: "y", count: 15_000)) }
                    let block = HTTP2Peer.block([(":status", "200")] + fields)
                    for offset in Swift.stride(from: 0, to: block.count, by: 16_000) {
                        let end = min(offset + 16_000, block.count)
                        try peer.send(
                            offset == 0 ? .headers : .continuation,
                            flags: (offset == 0 ? 1 : 0) | (end == block.count ? 4 : 0), stream: stream,
                            Array(block[offset..<end]))
                    }
                }
            }
            let mesh = try TestMesh.http2(server, isMeshed: false)
            let answer = try mesh.http2Client().exchange()
            #expect(answer.status == 502 && answer.reason == "invalid_response")
            #expect(mesh.outboundReport.counters.invalidResponses == 1)
            try mesh.becomesQuiet()
        }
    }

    @Test func callsAreCountedWithTheirStatus() async throws {
        try await onOwnThread {
            let server = try TestServer.http2 { peer, stream in
                try peer.read { peer.received[stream]?.isOver ?? true }
                let path = peer.received[stream]?.head[":path"] ?? ""
                if path == "/late" {
                    try peer.answerCall(stream, status: 5, message: "part")
                } else {
                    try peer.answerCall(stream, status: path == "/early" ? 7 : 0)
                }
            }
            let mesh = try TestMesh.http2(server)
            let client = try mesh.http2Client()
            for path in ["/early", "/late", "/fine"] {
                _ = try client.exchange(HTTP2Peer.request("POST", path, HTTP2Peer.grpc))
            }
            try mesh.becomesQuiet()
            for plane in [mesh.outbound, mesh.inbound] {
                for status in [7, 5, 0] {
                    let count = TestMesh.requests(
                        of: plane, "request_protocol=\"grpc\"", "response_code=\"200\"",
                        "grpc_response_status=\"\(status)\"")
                    #expect(count == 1, "status \(status)")
                }
            }
        }
    }
}
