import Hummingbird
import Logging
import MeshKubernetes
import NIOCore
import Synchronization

/// An API server on loopback that does what a test says, also what a server should not do.
final class FakeServer: Sendable {
    struct Asked: Sendable {
        var method: String
        var path: String
        var query: [String: String]
        var headers: [String: String]
        var body: [UInt8]

        var json: JSONValue? { try? JSONValue(parsing: body) }
    }

    enum Answer: Sendable {
        case json(Int, JSONValue)
        case text(Int, String)
        /// Parts as they are, then an end, a broken connection, or silence until the client goes away.
        case parts([String], then: Ending)
    }

    enum Ending: Sendable {
        case end
        case drop
        case silence
    }

    private struct Dropped: Error {}

    private struct State: Sendable {
        var asked: [Asked] = []
        var port: Int?
        var waiting: [CheckedContinuation<Int, Never>] = []
    }

    private let state = Mutex(State())
    private let script: @Sendable (Asked, Int) -> Answer

    /// - Parameter script: the answer to a request, and how many came before it.
    init(_ script: @escaping @Sendable (Asked, Int) -> Answer) { self.script = script }

    var asked: [Asked] { state.withLock { $0.asked } }

    /// Runs `body` with the server's URL, then ends the server.
    func serving<Result: Sendable>(_ body: @escaping @Sendable (String) async throws -> Result) async throws -> Result {
        let router = Router()
        for method in [HTTPRequest.Method.get, .post, .put, .patch, .delete] {
            router.on("**", method: method) { [self] request, _ in try await answer(request) }
        }
        var logger = Logger(label: "fake")
        logger.logLevel = .critical
        let application = Application(
            router: router, configuration: .init(address: .hostname("127.0.0.1", port: 0)),
            onServerRunning: { [self] channel in
                let port = channel.localAddress?.port ?? 0
                let waiting = state.withLock { state in
                    state.port = port
                    defer { state.waiting = [] }
                    return state.waiting
                }
                for continuation in waiting { continuation.resume(returning: port) }
            }, logger: logger)
        return try await withThrowingTaskGroup(of: Result?.self) { group in
            group.addTask { [logger] in
                try await serveUntilCancelled(application, logger: logger)
                return nil
            }
            group.addTask { [self] in try await body("http://127.0.0.1:\(await port())") }
            defer { group.cancelAll() }
            while let finished = try await group.next() {
                if let finished { return finished }
            }
            throw CancellationError()
        }
    }

    private func port() async -> Int {
        await withCheckedContinuation { continuation in
            let known = state.withLock { state -> Int? in
                if state.port == nil { state.waiting.append(continuation) }
                return state.port
            }
            if let known { continuation.resume(returning: known) }
        }
    }

    private func answer(_ request: Request) async throws -> Response {
        let body = Array(try await request.body.collect(upTo: 1 << 24).readableBytesView)
        var headers: [String: String] = [:]
        for field in request.headers { headers[field.name.canonicalName] = field.value }
        var query: [String: String] = [:]
        for (name, value) in request.uri.queryParameters { query[String(name)] = String(value) }
        let asked = Asked(
            method: request.method.rawValue, path: request.uri.path, query: query, headers: headers, body: body)
        let number = state.withLock { state in
            state.asked.append(asked)
            return state.asked.count - 1
        }
        switch script(asked, number) {
        case .json(let status, let json):
            return Response(
                status: .init(code: status), headers: [.contentType: "application/json"],
                body: .init(byteBuffer: ByteBuffer(bytes: json.bytes())))
        case .text(let status, let text):
            return Response(
                status: .init(code: status), headers: [.contentType: "text/plain"],
                body: .init(byteBuffer: ByteBuffer(string: text)))
        case .parts(let parts, let ending):
            return Response(
                status: .ok, headers: [.contentType: "application/json"],
                body: .init { writer in
                    for part in parts { try await writer.write(ByteBuffer(string: part)) }
                    switch ending {
                    case .end: try await writer.finish(nil)
                    case .drop: throw Dropped()
                    case .silence: try await Task.sleep(for: .seconds(60))
                    }
                })
        }
    }
}

enum Documents {
    static func object(_ name: String, version: Int, uid: String? = nil, value: String = "") -> JSONValue {
        [
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": [
                "name": .string(name), "namespace": "shop", "uid": .string(uid ?? "uid-\(name)"),
                "resourceVersion": .string("\(version)"),
            ],
            "data": ["value": .string(value)],
        ]
    }

    static func list(_ items: [JSONValue], version: Int, next: String = "") -> JSONValue {
        [
            "kind": "ConfigMapList", "apiVersion": "v1", "items": .array(items),
            "metadata": ["resourceVersion": .string("\(version)"), "continue": .string(next)],
        ]
    }

    static func line(_ type: String, _ object: JSONValue) -> String {
        String(decoding: JSONValue.object(["type": .string(type), "object": object]).bytes(), as: UTF8.self) + "\n"
    }

    static func status(_ code: Int, _ reason: String, _ message: String) -> JSONValue {
        StatusError(code: code, reason: reason, message: message).json
    }
}
