import MeshHTTP
import Testing

@Suite struct HeadTests {
    @Test("A well-formed request is framed, with what is behind it left alone", arguments: Messages.goodRequests)
    func goodRequest(message: Messages.Good) throws {
        let raw = bytes(message.text)
        guard case .complete(let head) = parse(raw, as: .request) else {
            Issue.record("\(parse(raw, as: .request))")
            return
        }
        #expect(head.framing == message.framing)
        #expect(head.text.contains("keepAlive \(message.keepAlive)"))
        guard case .complete(_, _, let body, let consumed) = receive(raw, as: .request) else {
            Issue.record("\(receive(raw, as: .request))")
            return
        }
        #expect(String(decoding: body, as: UTF8.self) == message.body)
        #expect(consumed == head.length + body.count)
    }

    @Test("A request that could be read in two ways is refused with its reason", arguments: Messages.badRequests)
    func badRequest(message: Messages.Bad) {
        #expect(receive(bytes(message.text), as: .request) == .invalid(message.error))
    }

    @Test("A well-formed response is framed by its request, status and fields", arguments: Messages.goodResponses)
    func goodResponse(message: Messages.Good) {
        let raw = bytes(message.text)
        guard case .complete(let head) = parse(raw, as: .response(message.traits)) else {
            Issue.record("\(parse(raw, as: .response(message.traits)))")
            return
        }
        #expect(head.framing == message.framing)
        #expect(head.text.contains("keepAlive \(message.keepAlive)"))
        switch receive(raw, as: .response(message.traits)) {
        case .complete(_, _, let body, _), .open(_, _, let body):
            #expect(String(decoding: body, as: UTF8.self) == message.body)
        case let other:
            Issue.record("\(other)")
        }
    }

    @Test("A response that could be read in two ways is refused with its reason", arguments: Messages.badResponses)
    func badResponse(message: Messages.Bad) {
        #expect(receive(bytes(message.text), as: .response(message.traits)) == .invalid(message.error))
    }

    @Test(
        "How long a server keeps an idle connection is read from its Keep-Alive",
        arguments: [
            ("timeout=5, max=100", 5), ("max=3,Timeout=0", 0), ("timeout=99999999999999999999", 100_000_000),
            ("timeout=", nil),
            ("timeout=5s", nil), ("timeout=-1", nil), ("timeout = 5", nil), ("max=5", nil), ("", nil),
        ])
    func keepAlive(value: String, seconds: Int?) {
        bytes("HTTP/1.1 200 OK\r\nKeep-Alive: \(value)\r\n\r\n").withUnsafeBytes {
            guard case .complete(let head) = ResponseHead.parse($0, answering: []) else {
                Issue.record("does not parse")
                return
            }
            #expect(head.keepAliveSeconds == seconds)
        }
    }

    @Test("Wherever a message is split, the answer is the same")
    func splits() {
        var messages: [([UInt8], MessageKind)] = []
        messages += Messages.goodRequests.map { (bytes($0.text), .request) }
        messages += Messages.badRequests.map { (bytes($0.text), .request) }
        messages += Messages.goodResponses.map { (bytes($0.text), .response($0.traits)) }
        messages += Messages.badResponses.map { (bytes($0.text), .response($0.traits)) }
        let prefix = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        messages += Messages.badBodies.map { (bytes(prefix + $0.text), .request) }
        for (message, kind) in messages {
            let whole = receive(message, as: kind)
            for position in 0...message.count {
                #expect(receive([message[..<position], message[position...]], as: kind) == whole)
            }
            #expect(receive(message.indices.map { message[$0...$0] }, as: kind) == whole)
        }
    }

    @Test("A head may be as large as its limits and not one byte larger")
    func limits() {
        var limits = HTTP1Limits()
        limits.headBytes = 128
        limits.targetBytes = 20
        limits.fields = 3
        func get(target: Int = 1, padding: Int = 0, fields: Int = 0) -> [UInt8] {
            bytes(
                "GET /" + String(repeating: "t", count: target - 1) + " HTTP/1.1\r\nHost: a\r\n"
                    + String(repeating: "F:\r\n", count: fields) + "P: " + String(repeating: "p", count: padding)
                    + "\r\n\r\n")
        }
        func outcome(_ message: [UInt8]) -> HTTP1Error? {
            if case .invalid(let error) = receive(message, as: .request, limits: limits) { return error }
            return nil
        }
        let rest = get().count
        #expect(outcome(get(padding: 128 - rest)) == nil)
        #expect(outcome(get(padding: 129 - rest)) == .headTooLarge)
        #expect(outcome(Array(get(padding: 400).prefix(128))) == .headTooLarge)
        #expect(outcome(get(target: 20)) == nil)
        #expect(outcome(get(target: 21)) == .targetTooLong)
        #expect(outcome(Array(get(target: 25).prefix(25))) == .targetTooLong)
        #expect(outcome(get(fields: 1)) == nil)
        #expect(outcome(get(fields: 2)) == .tooManyFields)
    }

    @Test("The standard limits are 64 KiB of head, 16 KiB of target and 200 fields, answered 431, 414 and 431")
    func standardLimits() {
        func outcome(_ text: String) -> HTTP1Error? {
            if case .invalid(let error) = receive(bytes(text), as: .request) { return error }
            return nil
        }
        let large = outcome("GET / HTTP/1.1\r\nHost: a\r\nX: " + String(repeating: "x", count: 66_000) + "\r\n\r\n")
        #expect(large == .headTooLarge && large?.status == 431)
        let long = outcome("GET /" + String(repeating: "x", count: 17_000) + " HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(long == .targetTooLong && long?.status == 414)
        let many = outcome("GET / HTTP/1.1\r\nHost: a\r\n" + String(repeating: "X: 1\r\n", count: 200) + "\r\n")
        #expect(many == .tooManyFields && many?.status == 431)
        #expect(outcome("GET / HTTP/1.1\r\nHost: a\r\n" + String(repeating: "X: 1\r\n", count: 199) + "\r\n") == nil)
    }

    @Test("Method, target, path, authority and remembered values are found")
    func parts() {
        let raw = bytes(
            "DELETE http://shop.local:8080/a/b?c=d HTTP/1.1\r\nUSER-AGENT:  curl/8 \r\nhOsT: shop.local:8080\r\n"
                + "x-request-ID: 7\r\nTraceParent: 00-1\r\nUser-Agent: second\r\n\r\n")
        raw.withUnsafeBytes { raw in
            guard case .complete(let head) = RequestHead.parse(raw) else {
                Issue.record("not complete")
                return
            }
            func text(_ range: ByteRange?) -> String? { range.map { String(decoding: raw[$0], as: UTF8.self) } }
            #expect(head.method == .delete && head.method.isIdempotent)
            #expect(text(head.path) == "/a/b")
            #expect(text(head.authority) == "shop.local:8080")
            #expect(text(head.value(of: .userAgent)) == "curl/8")
            #expect(text(head.value(of: .requestID)) == "7")
            #expect(text(head.value(of: .traceparent)) == "00-1")
            #expect(head.value(of: .contentType) == nil)
        }
    }

    @Test("Each code is stable text of lower-case letters, digits and underscores, and each status an error's")
    func codes() {
        #expect(Set(HTTP1Error.allCases.map(\.code)).count == HTTP1Error.allCases.count)
        for error in HTTP1Error.allCases {
            #expect(error.code.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 95 })
            #expect((400...505).contains(error.status))
        }
    }
}
