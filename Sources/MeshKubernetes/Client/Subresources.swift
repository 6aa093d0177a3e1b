import AsyncHTTPClient
import Foundation
import NIOCore

/// What the API serves below an object, beside its status.
extension KubernetesClient {
    /// Any call, any answer: for what has no name of its own here. Fails only when no answer comes.
    package func raw(_ request: APIRequest) async throws -> APIResponse {
        try await transport.call(request, purpose: "\(request.method) \(request.path)")
    }

    /// Creates below an object, such as `token` of a service account, and returns the answer.
    package func create(
        _ kind: ResourceKind, namespace: String?, name: String, subresource: String, _ body: JSONValue
    ) async throws -> JSONValue {
        let purpose = KubernetesClient.purpose("create \(subresource) of", kind, namespace, name)
        return try await json(APIRequest("POST", path(kind, namespace, name, subresource), body: body.bytes()), purpose)
    }

    /// GET of a port of a pod or service through the API server: `path` begins with `/`.
    package func proxyGet(
        _ kind: ResourceKind, namespace: String, name: String, port: UInt16, path: String,
        query: [(name: String, value: String)] = []
    ) async throws -> APIResponse {
        let request = APIRequest(
            "GET", self.path(kind, namespace, "\(name):\(port)", "proxy") + path, query: query, accept: "*/*")
        let purpose = KubernetesClient.purpose("get \(path) from port \(port) of", kind, namespace, name)
        return try await transport.call(request, purpose: purpose)
    }

    package struct LogOptions: Sendable {
        package var container: String?
        package var isFollowing = false
        /// Of the container that ran before.
        package var isPrevious = false
        package var hasTimestamps = false
        package var tailLines: Int?
        package var sinceSeconds: Int?

        package init() {}
    }

    /// A pod's log as it comes, in parts that need not end with a line.
    package func log(namespace: String, pod: String, _ options: LogOptions) -> AsyncThrowingStream<[UInt8], any Error> {
        var query: [(name: String, value: String)] = []
        if let container = options.container { query.append(("container", container)) }
        if options.isFollowing { query.append(("follow", "true")) }
        if options.isPrevious { query.append(("previous", "true")) }
        if options.hasTimestamps { query.append(("timestamps", "true")) }
        if let lines = options.tailLines { query.append(("tailLines", "\(lines)")) }
        if let seconds = options.sinceSeconds { query.append(("sinceSeconds", "\(seconds)")) }
        let request = APIRequest("GET", path(.pod, namespace, pod, "log"), query: query, accept: "*/*")
        let reader = PartReader(transport, request, purpose: KubernetesClient.purpose("log of", .pod, namespace, pod))
        return AsyncThrowingStream { try await reader.next() }
    }
}

/// A streamed answer's bytes as they come. One task reads it.
private final class PartReader: @unchecked Sendable {
    // Unchecked: `AsyncThrowingStream(unfolding:)` calls `next` only from the task that iterates it, one call after
    // another.
    private let transport: KubernetesTransport
    private let request: APIRequest
    private let purpose: String
    private var parts: HTTPClientResponse.Body.AsyncIterator?
    private var isFinished = false

    init(_ transport: KubernetesTransport, _ request: APIRequest, purpose: String) {
        self.transport = transport
        self.request = request
        self.purpose = purpose
    }

    func next() async throws -> [UInt8]? {
        guard !isFinished else { return nil }
        do {
            if parts == nil {
                parts = try await transport.stream(request, purpose: purpose, mayBeQuiet: true).makeAsyncIterator()
            }
            if let part = try await parts?.next() { return Array(part.readableBytesView) }
        } catch {
            isFinished = true
            throw StatusError.from(error, purpose: purpose)
        }
        isFinished = true
        parts = nil
        return nil
    }
}
