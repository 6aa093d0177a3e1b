import AsyncHTTPClient
import Foundation
package import Logging
import NIOCore

/// The Kubernetes API over HTTPS: a cluster's or that of `apus up`. Every failure is a `StatusError` that names the
/// verb, the object and the reason (`Unreachable` with code 503 when the server cannot be reached), or a
/// `CancellationError`.
package final class KubernetesClient: KubernetesPagedAPI {
    let transport: KubernetesTransport
    /// The namespace that commands use when none is given.
    package let defaultNamespace: String

    package init(
        _ access: ClusterAccess, limits: ClientLimits = ClientLimits(), logger: Logger = Logger(label: "kubernetes")
    ) throws(ClusterAccessError) {
        transport = try KubernetesTransport(access, limits: limits, logger: logger)
        defaultNamespace = access.namespace
    }

    /// Closes its connections; calls in flight fail.
    package func shutdown() async { await transport.shutdown() }
}

// MARK: - Verbs

extension KubernetesClient {
    package func get(_ kind: ResourceKind, namespace: String?, name: String) async throws -> KubernetesObject {
        let purpose = KubernetesClient.purpose("get", kind, namespace, name)
        return try await object(APIRequest("GET", path(kind, namespace, name)), purpose)
    }

    package func list(_ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?)
        async throws
        -> (items: [KubernetesObject], resourceVersion: String)
    {
        do {
            return try await pages(kind, namespace, labelSelector, fieldSelector)
        } catch let error as StatusError where error.code == 410 {
            // The list changed under a slow reader: what it began with is gone, so it begins again.
            return try await pages(kind, namespace, labelSelector, fieldSelector)
        }
    }

    private func pages(
        _ kind: ResourceKind, _ namespace: String?, _ labelSelector: String?, _ fieldSelector: String?
    ) async throws -> (items: [KubernetesObject], resourceVersion: String) {
        var items: [KubernetesObject] = []
        var next: String?
        while true {
            let page = try await page(
                kind, namespace: namespace, labelSelector: labelSelector, fieldSelector: fieldSelector, after: next)
            items += page.items
            guard items.count <= transport.limits.listItems else {
                throw StatusError(
                    code: 413, reason: "RequestEntityTooLarge",
                    message: "list \(kind.plural): more than \(transport.limits.listItems) objects")
            }
            guard let following = page.next else { return (items, page.resourceVersion) }
            next = following
        }
    }

    package func page(
        _ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?, after next: String?
    ) async throws -> ListPage {
        var query = KubernetesClient.selectors(labelSelector, fieldSelector)
        query.append(("limit", "\(transport.limits.pageItems)"))
        if let next { query.append(("continue", next)) }
        let purpose = KubernetesClient.purpose("list", kind, namespace, nil)
        let page = try await json(APIRequest("GET", path(kind, namespace, nil), query: query), purpose)
        let items = (page["items"]?.array ?? []).map { item in
            var item = item
            // Items of a list come without what the list already says.
            if item["kind"] == nil { item["kind"] = .string(kind.kind) }
            if item["apiVersion"] == nil { item["apiVersion"] = .string(kind.apiVersion) }
            return KubernetesObject(item)
        }
        let following = page[path: "metadata", "continue"]?.string ?? ""
        return ListPage(
            items: items, resourceVersion: page[path: "metadata", "resourceVersion"]?.string ?? "",
            next: following.isEmpty ? nil : following)
    }

    package func watch(
        _ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?,
        resourceVersion: String
    ) -> AsyncThrowingStream<WatchEvent, any Error> {
        var query = KubernetesClient.selectors(labelSelector, fieldSelector)
        query += [
            ("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", resourceVersion),
            ("timeoutSeconds", "\(transport.limits.watchSeconds)"),
        ]
        let request = APIRequest("GET", path(kind, namespace, nil), query: query)
        let reader = LineReader(transport, request, purpose: KubernetesClient.purpose("watch", kind, namespace, nil))
        return AsyncThrowingStream { try await reader.next().map { try KubernetesClient.event($0, reader.purpose) } }
    }

    package func create(_ kind: ResourceKind, _ object: KubernetesObject) async throws -> KubernetesObject {
        let name = object.name.isEmpty ? object.json[path: "metadata", "generateName"]?.string ?? "" : object.name
        let purpose = KubernetesClient.purpose("create", kind, object.namespace, name)
        return try await self.object(
            APIRequest("POST", path(kind, object.namespace, nil), body: object.json.bytes()), purpose)
    }

    package func update(_ kind: ResourceKind, _ object: KubernetesObject, subresource: String?) async throws
        -> KubernetesObject
    {
        let purpose = KubernetesClient.purpose("update", kind, object.namespace, object.name)
        let path = path(kind, object.namespace, object.name, subresource)
        return try await self.object(APIRequest("PUT", path, body: object.json.bytes()), purpose)
    }

    package func patch(
        _ kind: ResourceKind, namespace: String?, name: String, subresource: String?, _ patch: KubernetesPatch
    ) async throws -> KubernetesObject {
        let body =
            switch patch {
            case .merge(let json), .json(let json): json.bytes()
            }
        let request = APIRequest(
            "PATCH", path(kind, namespace, name, subresource), body: body, contentType: patch.contentType)
        return try await object(request, KubernetesClient.purpose("patch", kind, namespace, name))
    }

    @discardableResult
    package func delete(_ kind: ResourceKind, namespace: String?, name: String, gracePeriodSeconds: Int?, uid: String?)
        async throws
        -> KubernetesObject
    {
        var options: JSONValue = ["kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"]
        if let gracePeriodSeconds { options["gracePeriodSeconds"] = .int(Int64(gracePeriodSeconds)) }
        if let uid { options["preconditions"] = ["uid": .string(uid)] }
        let request = APIRequest("DELETE", path(kind, namespace, name), body: options.bytes())
        return try await object(request, KubernetesClient.purpose("delete", kind, namespace, name))
    }
}

// MARK: - Steps

extension KubernetesClient {
    /// `get pods "shop/web-1"`: how a failure names what was asked.
    static func purpose(_ verb: String, _ kind: ResourceKind, _ namespace: String?, _ name: String?) -> String {
        let place = [namespace, name].compactMap(\.self).filter { !$0.isEmpty }.joined(separator: "/")
        return place.isEmpty ? "\(verb) \(kind.plural)" : "\(verb) \(kind.plural) \"\(place)\""
    }

    func path(_ kind: ResourceKind, _ namespace: String?, _ name: String?, _ subresource: String? = nil) -> String {
        var path = kind.path(namespace: namespace.map(APIRequest.segment))
        if let name { path += "/\(APIRequest.segment(name))" }
        if let subresource { path += "/\(subresource)" }
        return path
    }

    private static func selectors(_ label: String?, _ field: String?) -> [(name: String, value: String)] {
        var query: [(name: String, value: String)] = []
        if let label, !label.isEmpty { query.append(("labelSelector", label)) }
        if let field, !field.isEmpty { query.append(("fieldSelector", field)) }
        return query
    }

    func json(_ request: APIRequest, _ purpose: String) async throws -> JSONValue {
        let response = try await transport.call(request, purpose: purpose)
        guard (200..<300).contains(response.status) else {
            throw StatusError(status: response.status, body: response.body, purpose: purpose)
        }
        do {
            return try JSONValue(parsing: response.body)
        } catch {
            throw StatusError(code: 502, reason: "BadAnswer", message: "\(purpose): the answer is \(error)")
        }
    }

    private func object(_ request: APIRequest, _ purpose: String) async throws -> KubernetesObject {
        KubernetesObject(try await json(request, purpose))
    }

    /// One line of a watch; an `ERROR` line becomes the failure that it tells.
    private static func event(_ line: [UInt8], _ purpose: String) throws -> WatchEvent {
        let json: JSONValue
        do {
            json = try JSONValue(parsing: line)
        } catch {
            throw StatusError(code: 502, reason: "BadAnswer", message: "\(purpose): a line is \(error)")
        }
        guard let type = json["type"]?.string, let change = WatchEvent.Change(rawValue: type),
            let object = json["object"]
        else {
            let type = json["type"]?.string ?? "absent"
            throw StatusError(
                code: 502, reason: "BadAnswer", message: "\(purpose): an event of the unknown type '\(type)'")
        }
        guard change != .error else {
            throw StatusError(
                code: object["code"]?.int ?? 500, reason: object["reason"]?.string ?? "Unknown",
                message: "\(purpose): \(object["message"]?.string ?? "the server ended the watch")",
                details: object["details"])
        }
        return WatchEvent(change, KubernetesObject(object))
    }
}

/// Lines of a streamed answer, pulled one by one. One task reads it.
final class LineReader: @unchecked Sendable {
    // Unchecked: `AsyncThrowingStream(unfolding:)` calls `next` only from the task that iterates it, one call after
    // another.
    let purpose: String
    private let transport: KubernetesTransport
    private let request: APIRequest
    private var splitter: LineSplitter
    private var parts: HTTPClientResponse.Body.AsyncIterator?
    private var isFinished = false

    init(_ transport: KubernetesTransport, _ request: APIRequest, purpose: String) {
        self.transport = transport
        self.request = request
        self.purpose = purpose
        splitter = LineSplitter(limitBytes: transport.limits.lineBytes)
    }

    /// Nil at the end; a stream that ends within a line fails, because what it was about to say is unknown.
    func next() async throws -> [UInt8]? {
        guard !isFinished else { return nil }
        do {
            if parts == nil {
                parts = try await transport.stream(request, purpose: purpose, mayBeQuiet: false).makeAsyncIterator()
            }
            while true {
                while let line = try splitter.next() {
                    if !line.isEmpty { return line }
                }
                guard let part = try await parts?.next() else { break }
                splitter.append(part.readableBytesView)
            }
        } catch let error as LineSplitter.LineTooLong {
            finish()
            throw StatusError(
                code: 502, reason: "BadAnswer", message: "\(purpose): a line longer than \(error.limitBytes) bytes")
        } catch {
            finish()
            throw StatusError.from(error, purpose: purpose)
        }
        finish()
        guard !splitter.hasPartialLine else {
            throw StatusError(code: 503, reason: "Unreachable", message: "\(purpose): the stream ended within a line")
        }
        return nil
    }

    private func finish() {
        isFinished = true
        parts = nil
    }
}
