import MeshHTTP
import Testing

@Suite struct HeadCopyTests {
    private func copyRequest(_ text: String, edit: HeadEdit = HeadEdit(), appending: String = "", room: Int = 4096)
        -> String
    {
        let raw = bytes(text)
        return raw.withUnsafeBytes { raw in
            guard case .complete(let head) = RequestHead.parse(raw) else { return "does not parse" }
            let copied = copy(room) { output in
                bytes(appending).withUnsafeBytes { head.copy(from: raw, to: output, edit: edit, appending: $0) }
            }
            return String(decoding: copied, as: UTF8.self)
        }
    }

    private func copyResponse(_ text: String, traits: RequestTraits = [], edit: HeadEdit = HeadEdit()) -> String {
        let raw = bytes(text)
        return raw.withUnsafeBytes { raw in
            guard case .complete(let head) = ResponseHead.parse(raw, answering: traits) else { return "does not parse" }
            return String(decoding: copy(4096) { head.copy(from: raw, to: $0, edit: edit) }, as: UTF8.self)
        }
    }

    @Test("End-to-end fields keep their order, case, spacing and repetition")
    func endToEnd() {
        let text = "GET /a HTTP/1.1\r\nhOST: a\r\nX-B:1\r\nX-a:  2\t\r\nX-B: 3\r\nContent-Length: 0\r\n\r\n"
        #expect(copyRequest(text) == text)
        #expect(copyRequest("\r\n" + text) == text)
    }

    @Test("Hop-by-hop fields and all that Connection names are dropped, the coding of the body is not")
    func hopByHop() {
        let text = """
            POST / HTTP/1.1\r\nKeep-Alive: timeout=5\r\nHost: a\r\nConnection: close, x-secret,\r\nProxy-Connection: close\r
            TE: gzip\r\nX-Secret: 1\r\nUpgrade: a\r\nTransfer-Encoding: chunked\r\nX-SECRET: 2\r\nX-Secrets: 3\r\nUser-Agent: u\r\n\r\n
            """
        #expect(
            copyRequest(text)
                == "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-Secrets: 3\r\nUser-Agent: u\r\n\r\n")
    }

    @Test("A known field that Connection names is dropped too")
    func knownFieldNamed() {
        #expect(
            copyRequest("GET / HTTP/1.1\r\nHost: a\r\nConnection: User-Agent\r\nUser-Agent: u\r\nA: b\r\n\r\n")
                == "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n")
    }

    @Test("More hop-by-hop fields than the inline table holds are all dropped")
    func overflow() {
        let many = String(repeating: "Keep-Alive: 1\r\nX: y\r\n", count: 20)
        #expect(
            copyRequest("GET / HTTP/1.1\r\n" + many + "Host: a\r\n\r\n")
                == "GET / HTTP/1.1\r\n" + String(repeating: "X: y\r\n", count: 20) + "Host: a\r\n\r\n")
    }

    @Test(
        "Of TE only `trailers` passes, and Connection names it to the next hop",
        arguments: [
            ("TE: Trailers", "TE: Trailers\r\nConnection: TE\r\n"),
            ("TE: trailers, deflate;q=0.5", "TE: trailers\r\nConnection: TE\r\n"),
            ("TE: gzip\r\nTE: trailers", "TE: trailers\r\nConnection: TE\r\n"), ("TE: gzip", ""), ("TE:", ""),
        ])
    func te(received: String, passed: String) {
        #expect(
            copyRequest("GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\n\(received)\r\n\r\n")
                == "GET / HTTP/1.1\r\nHost: a\r\n\(passed)\r\n")
        #expect(
            copyRequest("GET / HTTP/1.0\r\nHost: a\r\nTE: trailers\r\n\r\n") == "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "trailers are not for HTTP/1.0")
    }

    @Test(
        "An absolute target names the Host",
        arguments: [
            ("GET http://a/x HTTP/1.1\r\nHost: b\r\nA: 1", "GET http://a/x HTTP/1.1\r\nA: 1\r\nHost: a"),
            ("GET http://a:81/ HTTP/1.1\r\nHost: a", "GET http://a:81/ HTTP/1.1\r\nHost: a:81"),
            ("GET http://A:80/ HTTP/1.1\r\nHost: a", "GET http://A:80/ HTTP/1.1\r\nHost: a"),
            ("GET https://[::1]:443/ HTTP/1.1\r\nHost: [::1]", "GET https://[::1]:443/ HTTP/1.1\r\nHost: [::1]"),
            ("GET http://a/ HTTP/1.0\r\nA: 1", "GET http://a/ HTTP/1.0\r\nA: 1\r\nHost: a"),
            ("CONNECT a:443 HTTP/1.0", "CONNECT a:443 HTTP/1.0\r\nHost: a:443"),
            ("GET / HTTP/1.0", "GET / HTTP/1.0"),
        ])
    func host(received: String, passed: String) {
        #expect(copyRequest(received + "\r\n\r\n") == passed + "\r\n\r\n")
    }

    @Test("What opens a tunnel is passed without a framing")
    func tunnel() {
        #expect(
            copyResponse(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n", traits: .connect)
                == "HTTP/1.1 200 OK\r\nA: b\r\n\r\n")
        #expect(
            copyResponse(
                "HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n", traits: .connect)
                == "HTTP/1.1 204 OK\r\n\r\n")
    }

    @Test("An upgrade passes when asked to, except to cleartext HTTP/2")
    func upgrade() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
        #expect(copyRequest(text) == "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(
            copyRequest(text, edit: HeadEdit(keepsUpgrade: true))
                == "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        let cleartext =
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
        #expect(copyRequest(cleartext, edit: HeadEdit(keepsUpgrade: true)) == "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        #expect(
            copyResponse(answer, traits: .upgrade, edit: HeadEdit(keepsUpgrade: true))
                == "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    }

    @Test("Fields can be replaced and the version rewritten")
    func edits() {
        #expect(
            copyRequest(
                "GET / HTTP/1.0\r\nTraceparent: old\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
                edit: HeadEdit(dropping: [.traceparent, .expect], version: .http11), appending: "traceparent: new\r\n")
                == "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: new\r\n\r\n")
        #expect(
            copyResponse(
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", edit: HeadEdit(version: .http11))
                == "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        #expect(
            copyRequest("GET / HTTP/1.1\r\nHost: a\r\n\r\n", edit: HeadEdit(dropping: .host))
                == "GET / HTTP/1.1\r\n\r\n")
    }

    @Test("A 204 passes without a Content-Length")
    func noContent() {
        #expect(
            copyResponse("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nA: b\r\n\r\n")
                == "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n")
    }

    @Test("Too little room is answered with what is needed, and nothing is written beyond the room")
    func room() {
        let raw = bytes("GET / HTTP/1.1\r\nConnection: close\r\nHost: a\r\nX: 1\r\n\r\n")
        raw.withUnsafeBytes { raw in
            guard case .complete(let head) = RequestHead.parse(raw) else {
                Issue.record("does not parse")
                return
            }
            let expected = "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n"
            for room in 0..<expected.utf8.count {
                var guarded = [UInt8](repeating: 0xee, count: room + 16)
                let needed = guarded.withUnsafeMutableBytes {
                    head.copy(from: raw, to: UnsafeMutableRawBufferPointer(rebasing: $0[..<room]))
                }
                #expect(needed == expected.utf8.count)
                #expect(guarded[room...].allSatisfy { $0 == 0xee })
            }
            #expect(copy(expected.utf8.count) { head.copy(from: raw, to: $0) } == bytes(expected))
        }
    }

    @Test("Every accepted request, copied, is the same message, and a second copy changes nothing")
    func copyOfCopy() {
        for message in Messages.goodRequests {
            expectStableCopy(of: bytes(message.text), as: .request)
        }
        for message in Messages.goodResponses {
            expectStableCopy(of: bytes(message.text), as: .response(message.traits))
        }
    }
}

/// Checks that the copy of an accepted head is accepted, means the same and copies to itself, and holds no line end or control
/// character that a lenient parser could read otherwise.
func expectStableCopy(of message: [UInt8], as kind: MessageKind) {
    guard case .complete(let first) = parse(message, as: kind) else { return }
    guard case .complete(let second) = parse(first.copy, as: kind) else {
        Issue.record("a copy that does not parse: \(String(decoding: message, as: UTF8.self).debugDescription)")
        return
    }
    let text = String(decoding: message, as: UTF8.self).debugDescription
    if second.framing != first.framing || second.copy != first.copy || second.length != first.copy.count {
        // A CL that a 1xx or 204 must not have is dropped, which changes nothing else.
        Issue.record("the copy differs: \(text)")
    }
    let lines = String(decoding: first.copy, as: UTF8.self).components("\r\n")
    for line in lines where line.unicodeScalars.contains(where: { ($0.value < 0x20 && $0 != "\t") || $0.value == 0x7f })
    {
        Issue.record("a control character in \(line.debugDescription) of \(text)")
    }
    let names = lines.dropFirst().map { $0.prefix { $0 != ":" }.lowercased() }
    if names.contains("content-length") && names.contains("transfer-encoding")
        || names.count(where: { $0 == "content-length" }) > 1
    {
        Issue.record("two framings in \(text)")
    }
    if names.contains(where: { $0.contains(" ") || $0.contains("\t") }) { Issue.record("a space in a name in \(text)") }
}

extension String {
    /// The parts between the occurrences of a separator, by scalars, so that CRLF is no single character.
    func components(_ separator: String) -> [String] {
        var parts: [String] = []
        var current: [UInt8] = []
        let pattern = Array(separator.utf8)
        let all = Array(utf8)
        var index = 0
        while index < all.count {
            if all[index...].starts(with: pattern) {
                parts.append(String(decoding: current, as: UTF8.self))
                current = []
                index += pattern.count
            } else {
                current.append(all[index])
                index += 1
            }
        }
        parts.append(String(decoding: current, as: UTF8.self))
        return parts
    }
}
