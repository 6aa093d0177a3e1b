import Foundation
import HTTPTypes
import Hummingbird
import Logging
import MeshKubernetes
import NIOCore
import NIOFoundationCompat

/// The connection beside the request: an exec takes it over.
struct APIRequestContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any NIOCore.Channel

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        channel = source.channel
    }
}

/// Answers the requests of the Kubernetes API.
struct APIResponder: HTTPResponder {
    var api: LocalAPI
    var access: any PodAccess
    var authenticator: Authenticator
    var discovery: Discovery
    var logger: Logger

    /// The largest body of a request.
    static let bodyLimitBytes = 3 << 20

    func respond(to request: Request, context: APIRequestContext) async throws -> Response {
        do {
            return try await answer(request, context)
        } catch let error as StatusError {
            return Self.json(error.json, code: error.code)
        } catch let error as StoreError {
            return Self.json(StatusError.internalError("\(error)").json, code: 500)
        } catch {
            logger.error("a request failed", metadata: ["path": "\(request.uri.path)", "error": "\(error)"])
            return Self.json(StatusError.internalError("\(error)").json, code: 500)
        }
    }

    /// A request with what its head says, taken apart once.
    struct Call: Sendable {
        var request: Request
        var context: APIRequestContext
        var query: RequestQuery
        var user: RequestUser

        var options: WriteOptions { WriteOptions(user: user, isDryRun: query["dryRun"] == "All") }
        var method: HTTPRequest.Method { request.method }
        var accept: String { request.headers[.accept] ?? "" }
        var wantsTable: Bool { accept.contains("as=Table") }
        var includedObject: TablePrinter.IncludedObject {
            query["includeObject"].flatMap(TablePrinter.IncludedObject.init) ?? .metadata
        }

        func filter() throws -> ObjectFilter {
            try ObjectFilter(labelSelector: query["labelSelector"], fieldSelector: query["fieldSelector"])
        }
    }

    private func answer(_ request: Request, _ context: APIRequestContext) async throws -> Response {
        let parts = request.uri.string.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = String(parts.first ?? "/")
        let queryText = parts.count > 1 ? String(parts[1]) : nil
        let target = RequestTarget(path: path)
        let user = try authenticator.user(authorization: request.headers[.authorization])
        try Authenticator.authorize(user, target, path: path, verb: request.method.rawValue.lowercased())
        let call = Call(request: request, context: context, query: RequestQuery(queryText), user: user)
        guard case .resource(let resource) = target else { return try document(target, path, request.method) }
        guard
            let served = api.registry.served(group: resource.group, version: resource.version, plural: resource.plural)
        else {
            throw Self.unknownPath
        }
        if resource.namespace == nil, served.kind.isNamespaced, resource.name != nil {
            throw StatusError.badRequest(
                "\(served.kind.plural) are in namespaces: use \(served.kind.path(namespace: "NAMESPACE"))")
        }
        if let subresource = resource.subresource, !["status", "finalize"].contains(subresource) {
            return try await self.subresource(subresource, resource, served, call, queryText)
        }
        return try await verb(resource, served, call)
    }

    private static let unknownPath = StatusError(
        code: 404, reason: "NotFound", message: "the server could not find the requested resource")

    private func document(_ target: RequestTarget, _ path: String, _ method: HTTPRequest.Method) throws -> Response {
        guard method == .get || method == .head else {
            throw StatusError.methodNotAllowed("\(path) is for reading only")
        }
        let document: JSONValue?
        switch target {
        case .health: return Self.text("ok")
        case .version: document = discovery.versionDocument
        case .coreVersions: document = discovery.coreVersions
        case .groups: document = discovery.groups
        case .group(let name): document = discovery.group(name)
        case .resources(let group, let version): document = discovery.resources(group: group, version: version)
        case .openAPI: document = discovery.openAPI
        case .formerOpenAPI:
            return Response(
                status: .ok,
                headers: [.contentType: "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"],
                body: ResponseBody(byteBuffer: ByteBuffer(bytes: discovery.formerOpenAPI)))
        case .openAPIDocument(let group, let version):
            document = discovery.openAPIDocument(group: group, version: version)
        case .unknown where path == "/metrics": return Self.text(metrics)
        case .resource, .unknown: document = nil
        }
        guard let document else { throw Self.unknownPath }
        return Self.json(document)
    }

    private var metrics: String {
        let statistics = api.store.statistics
        let rows = [
            ("apus_local_objects", "gauge", "Objects that are kept.", statistics.objects),
            ("apus_local_watchers", "gauge", "Watches that are open.", statistics.watchers),
            ("apus_local_writes_total", "counter", "Changes of objects.", statistics.writes),
            ("apus_local_commits_total", "counter", "Transactions that kept them.", statistics.commits),
            (
                "apus_local_failed_commits_total", "counter", "Transactions that the database refused.",
                statistics.failedCommits
            ),
            (
                "apus_local_slow_watchers_total", "counter", "Watches ended because they did not keep up.",
                statistics.slowWatchers
            ),
        ]
        return rows.map { name, kind, help, value in
            "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n\(name) \(value)\n"
        }.joined()
    }

    // MARK: - Verbs

    private func verb(_ path: RequestTarget.ResourcePath, _ served: ServedKind, _ call: Call) async throws -> Response {
        let kind = served.kind
        if served.isVirtual, call.method != .post {
            throw StatusError.methodNotAllowed("\(kind.plural) can only be created")
        }
        switch (call.method, path.name) {
        case (.get, nil) where call.query.flag("watch"): return try watch(path, served, call)
        case (.get, nil): return try list(path, served, call)
        case (.get, let name?) where call.query.flag("watch"):
            var single = call
            single.query = call.query.adding("fieldSelector", "metadata.name=\(name)")
            return try watch(path, served, single)
        case (.get, let name?): return object(try api.stored(served, path.namespace, name).view(kind), served, call)
        case (.post, nil):
            let result = try await api.create(kind, namespace: path.namespace, body(call), call.options)
            return object(result.object, served, call, code: 201, warnings: result.warnings)
        case (.put, let name?):
            let result = try await api.update(
                kind, namespace: path.namespace, name: name, body(call), subresource: path.subresource, call.options)
            return object(result.object, served, call, warnings: result.warnings)
        case (.patch, let name?):
            let result = try await api.patch(
                kind, namespace: path.namespace, name: name, subresource: path.subresource, patch(call), call.options)
            return object(result.object, served, call, warnings: result.warnings)
        case (.delete, let name?) where path.subresource == nil: return try await delete(path, name, served, call)
        case (.delete, nil): return try await deleteAll(path, served, call)
        default:
            throw StatusError.methodNotAllowed(
                "the server does not allow \(call.method.rawValue) on the requested resource")
        }
    }

    private func object(
        _ object: KubernetesObject, _ served: ServedKind, _ call: Call, code: Int = 200, warnings: [String] = []
    ) -> Response {
        var document = object.json
        if call.wantsTable, call.method == .get {
            document = TablePrinter(served).table(
                [object], metadata: ["resourceVersion": .string(object.resourceVersion)], including: call.includedObject
            )
        }
        return Self.json(document, code: code, warnings: warnings)
    }

    private func list(_ path: RequestTarget.ResourcePath, _ served: ServedKind, _ call: Call) throws -> Response {
        var (objects, version) = api.select(served, namespace: path.namespace, try call.filter())
        var metadata: JSONValue = [:]
        if let token = call.query["continue"], !token.isEmpty {
            let place = try ContinueToken(token)
            version = place.version
            objects = objects.filter { ContinueToken.isAfter($0.key, place) }
        }
        if let limit = call.query.int("limit"), limit > 0, objects.count > limit {
            metadata["remainingItemCount"] = .int(Int64(objects.count - limit))
            objects = Array(objects.prefix(limit))
            if let last = objects.last {
                metadata["continue"] = .string(
                    ContinueToken(version: version, namespace: last.key.namespace, name: last.key.name).text)
            }
        }
        metadata["resourceVersion"] = .string(String(version))
        if call.wantsTable {
            return Self.json(
                TablePrinter(served).table(
                    objects.map { $0.view(served.kind) }, metadata: metadata, including: call.includedObject))
        }
        // The texts are there already: joining them spares making the whole list anew for every reader.
        var text = ByteBuffer()
        text.writeString(
            "{\"kind\":\"\(served.kind.kind)List\",\"apiVersion\":\"\(served.kind.apiVersion)\",\"metadata\":"
                + String(decoding: metadata.data(), as: UTF8.self) + ",\"items\":[")
        for (index, stored) in objects.enumerated() {
            if index > 0 { text.writeInteger(UInt8(ascii: ",")) }
            text.writeData(stored.text(served.kind))
        }
        text.writeString("]}")
        return Response(status: .ok, headers: [.contentType: "application/json"], body: ResponseBody(byteBuffer: text))
    }

    private func delete(
        _ path: RequestTarget.ResourcePath, _ name: String, _ served: ServedKind, _ call: Call
    ) async throws -> Response {
        let result = try await api.delete(
            served.kind, namespace: path.namespace, name: name, deleteOptions(call), by: call.user)
        let key = ObjectKey(served.kind, namespace: path.namespace, name: name)
        if api.store.object(key)?.object.uid == result.uid { return Self.json(result.json) }
        var details: JSONValue = [
            "name": .string(name), "kind": .string(served.kind.plural), "uid": .string(result.uid),
        ]
        if !served.kind.group.isEmpty { details["group"] = .string(served.kind.group) }
        return Self.json([
            "kind": "Status", "apiVersion": "v1", "metadata": [:], "status": "Success", "details": details,
        ])
    }

    private func deleteAll(_ path: RequestTarget.ResourcePath, _ served: ServedKind, _ call: Call) async throws
        -> Response
    {
        let options = try await deleteOptions(call)
        let (objects, version) = api.select(served, namespace: path.namespace, try call.filter())
        var deleted: [JSONValue] = []
        for stored in objects {
            do {
                deleted.append(
                    try await api.delete(
                        served.kind, namespace: stored.key.namespace, name: stored.key.name, options, by: call.user
                    ).json)
            } catch let error as StatusError where error.code == 404 {
                continue
            }
        }
        return Self.json([
            "kind": .string(served.kind.kind + "List"), "apiVersion": .string(served.kind.apiVersion),
            "metadata": ["resourceVersion": .string(String(version))], "items": .array(deleted),
        ])
    }

    // MARK: - Bodies

    func document(_ call: Call) async throws -> JSONValue? {
        let bytes: ByteBuffer
        do {
            bytes = try await call.request.body.collect(upTo: Self.bodyLimitBytes)
        } catch is NIOTooManyBytesError {
            throw StatusError(
                code: 413, reason: "RequestEntityTooLarge",
                message: "the body is longer than \(Self.bodyLimitBytes) bytes")
        }
        guard bytes.readableBytes > 0 else { return nil }
        do {
            return try JSONValue(parsing: Data(buffer: bytes))
        } catch {
            throw StatusError.badRequest("the body is not JSON: \(error)")
        }
    }

    private func mediaType(_ call: Call) -> String {
        (call.request.headers[.contentType] ?? "").split(separator: ";").first.map {
            $0.trimmingCharacters(in: .whitespaces).lowercased()
        } ?? ""
    }

    private func body(_ call: Call) async throws -> KubernetesObject {
        guard ["application/json", ""].contains(mediaType(call)) else { throw unsupported(call, ["application/json"]) }
        guard let document = try await document(call), document.object != nil else {
            throw StatusError.badRequest("the body has to be a JSON object")
        }
        return KubernetesObject(document)
    }

    func patch(_ call: Call) async throws -> PatchDocument {
        let type = mediaType(call)
        let types = [
            "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
        ]
        guard types.contains(type) else { throw unsupported(call, types) }
        guard let document = try await document(call) else { throw StatusError.badRequest("the patch is empty") }
        return switch type {
        case types[0]: .json(document)
        case types[1]: .merge(document)
        default: .strategic(document)
        }
    }

    private func unsupported(_ call: Call, _ types: [String]) -> StatusError {
        StatusError(
            code: 415, reason: "UnsupportedMediaType",
            message:
                "the body's type is '\(call.request.headers[.contentType] ?? "")', expected one of \(types.joined(separator: ", "))"
        )
    }

    private func deleteOptions(_ call: Call) async throws -> DeleteOptions {
        var options = DeleteOptions(isDryRun: call.options.isDryRun)
        let body = try await document(call)
        options.gracePeriodSeconds = body?["gracePeriodSeconds"]?.int ?? call.query.int("gracePeriodSeconds")
        options.uid = body?[path: "preconditions", "uid"]?.string
        options.resourceVersion = body?[path: "preconditions", "resourceVersion"]?.string
        if body?["dryRun"]?.array?.contains("All") == true { options.isDryRun = true }
        if body?["orphanDependents"]?.bool == true { options.propagation = .orphan }
        if let policy = body?["propagationPolicy"]?.string ?? call.query["propagationPolicy"] {
            guard let propagation = DeleteOptions.Propagation(rawValue: policy) else {
                throw StatusError.badRequest("propagationPolicy '\(policy)': expected Background, Foreground or Orphan")
            }
            options.propagation = propagation
        }
        return options
    }

    // MARK: - Answers

    static func json(_ document: JSONValue, code: Int = 200, warnings: [String] = []) -> Response {
        var headers: HTTPFields = [.contentType: "application/json", .cacheControl: "no-cache, private"]
        for warning in warnings {
            // A header cannot carry line ends, nor a quoted text quotes.
            let text = warning.unicodeScalars.map {
                $0.isASCII && $0.value >= 32 && $0 != "\"" && $0 != "\\" ? Character($0) : " "
            }
            if let name = HTTPField.Name("warning") {
                headers.append(HTTPField(name: name, value: "299 - \"\(String(text))\""))
            }
        }
        return Response(
            status: .init(code: code), headers: headers,
            body: ResponseBody(byteBuffer: ByteBuffer(data: document.data())))
    }

    static func text(_ text: String) -> Response {
        Response(
            status: .ok, headers: [.contentType: "text/plain; charset=utf-8"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
    }
}

/// Where the next page of a list begins.
struct ContinueToken: Hashable, Sendable {
    var version: Int64
    var namespace: String
    var name: String

    init(version: Int64, namespace: String, name: String) {
        self.version = version
        self.namespace = namespace
        self.name = name
    }

    init(_ text: String) throws {
        let parts = [UInt8](base64URL: text).map {
            String(decoding: $0, as: UTF8.self).split(separator: "/", omittingEmptySubsequences: false)
        }
        guard let parts, parts.count == 3, let version = Int64(parts[0]) else {
            throw StatusError.badRequest("continue key is not valid: use the one of the page before")
        }
        self.init(version: version, namespace: String(parts[1]), name: String(parts[2]))
    }

    var text: String { Array("\(version)/\(namespace)/\(name)".utf8).base64URL }

    static func isAfter(_ key: ObjectKey, _ token: ContinueToken) -> Bool {
        (key.namespace, key.name) > (token.namespace, token.name)
    }
}

extension StoredObject {
    /// The text that a client of this version reads.
    func text(_ kind: ResourceKind) -> Data {
        object.apiVersion == kind.apiVersion ? data : view(kind).json.data()
    }
}
