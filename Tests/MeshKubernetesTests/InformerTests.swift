import Logging
import MeshKubernetes
import Synchronization
import Testing

/// An informer over HTTP against a server that drops, forgets and lies; what arrives is compared, never how long it
/// took.
@Suite(.timeLimit(.minutes(1))) struct InformerTests {
    /// What the informer delivered, in words, and a way to wait for some of it.
    final class Record: Sendable {
        private struct State: Sendable {
            var words: [String] = []
            var waiting: (count: Int, continuation: CheckedContinuation<Void, Never>)?
        }

        private let state = Mutex(State())

        var words: [String] { state.withLock { $0.words } }

        func add(_ batch: InformerBatch<String>) {
            let words = batch.changes.map { change in
                switch change {
                case .changed(let old, let new): old.map { "\($0)>\(new)" } ?? "+\(new)"
                case .removed(let old): "-\(old)"
                }
            }
            let ready = state.withLock { state -> CheckedContinuation<Void, Never>? in
                state.words += batch.isWholeList ? ["list"] + words.sorted() : words
                guard let waiting = state.waiting, state.words.count >= waiting.count else { return nil }
                state.waiting = nil
                return waiting.continuation
            }
            ready?.resume()
        }

        func wait(for count: Int) async {
            await withCheckedContinuation { continuation in
                let isReady = state.withLock { state in
                    if state.words.count >= count { return true }
                    state.waiting = (count, continuation)
                    return false
                }
                if isReady { continuation.resume() }
            }
        }
    }

    static func object(_ name: String, _ version: Int, _ value: String, uid: String? = nil) -> JSONValue {
        Documents.object(name, version: version, uid: uid, value: value)
    }

    /// The first words that an informer delivers from a server, and how it was doing then.
    static func words(_ count: Int, _ server: FakeServer) async throws -> (words: [String], status: InformerStatus) {
        try await KubernetesClientTests.with(server) { client in
            let informer = Informer<String>(
                api: client, kind: .configMap, namespace: "shop",
                backoff: Backoff(firstMilliseconds: 1, longestMilliseconds: 5),
                logger: KubernetesClientTests.quiet
            ) {
                $0.json[path: "data", "value"]?.string == "hidden"
                    ? nil : "\($0.name)=\($0.json[path: "data", "value"]?.string ?? "")"
            }
            let record = Record()
            return try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await informer.run { record.add($0) } }
                await record.wait(for: count)
                let status = informer.status
                group.cancelAll()
                await #expect(throws: CancellationError.self) { try await group.next() }
                return (Array(record.words.prefix(count)), status)
            }
        }
    }

    static func list(_ version: Int, _ items: JSONValue...) -> FakeServer.Answer {
        .json(200, Documents.list(items, version: version))
    }
    static func line(_ type: String, _ object: JSONValue) -> String { Documents.line(type, object) }

    @Test func itListsThenFollowsAndResumesWhereItWas() async throws {
        let server = FakeServer { asked, _ in
            switch asked.query["resourceVersion"] {
            case nil: Self.list(5, Self.object("a", 3, "1"), Self.object("b", 4, "1"))
            case "5": .parts([Self.line("MODIFIED", Self.object("a", 6, "2"))], then: .end)
            case "6": .parts([Self.line("BOOKMARK", Documents.object("", version: 9))], then: .drop)
            case "9":
                .parts(
                    [Self.line("DELETED", Self.object("b", 10, "1")), Self.line("ADDED", Self.object("c", 11, "1"))],
                    then: .silence)
            default: .text(500, "an unexpected version")
            }
        }
        let (words, status) = try await Self.words(6, server)
        #expect(words == ["list", "+a=1", "+b=1", "a=1>a=2", "-b=1", "+c=1"])
        #expect(server.asked.map { $0.query["resourceVersion"] ?? "list" } == ["list", "5", "6", "9"])
        #expect(status.lists == 1)
        #expect(status.isSynchronized)
    }

    @Test(arguments: [
        FakeServer.Answer.parts([Documents.line("ERROR", Documents.status(410, "Expired", "too old"))], then: .end),
        .json(410, Documents.status(410, "Expired", "too old")),
    ])
    func afterAnExpiredVersionItListsAgainAndTellsWhatWasRemoved(expired: FakeServer.Answer) async throws {
        let server = FakeServer { asked, number in
            switch (asked.query["resourceVersion"], number) {
            case (nil, 0):
                Self.list(5, Self.object("a", 3, "1"), Self.object("b", 4, "1"), Self.object("c", 5, "1", uid: "first"))
            case ("5", _): expired
            case (nil, _): Self.list(20, Self.object("a", 15, "2"), Self.object("c", 16, "1", uid: "second"))
            default: .parts([], then: .silence)
            }
        }
        let (words, status) = try await Self.words(9, server)
        #expect(words == ["list", "+a=1", "+b=1", "+c=1", "list", "+c=1", "-b=1", "-c=1", "a=1>a=2"])
        #expect(status.lists <= 2)
    }

    @Test func itGoesOnWhateverTheServerAnswers() async throws {
        let answers: [FakeServer.Answer] = [
            .text(500, "down"), .text(200, "<html>"), .parts(["{\"items\":["], then: .drop),
            .json(403, Documents.status(403, "Forbidden", "no")),
            Self.list(5, Self.object("a", 3, "1")),
            .text(503, "away"), .parts(["{\"type\":"], then: .end), .parts(["garbage\n"], then: .end),
            .parts([Self.line("ADDED", Self.object("b", 6, "1")), "{\"ty"], then: .drop),
            .parts([Self.line("ADDED", Self.object("d", 7, "1"))], then: .silence),
        ]
        let server = FakeServer { _, number in number < answers.count ? answers[number] : .parts([], then: .silence) }
        let (words, status) = try await Self.words(4, server)
        #expect(words == ["list", "+a=1", "+b=1", "+d=1"])
        #expect(
            server.asked.map { $0.query["resourceVersion"] ?? "list" }.prefix(10) == [
                "list", "list", "list", "list", "list", "5", "5", "5", "5", "6",
            ])
        #expect(status.failures == 8)
    }

    @Test func pagesAreOneListAlsoWhenTheFirstTryExpires() async throws {
        let server = FakeServer { asked, number in
            switch (asked.query["continue"], number) {
            case (nil, 0): .json(200, Documents.list([Self.object("gone", 1, "1")], version: 5, next: "x"))
            case ("x", _): .json(410, Documents.status(410, "Expired", "too old"))
            case (nil, 2): .json(200, Documents.list([Self.object("a", 3, "1")], version: 7, next: "y"))
            case ("y", _): Self.list(7, Self.object("b", 4, "1"))
            default: .parts([], then: .silence)
            }
        }
        let (words, status) = try await Self.words(3, server)
        #expect(words == ["list", "+a=1", "+b=1"])
        #expect(status.failures == 1)
    }

    @Test func whatTheTransformLeavesOutIsToldAsRemoved() async throws {
        let server = FakeServer { asked, _ in
            guard asked.query["watch"] != nil else {
                return Self.list(5, Self.object("a", 3, "1"), Self.object("b", 4, "hidden"))
            }
            return .parts(
                [
                    Self.line("MODIFIED", Self.object("b", 6, "hidden")),
                    Self.line("MODIFIED", Self.object("a", 7, "hidden")),
                    Self.line("DELETED", Self.object("a", 8, "hidden")),
                    Self.line("MODIFIED", Self.object("b", 9, "2")),
                ], then: .silence)
        }
        let (words, _) = try await Self.words(4, server)
        #expect(words == ["list", "+a=1", "-a=1", "+b=2"])
    }

    @Test(arguments: [
        (0.0, [100, 200, 400, 500, 500]), (1.0, [200, 400, 800, 1000, 1000]), (0.5, [150, 300, 600, 750, 750]),
    ])
    func waitsDoubleWithinTheirBounds(random: Double, expected: [Int]) {
        var backoff = Backoff(firstMilliseconds: 200, longestMilliseconds: 1000)
        #expect((0..<5).map { _ in backoff.nextMilliseconds(random: random) } == expected)
        for _ in 0..<100 { #expect((1...1000).contains(backoff.nextMilliseconds(random: random))) }
        backoff.reset()
        #expect(backoff.nextMilliseconds(random: random) == expected[0])
    }
}
