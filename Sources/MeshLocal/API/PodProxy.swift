import Foundation
import HTTPTypes
import Hummingbird
import MeshAddress
import MeshKubernetes
import NIOCore
import NIOHTTP1

/// `pods/NAME/proxy` and `services/NAME/proxy`: a request passed on to a pod, for those who reach the API but not the pods.
struct PodProxy: Sendable {
    var api: LocalAPI
    var access: any PodAccess
    /// What is passed on, each way.
    static let bodyLimitBytes = 16 << 20
    static let timeoutSeconds = 60

    /// `NAME`, `NAME:PORT`, `https:NAME:PORT`; the port may be a name.
    struct Target: Hashable, Sendable {
        var isTLS = false
        var name: String
        var port = ""

        init(_ text: String) throws {
            let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
            switch parts.count {
            case 1: name = parts[0]
            case 2: (name, port) = (parts[0], parts[1])
            case 3 where ["http", "https", ""].contains(parts[0]):
                isTLS = parts[0] == "https"
                (name, port) = (parts[1], parts[2])
            default: throw StatusError.badRequest("'\(text)': expected NAME, NAME:PORT or https:NAME:PORT")
            }
        }
    }

    func respond(_ path: RequestTarget.ResourcePath, query: String?, request: Request) async throws -> Response {
        let target = try Target(path.name ?? "")
        let namespace = path.namespace ?? "default"
        let (address, port) =
            path.plural == "services"
            ? try ServiceResolution(store: api.store).endpoint(
                namespace: namespace, service: target.name, port: target.port)
            : try await podAddress(namespace, target)
        let body = try await collect(request.body)
        var headers = HTTPHeaders([("host", "\(target.name):\(port)"), ("connection", "close")])
        for field in request.headers
        where !Self.dropped.contains(field.name.canonicalName) && field.name.canonicalName != "authorization" {
            headers.add(name: field.name.rawName, value: field.value)
        }
        if body.readableBytes > 0 { headers.add(name: "content-length", value: String(body.readableBytes)) }
        let head = HTTPRequestHead(
            version: .http1_1, method: HTTPMethod(rawValue: request.method.rawValue),
            uri: path.rest.isEmpty ? "/" + Self.suffix(query) : path.rest + Self.suffix(query), headers: headers)
        let exchange = HTTPExchange(address: address, port: port, security: target.isTLS ? .unverified : .plaintext)
        do {
            return try await withDeadline(seconds: Self.timeoutSeconds) {
                try await exchange.perform(head, body: body) { head, parts in
                    var answer = ByteBuffer()
                    while let part = try await parts.next() {
                        guard case .body(var piece) = part else { continue }
                        guard answer.readableBytes + piece.readableBytes <= Self.bodyLimitBytes else {
                            throw StatusError(
                                code: 502, reason: "BadGateway",
                                message: "the answer is longer than \(Self.bodyLimitBytes) bytes")
                        }
                        answer.writeBuffer(&piece)
                    }
                    return Self.response(head, answer)
                }
            }
        } catch let error as StatusError {
            throw error
        } catch {
            throw StatusError(
                code: 503, reason: "ServiceUnavailable",
                message:
                    "error trying to reach \(path.plural) \(target.name) at \(SocketAddress(address, port)): \(error)")
        }
    }

    private static func suffix(_ query: String?) -> String { query.map { "?\($0)" } ?? "" }

    private static let dropped: Set<String> = [
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade",
        "host", "content-length", "expect",
    ]

    private static func response(_ head: HTTPResponseHead, _ body: ByteBuffer) -> Response {
        var fields = HTTPFields()
        for (name, value) in head.headers where !dropped.contains(name.lowercased()) {
            if let name = HTTPField.Name(name) { fields.append(HTTPField(name: name, value: value)) }
        }
        let code = (200...599).contains(head.status.code) ? Int(head.status.code) : 502
        return Response(status: .init(code: code), headers: fields, body: ResponseBody(byteBuffer: body))
    }

    private func podAddress(_ namespace: String, _ target: Target) async throws -> (IPAddress, UInt16) {
        let pod = try await api.get(.pod, namespace: namespace, name: target.name)
        let ports = (pod.json[path: "spec", "containers"]?.array ?? []).flatMap { $0["ports"]?.array ?? [] }
        let number =
            UInt16(target.port)
            ?? (target.port.isEmpty ? ports.first : ports.first { $0["name"]?.string == target.port })?[
                "containerPort"]?.int
            .flatMap { UInt16(exactly: $0) } ?? (target.port.isEmpty ? 80 : nil)
        guard let number, number > 0 else {
            throw StatusError.badRequest("pod \(target.name) has no port '\(target.port)'")
        }
        guard
            let address = try await access.address(
                of: PodReference(namespace: namespace, name: target.name, uid: pod.uid))
        else {
            throw StatusError(code: 503, reason: "ServiceUnavailable", message: "pod \(target.name) has no address yet")
        }
        return (address, number)
    }

    private func collect(_ body: RequestBody) async throws -> ByteBuffer {
        do {
            return try await body.collect(upTo: Self.bodyLimitBytes)
        } catch is NIOTooManyBytesError {
            throw StatusError(
                code: 413, reason: "RequestEntityTooLarge",
                message: "the body is longer than \(Self.bodyLimitBytes) bytes")
        }
    }
}
