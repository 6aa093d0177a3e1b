import Foundation
import Logging
import MeshKubernetes
import Testing

@Suite(.timeLimit(.minutes(1))) struct KubernetesClientTests {
    static let quiet = Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() }

    /// A client of a server with a script; everything is closed at the end.
    static func with<Result: Sendable>(
        _ server: FakeServer, token: ClusterAccess.Token = .fixed("secret"), limits: ClientLimits = ClientLimits(),
        _ body: @escaping @Sendable (KubernetesClient) async throws -> Result
    ) async throws -> Result {
        try await server.serving { url in
            let client = try KubernetesClient(ClusterAccess(server: url, token: token), limits: limits, logger: quiet)
            let result: Swift.Result<Result, any Error>
            do {
                result = .success(try await body(client))
            } catch {
                result = .failure(error)
            }
            await client.shutdown()
            return try result.get()
        }
    }

    @Test func verbsAskAsTheAPISays() async throws {
        let server = FakeServer { _, _ in .json(200, Documents.object("a", version: 5)) }
        try await Self.with(server) { client in
            let object = KubernetesObject(Documents.object("a b", version: 5))
            _ = try await client.get(.configMap, namespace: "shop", name: "a b")
            _ = try await client.create(.configMap, object)
            _ = try await client.update(.configMap, object, subresource: "status")
            _ = try await client.patch(
                .configMap, namespace: "shop", name: "a", subresource: nil, .merge(["data": nil]))
            _ = try await client.patch(.node, namespace: nil, name: "n", subresource: nil, .json([]))
            _ = try await client.delete(.configMap, namespace: "shop", name: "a", gracePeriodSeconds: 0, uid: "u")
            _ = try await client.create(
                .serviceAccount, namespace: "shop", name: "web", subresource: "token", ["spec": [:]])
        }
        let asked = server.asked
        #expect(
            asked.map { "\($0.method) \($0.path)" } == [
                "GET /api/v1/namespaces/shop/configmaps/a%20b", "POST /api/v1/namespaces/shop/configmaps",
                "PUT /api/v1/namespaces/shop/configmaps/a%20b/status", "PATCH /api/v1/namespaces/shop/configmaps/a",
                "PATCH /api/v1/nodes/n", "DELETE /api/v1/namespaces/shop/configmaps/a",
                "POST /api/v1/namespaces/shop/serviceaccounts/web/token",
            ])
        #expect(asked.allSatisfy { $0.headers["authorization"] == "Bearer secret" })
        #expect(asked[3].headers["content-type"] == "application/merge-patch+json")
        #expect(asked[3].json == ["data": nil])
        #expect(asked[4].headers["content-type"] == "application/json-patch+json")
        #expect(asked[5].json?[path: "preconditions", "uid"] == "u")
        #expect(asked[5].json?["gracePeriodSeconds"] == 0)
    }

    @Test func aListIsReadPageByPage() async throws {
        let server = FakeServer { asked, _ in
            let start = Int(asked.query["continue"] ?? "0") ?? 0
            let items = (start..<min(start + 2, 5)).map { number -> JSONValue in
                var item = Documents.object("c\(number)", version: number)
                item["kind"] = nil
                return item
            }
            return .json(200, Documents.list(items, version: 70, next: start + 2 < 5 ? "\(start + 2)" : ""))
        }
        var limits = ClientLimits()
        limits.pageItems = 2
        let list = try await Self.with(server, limits: limits) { client in
            try await client.list(
                .configMap, namespace: "shop", labelSelector: "a in (b,c)", fieldSelector: "metadata.name!=x")
        }
        #expect(list.items.map(\.name) == ["c0", "c1", "c2", "c3", "c4"])
        #expect(list.items.allSatisfy { $0.kind == "ConfigMap" })
        #expect(list.resourceVersion == "70")
        #expect(server.asked.map { $0.query["limit"] } == ["2", "2", "2"])
        #expect(server.asked[1].query["labelSelector"] == "a in (b,c)")
        #expect(server.asked[1].query["fieldSelector"] == "metadata.name!=x")
    }

    @Test func aListWhoseContinuationExpiredBeginsAgain() async throws {
        let server = FakeServer { asked, number in
            if asked.query["continue"] != nil { return .json(410, Documents.status(410, "Expired", "too old")) }
            let next = number == 0 ? "x" : ""
            return .json(200, Documents.list([Documents.object("c\(number)", version: 1)], version: 1, next: next))
        }
        let list = try await Self.with(server) { client in
            try await client.list(.configMap, namespace: nil, labelSelector: nil, fieldSelector: nil)
        }
        #expect(list.items.map(\.name) == ["c2"])
    }

    @Test(
        arguments: [
            (
                FakeServer.Answer.json(404, Documents.status(404, "NotFound", "pods \"a\" not found")), 404, "NotFound",
                "get pods \"shop/a\": pods \"a\" not found"
            ),
            (.text(502, "bad\ngateway"), 502, "Unknown", "get pods \"shop/a\": status 502 bad gateway"),
            (.text(403, ""), 403, "Forbidden", "get pods \"shop/a\": status 403 "),
            (.text(200, "<html>"), 502, "BadAnswer", "get pods \"shop/a\": the answer is not JSON at byte 0"),
            (.parts(["{\"kind\":"], then: .drop), 503, "Unreachable", "get pods \"shop/a\": "),
            (.parts(["{\"kind\":"], then: .silence), 504, "Timeout", "get pods \"shop/a\": no "),
        ] as [(FakeServer.Answer, Int, String, String)])
    func everyFailureNamesWhatWasAsked(answer: FakeServer.Answer, code: Int, reason: String, message: String)
        async throws
    {
        var limits = ClientLimits()
        limits.callTimeoutMilliseconds = 300
        let failure = try await Self.with(FakeServer { _, _ in answer }, limits: limits) { client in
            await #expect(throws: StatusError.self) { try await client.get(.pod, namespace: "shop", name: "a") }
        }
        #expect(failure?.code == code)
        #expect(failure?.reason == reason)
        #expect(failure?.message.hasPrefix(message) == true, "\(String(describing: failure))")
    }

    @Test func nobodyListeningIsUnreachable() async throws {
        let client = try KubernetesClient(ClusterAccess(server: "http://127.0.0.1:1"), logger: Self.quiet)
        let failure = await #expect(throws: StatusError.self) { try await client.get(.node, namespace: nil, name: "n") }
        #expect(failure?.reason == "Unreachable")
        await client.shutdown()
    }

    @Test func anAnswerBeyondTheLimitIsNotRead() async throws {
        var limits = ClientLimits()
        limits.responseBytes = 1000
        let server = FakeServer { _, _ in .text(200, "\"" + String(repeating: "x", count: 5000) + "\"") }
        let failure = try await Self.with(server, limits: limits) { client in
            await #expect(throws: StatusError.self) { try await client.get(.pod, namespace: "shop", name: "a") }
        }
        #expect(failure?.reason == "Unreachable")
    }

    @Test func aTokenThatWasExchangedIsReadAgain() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("apus-token-\(UUID().uuidString)").path
        try Data("old\n".utf8).write(to: URL(fileURLWithPath: file))
        defer { try? FileManager.default.removeItem(atPath: file) }
        let server = FakeServer { asked, _ in
            if asked.headers["authorization"] == "Bearer new" { return .json(200, Documents.object("a", version: 1)) }
            try? Data("new\n".utf8).write(to: URL(fileURLWithPath: file))
            return .json(401, Documents.status(401, "Unauthorized", "expired"))
        }
        try await Self.with(server, token: .file(file)) { client in
            _ = try await client.get(.pod, namespace: "shop", name: "a")
        }
        #expect(server.asked.map { $0.headers["authorization"] } == ["Bearer old", "Bearer new"])
    }

    // MARK: - Watches

    static func events(_ server: FakeServer, limits: ClientLimits = ClientLimits()) async throws
        -> (events: [WatchEvent], failure: (any Error)?)
    {
        try await with(server, limits: limits) { client in
            var events: [WatchEvent] = []
            do {
                for try await event in client.watch(
                    .configMap, namespace: "shop", labelSelector: nil, fieldSelector: nil, resourceVersion: "7")
                { events.append(event) }
            } catch {
                return (events, error)
            }
            return (events, nil)
        }
    }

    @Test func aWatchGivesLinesHoweverTheyAreCut() async throws {
        let text =
            Documents.line("ADDED", Documents.object("a", version: 8)) + "\n"
            + Documents.line("BOOKMARK", Documents.object("", version: 9))
            + Documents.line("DELETED", Documents.object("a", version: 10))
        let parts = stride(from: 0, to: text.count, by: 7).map { String(text.dropFirst($0).prefix(7)) }
        let server = FakeServer { _, _ in .parts(parts, then: .end) }
        let (events, failure) = try await Self.events(server)
        #expect(events.map(\.change) == [.added, .bookmark, .deleted])
        #expect(events.map(\.object.resourceVersion) == ["8", "9", "10"])
        #expect(failure == nil)
        let asked = try #require(server.asked.first)
        #expect(asked.query["watch"] == "true")
        #expect(asked.query["resourceVersion"] == "7")
        #expect(asked.query["allowWatchBookmarks"] == "true")
        #expect(asked.query["timeoutSeconds"] == "300")
    }

    @Test(
        arguments: [
            (
                FakeServer.Answer.parts(
                    [Documents.line("ADDED", Documents.object("a", version: 8)), "{\"type\":\"ADD"], then: .end), 1,
                503,
                "the stream ended within a line"
            ),
            (
                .parts([Documents.line("ADDED", Documents.object("a", version: 8)), "{\"type\":\"ADD"], then: .drop), 1,
                503, "watch configmaps"
            ),
            (
                .parts(
                    [Documents.line("ERROR", Documents.status(410, "Expired", "too old resource version"))], then: .end),
                0, 410,
                "too old resource version"
            ),
            (.parts(["{\"type\":\"FROBBED\",\"object\":{}}\n"], then: .end), 0, 502, "unknown type 'FROBBED'"),
            (.parts(["nonsense\n"], then: .end), 0, 502, "a line is not JSON"),
            (.parts([String(repeating: "x", count: 5000)], then: .silence), 0, 502, "a line longer than 1000 bytes"),
            (.parts([], then: .silence), 0, 504, "no answer in time"),
            (.json(410, Documents.status(410, "Expired", "gone")), 0, 410, "gone"),
        ] as [(FakeServer.Answer, Int, Int, String)])
    func aBrokenWatchFailsAfterWhatItSaid(answer: FakeServer.Answer, count: Int, code: Int, message: String)
        async throws
    {
        var limits = ClientLimits()
        limits.lineBytes = 1000
        limits.watchIdleTimeoutMilliseconds = 300
        let (events, failure) = try await Self.events(FakeServer { _, _ in answer }, limits: limits)
        #expect(events.count == count)
        let status = failure as? StatusError
        #expect(status?.code == code)
        #expect(status?.message.contains(message) == true, "\(String(describing: failure))")
    }

    @Test func aLogIsStreamed() async throws {
        let server = FakeServer { _, _ in .parts(["one\ntw", "o\n"], then: .end) }
        let text = try await Self.with(server) { client in
            var options = KubernetesClient.LogOptions()
            options.container = "web"
            options.isFollowing = true
            options.tailLines = 10
            var bytes: [UInt8] = []
            for try await part in client.log(namespace: "shop", pod: "web-1", options) { bytes += part }
            return String(decoding: bytes, as: UTF8.self)
        }
        #expect(text == "one\ntwo\n")
        #expect(server.asked[0].path == "/api/v1/namespaces/shop/pods/web-1/log")
        #expect(server.asked[0].query == ["container": "web", "follow": "true", "tailLines": "10"])
    }

    @Test func aPortIsReachedThroughTheProxy() async throws {
        let server = FakeServer { _, _ in .text(503, "not yet") }
        let response = try await Self.with(server) { client in
            try await client.proxyGet(
                .service, namespace: "apus-system", name: "apus-control", port: 15014, path: "/api/v1/status",
                query: [("a", "b c")])
        }
        #expect(response.status == 503)
        #expect(String(decoding: response.body, as: UTF8.self) == "not yet")
        #expect(
            server.asked[0].path == "/api/v1/namespaces/apus-system/services/apus-control%3A15014/proxy/api/v1/status")
        #expect(server.asked[0].query == ["a": "b c"])
    }
}
