import Foundation
import MeshCore
import MeshProxy
import Synchronization
import Testing

/// Every case of the corpus, through one sidecar and through a pair: one request in is never two out, one answer is never another's, and what is
/// refused says why.
@Suite struct SmugglingTests {
    enum Way: CaseIterable, Sendable {
        case oneSidecar, pair
    }

    @Test func theCorpusIsThere() {
        #expect(SmugglingCase.requests.count >= 150)
        #expect(SmugglingCase.responses.count >= 40)
    }

    // MARK: - Requests

    /// What the application has seen whole.
    private final class Log: Sendable {
        private let seen = Mutex<[String]>([])
        func add(_ text: String) { seen.withLock { $0.append(text) } }
        func take() -> [String] {
            seen.withLock { seen in
                defer { seen = [] }
                return seen
            }
        }
    }

    @Test(arguments: Way.allCases, CarelessParser.Preference.allCases)
    func requestsMeanToTheApplicationWhatTheyMeant(_ way: Way, _ preference: CarelessParser.Preference) async throws {
        try await onOwnThread {
            let log = Log()
            let server = try TestServer { socket, _ in
                let parser = CarelessParser(preference: preference)
                while let seen = parser.next(socket) {
                    log.add(seen.text)
                    let status = seen.method == "CONNECT" ? "405 Method Not Allowed" : "200 OK"
                    try socket.write(
                        "HTTP/1.1 \(status)\r\nX-Seen: \(seen.method) \(seen.target)\r\nContent-Length: 0\r\n\r\n")
                }
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: way == .pair)])
            for one in SmugglingCase.requests {
                try check(one, mesh, log)
            }
            #expect(mesh.outboundReport.requestsInFlight == 0)
            #expect(mesh.inboundReport.requestsInFlight == 0)
        }
    }

    private func check(_ one: SmugglingCase, _ mesh: TestMesh, _ log: Log) throws {
        let halves = one.expected.components(separatedBy: " ! ")
        let expected = halves[0] == "-" ? [] : halves[0].components(separatedBy: " + ")
        let code = halves.count > 1 ? halves[1] : nil
        let client = try mesh.client()
        try client.write(one.bytes)
        client.finishWriting()
        var answers: [Head] = []
        while let head = try? client.readHead() {
            answers.append(head)
            _ = try client.readBody(head)
        }
        // Whatever was left of the case on the endpoint's connection would now come out.
        let sentinel = try mesh.get("/sentinel")
        #expect(sentinel.head["x-seen"] == "GET /sentinel", "\(one.name)")
        #expect(log.take() == expected + ["GET /sentinel"], "\(one.name)")

        let own = answers.filter { $0["apus-reason"] != nil }
        let passed = answers.filter { $0["apus-reason"] == nil }
        #expect(
            passed.map { $0["x-seen"] } == expected.map { $0.split(separator: " ").prefix(2).joined(separator: " ") },
            "\(one.name)")
        #expect(own.map { $0["apus-reason"] } == (code.map { ["invalid_request_\($0)"] } ?? []), "\(one.name)")
        if own.count == 1 { #expect(answers.last == own.first, "\(one.name): nothing is answered behind a refusal") }
    }

    // MARK: - Responses

    @Test(arguments: Way.allCases)
    func responsesMeanToTheClientWhatTheyMeant(_ way: Way) async throws {
        try await onOwnThread {
            let current = Mutex<SmugglingCase?>(nil)
            let server = try TestServer { socket, _ in
                while let head = try socket.readHead() {
                    if head.startLine.contains("/sentinel") {
                        try socket.write(TestServer.ok("sentinel"))
                    } else if let one = current.withLock({ $0 }) {
                        try socket.write(one.bytes)
                        if one.closes { return }
                    }
                }
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: way == .pair)]) { $0.retry.count = 0 }
            for one in SmugglingCase.responses {
                current.withLock { $0 = one }
                try check(one, mesh)
            }
            #expect(mesh.outboundReport.requestsInFlight == 0)
            #expect(mesh.inboundReport.requestsInFlight == 0)
        }
    }

    private func check(_ one: SmugglingCase, _ mesh: TestMesh) throws {
        let client = try mesh.client()
        try client.write("\(one.method) /case HTTP/1.1\r\nHost: a\r\n\r\n")
        var response = try client.readHead()
        while let head = response, head.status < 200 { response = try client.readHead() }
        guard let head = response else {
            Issue.record("\(one.name): no answer")
            return
        }
        var got = "\(head.status)"
        if one.method != "HEAD", head.status != 204, head.status != 304 {
            if let body = try? client.readBody(head) {
                let text = String(decoding: body, as: UTF8.self)
                if head["apus-reason"] == "invalid_response" {
                    got += " ! " + (text.split(separator: " ").last ?? "").trimmingCharacters(in: .newlines)
                } else {
                    got += " " + shownBody(body)
                }
            } else {
                got += " broken"
            }
        }
        #expect(got == one.expected, "\(one.name)")
        // On the same connection if it goes on, and for others.
        if head["connection"] != "close", !got.hasSuffix("broken") {
            try client.write("GET /sentinel HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try client.readResponse().text == "sentinel", "\(one.name)")
        }
        #expect(try mesh.get("/sentinel").text == "sentinel", "\(one.name)")
    }
}
