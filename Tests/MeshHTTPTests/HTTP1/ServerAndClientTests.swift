import MeshAddress
import MeshHTTP
import MeshIO
import Synchronization
import Testing

/// A loop with a server on a free port of it, stopped at the end of its test.
private final class Fixture: Sendable {
    let loop: EventLoop
    private let held = Mutex<LoopBound<HTTP1Server>?>(nil)
    let address: SocketAddress

    init(
        limits: HTTP1Server.Limits = HTTP1Server.Limits(),
        handler: @escaping @Sendable (EventLoop) -> HTTP1Server.Handler
    ) async throws {
        let loop = try EventLoop.spawn(name: "http1-test")
        self.loop = loop
        let started = await loop.perform { () -> Result<(LoopBound<HTTP1Server>, SocketAddress), SystemError> in
            do throws(SystemError) {
                let server = try HTTP1Server(
                    loop: loop, address: SocketAddress(.loopback4, 0), limits: limits, handler: handler(loop))
                return .success((LoopBound(server, loop: loop), server.address ?? SocketAddress(.any4, 0)))
            } catch {
                return .failure(error)
            }
        }
        let (server, address) = try started.get()
        self.address = address
        held.withLock { $0 = server }
    }

    func statistics() async -> HTTP1Server.Statistics {
        let server = held.withLock { $0 }
        return await loop.perform { server?.value.statistics ?? HTTP1Server.Statistics() }
    }

    func stop() async {
        let server = held.withLock { held in
            defer { held = nil }
            return held
        }
        await loop.perform { server?.value.close() }
        loop.stop()
    }

    func get(_ request: HTTP1Client.Request, timeoutMilliseconds: Int = 5000, bodyLimitBytes: Int = 65536) async
        -> Result<HTTP1Response, HTTP1Client.Failure>
    {
        await exchange(request, loop: loop, address: address, timeoutMilliseconds, bodyLimitBytes)
    }
}

private func exchange(
    _ request: HTTP1Client.Request, loop: EventLoop, address: SocketAddress, _ timeoutMilliseconds: Int = 5000,
    _ bodyLimitBytes: Int = 65536
) async -> Result<HTTP1Response, HTTP1Client.Failure> {
    await withCheckedContinuation { continuation in
        loop.submit {
            HTTP1Client.send(
                request, loop: loop, address: address, timeoutMilliseconds: timeoutMilliseconds,
                bodyLimitBytes: bodyLimitBytes
            ) { continuation.resume(returning: $0) }
        }
    }
}

/// Says back what came; `/late` answers after the next round of the loop, `/never` not at all, `/big` 300,000 bytes.
private func echo(_ loop: EventLoop) -> HTTP1Server.Handler {
    { request, reply in
        let body = String(decoding: request.body, as: UTF8.self)
        let text =
            "\(request.method) \(request.path) \(request.query.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }) \(body);"
        switch request.path {
        case "/late":
            let late = LoopBound(reply, loop: loop)
            loop.submit { loop.submit { late.value(.text(200, text)) } }
        case "/never": break
        case "/big": reply(HTTP1Response(status: 200, body: [UInt8](repeating: 98, count: 300_000)))
        default: reply(.text(200, text))
        }
        reply(.text(500, "a second reply"))
    }
}

@Suite(.timeLimit(.minutes(1))) struct ServerAndClientTests {
    private func bodies(_ text: String) -> [String] {
        text.components("\r\n\r\n").dropFirst().map { String($0.prefix { $0 != ";" }) }
    }

    @Test("Pipelined requests are answered in their order, late replies included")
    func pipelining() async throws {
        let fixture = try await Fixture { loop in
            { request, reply in
                guard request.path == "/late" else { return reply(.text(200, request.path + ";")) }
                let late = LoopBound(reply, loop: loop)
                loop.submit { loop.submit { late.value(.text(200, "/late;")) } }
            }
        }
        let peer = try LoopbackPeer(to: fixture.address)
        peer.send(
            "GET /late HTTP/1.1\r\nHost: a\r\n\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        peer.send("GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        #expect(bodies(peer.receive()) == ["/late", "/1", "/late", "/2"])
        await fixture.stop()
    }

    @Test("The first reply counts, a second does nothing")
    func repliesOnce() async throws {
        let fixture = try await Fixture(handler: echo)
        let peer = try LoopbackPeer(to: fixture.address)
        peer.send("GET /a?x=%41+b&y HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n")
        peer.finishWriting()
        let received = peer.receive()
        #expect(bodies(received) == ["GET /a [\"x=A b\", \"y=\"] ", "GET /b [] "])
        #expect(!received.contains("second"))
        await fixture.stop()
    }

    @Test("Bodies arrive whole, by length or chunked, after a 100 when it is expected")
    func bodies() async throws {
        let fixture = try await Fixture(handler: echo)
        let peer = try LoopbackPeer(to: fixture.address)
        peer.send("PUT /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        #expect(peer.receive { $0.hasSuffix("\r\n\r\n") } == "HTTP/1.1 100 Continue\r\n\r\n")
        peer.send("hello")
        #expect(peer.receive { $0.contains(";") }.contains("PUT /l [] hello;"))
        peer.send(
            "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n4;x\r\ndefg\r\n0\r\n\r\n"
        )
        #expect(peer.receive().contains("PUT /c [] abcdefg;"))
        await fixture.stop()
    }

    @Test("HTTP/1.0 closes unless asked to stay, and HEAD has no body")
    func versions() async throws {
        let fixture = try await Fixture(handler: echo)
        let old = try LoopbackPeer(to: fixture.address)
        old.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        #expect(old.receive { $0.contains(";") }.contains("Connection: keep-alive\r\n"))
        old.send("HEAD / HTTP/1.0\r\n\r\n")
        let head = old.receive()
        #expect(head.hasSuffix("Connection: close\r\n\r\n") && head.contains("Content-Length: 11\r\n"))
        await fixture.stop()
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var request: String
        var status: String
    }

    @Test(
        "What does not parse or is too large is refused and the connection closed",
        arguments: [
            Refusal(
                testDescription: "space before colon", request: "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
                status: "400 Bad Request"),
            Refusal(
                testDescription: "large head",
                request: "GET / HTTP/1.1\r\nHost: a\r\nX: " + String(repeating: "x", count: 9000),
                status: "431 Request Header Fields Too Large"),
            Refusal(
                testDescription: "large body", request: "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n",
                status: "413 Content Too Large"),
            Refusal(
                testDescription: "large chunked body",
                request: "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10010\r\n"
                    + String(repeating: "x", count: 65552), status: "413 Content Too Large"),
            Refusal(
                testDescription: "bad chunk",
                request: "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                status: "400 Bad Request"),
        ])
    func refusals(refusal: Refusal) async throws {
        let fixture = try await Fixture(handler: echo)
        let peer = try LoopbackPeer(to: fixture.address)
        peer.send(refusal.request)
        let reply = peer.receive()
        #expect(reply.hasPrefix("HTTP/1.1 \(refusal.status)\r\n") && reply.contains("Connection: close\r\n"))
        #expect(await fixture.statistics().refusedRequests == 1)
        await fixture.stop()
    }

    @Test("A request that does not end is answered 408, a handler that does not answer 503")
    func timeouts() async throws {
        var limits = HTTP1Server.Limits()
        limits.requestMilliseconds = 40
        limits.handlerMilliseconds = 40
        let fixture = try await Fixture(limits: limits) { _ in { _, _ in } }
        let slow = try LoopbackPeer(to: fixture.address)
        slow.send("GET / HTTP/1.1\r\n")
        #expect(slow.receive().hasPrefix("HTTP/1.1 408 "))
        #expect(try await fixture.get(HTTP1Client.Request(path: "/")).get().status == 503)
        #expect(await fixture.statistics().timeouts == 2)
        await fixture.stop()
    }

    @Test("An idle connection is closed, and one above the limit at once")
    func connections() async throws {
        var limits = HTTP1Server.Limits()
        limits.idleMilliseconds = 200
        limits.connections = 1
        let fixture = try await Fixture(limits: limits, handler: echo)
        let first = try LoopbackPeer(to: fixture.address)
        first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        _ = first.receive { $0.contains(";") }
        let second = try LoopbackPeer(to: fixture.address)
        #expect(second.receive() == "")
        #expect(await fixture.statistics().refusedConnections == 1)
        #expect(first.receive() == "")
        await fixture.stop()
    }

    @Test("The client gets status, type and body, cut at its limit")
    func client() async throws {
        let fixture = try await Fixture(handler: echo)
        let posted = try await fixture.get(HTTP1Client.Request(method: "POST", path: "/p?q=1", body: bytes("in"))).get()
        #expect(posted == .text(200, "POST /p [\"q=1\"] in;"))
        #expect(try await fixture.get(HTTP1Client.Request(method: "HEAD", path: "/")).get().body.isEmpty)
        let cut = try await fixture.get(HTTP1Client.Request(path: "/big"), bodyLimitBytes: 1000).get()
        #expect(cut.isBodyTruncated && cut.body.count == 1000)
        let whole = try await fixture.get(HTTP1Client.Request(path: "/big"), bodyLimitBytes: 300_000).get()
        #expect(!whole.isBodyTruncated && whole.body.count == 300_000)
        await fixture.stop()
    }

    @Test("The client refuses to write a request that its parts would reframe")
    func clientRefuses() async throws {
        let fixture = try await Fixture(handler: echo)
        let requests = [
            HTTP1Client.Request(path: "/ HTTP/1.1\r\nX: "), HTTP1Client.Request(path: "/a b"),
            HTTP1Client.Request(path: "/", fields: [("X", "1\r\nY: 2")]),
            HTTP1Client.Request(path: "/", fields: [("X ", "1")]),
            HTTP1Client.Request(path: "/", fields: [("Content-Length", "5")]),
            HTTP1Client.Request(method: "CONNECT", path: "a:1"),
            HTTP1Client.Request(path: "/", fields: [("Transfer-Encoding", "chunked")]),
            HTTP1Client.Request(path: "no-slash"),
        ]
        for request in requests {
            guard case .failure(.invalidRequest) = await fixture.get(request) else {
                Issue.record("\(request) was sent")
                continue
            }
        }
        #expect(await fixture.statistics().requests == 0)
        await fixture.stop()
    }

    @Test("The client tells a refused connection, a silent server, a truncated and an invalid response apart")
    func clientFailures() async throws {
        let loop = try EventLoop.spawn(name: "http1-client-test")
        let request = HTTP1Client.Request(path: "/")
        let closed = try listenOnce { _ in }
        let gone = try LoopbackPeer(to: closed)
        _ = gone.receive()
        guard case .failure(.connection(.connectFailed)) = await exchange(request, loop: loop, address: closed) else {
            Issue.record("a closed port")
            return
        }
        let silent = try listenOnce { _ = $0.receive() }
        #expect(await exchange(request, loop: loop, address: silent, 50) == .failure(.timedOut))
        func answering(_ text: String) async throws -> Result<HTTP1Response, HTTP1Client.Failure> {
            let address = try listenOnce { peer in
                _ = peer.receive { $0.hasSuffix("\r\n\r\n") }
                peer.send(text)
                peer.finishWriting()
                _ = peer.receive()
            }
            return await exchange(request, loop: loop, address: address)
        }
        #expect(
            try await answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel") == .failure(.connection(.truncated)))
        #expect(try await answering("HTTP/1.1 2000 OK\r\n\r\n") == .failure(.invalidResponse(.invalidStatus)))
        #expect(try await answering("HTTP/1.0 200 OK\r\n\r\nuntil close").get().body == bytes("until close"))
        let interim =
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        #expect(try await answering(interim).get().body == bytes("hi"))
        loop.stop()
    }
}
