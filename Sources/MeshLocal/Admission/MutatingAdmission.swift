import Foundation
import MeshAddress
import MeshKubernetes
import NIOCore
import NIOFoundationCompat
import NIOHTTP1
import Synchronization

/// Calls the webhooks of every MutatingWebhookConfiguration that matches a request, in the order of the configurations' names,
/// as Kubernetes does.
final class MutatingAdmission: Sendable {
    private let store: ObjectStore
    /// What a webhook may answer.
    static let responseLimitBytes = 3 << 20

    init(store: ObjectStore) { self.store = store }

    /// The object as the webhooks leave it. A webhook that asked for it is called once more when a later one changed the object.
    func admit(_ request: AdmissionRequest) async throws -> WriteResult {
        let labels = request.namespace.flatMap {
            store.object(ObjectKey(.namespace, namespace: nil, name: $0))?.object.labels
        }
        let webhooks = store.objects(of: ResourceKind.mutatingWebhookConfiguration.storageName).objects.flatMap {
            stored in
            (stored.object.json["webhooks"]?.array ?? []).compactMap(AdmissionWebhook.init)
        }.filter { $0.matches(request, namespaceLabels: labels) }
        var result = WriteResult(object: request.object)
        guard !webhooks.isEmpty else { return result }
        var seen: [KubernetesObject?] = Array(repeating: nil, count: webhooks.count)
        for (index, webhook) in webhooks.enumerated() {
            try await call(webhook, request, &result)
            seen[index] = result.object
        }
        for (index, webhook) in webhooks.enumerated() where webhook.isReinvocable && seen[index] != result.object {
            try await call(webhook, request, &result)
        }
        return result
    }

    private func call(_ webhook: AdmissionWebhook, _ request: AdmissionRequest, _ result: inout WriteResult)
        async throws
    {
        let answer: JSONValue
        let uid = UUID().uuidString.lowercased()
        do {
            answer = try await review(webhook, request, object: result.object, uid: uid)
        } catch {
            if webhook.isFailureIgnored {
                result.warnings.append("failed calling webhook \"\(webhook.name)\", which is allowed to fail: \(error)")
                return
            }
            throw StatusError.internalError("failed calling webhook \"\(webhook.name)\": \(error)")
        }
        result.warnings +=
            answer["warnings"]?.array?.prefix(16).compactMap(\.string).map { String($0.prefix(256)) } ?? []
        guard answer["allowed"]?.bool == true else { throw denial(webhook, answer["status"]) }
        guard let text = answer["patch"]?.string else { return }
        do {
            guard answer["patchType"] == "JSONPatch", let bytes = [UInt8](base64URL: text) else {
                throw PatchError("expected a base64 JSON Patch with patchType JSONPatch")
            }
            let patched = try JSONPatch(json: JSONValue(parsing: Data(bytes))).applied(to: result.object.json)
            guard patched.object != nil else { throw PatchError("the patch leaves no object") }
            result.object = KubernetesObject(patched)
        } catch {
            throw StatusError.internalError(
                "webhook \"\(webhook.name)\" answered with a patch that cannot be applied: \(error)")
        }
    }

    private func denial(_ webhook: AdmissionWebhook, _ status: JSONValue?) -> StatusError {
        let message = "admission webhook \"\(webhook.name)\" denied the request"
        let why = status?["message"]?.string ?? status?["reason"]?.string ?? ""
        let code = status?["code"]?.int ?? 403
        return StatusError(
            code: (400...599).contains(code) ? code : 403, reason: status?["reason"]?.string ?? "Forbidden",
            message: why.isEmpty ? "\(message) without explanation" : "\(message): \(why)", details: status?["details"])
    }

    // MARK: - One call

    private func review(
        _ webhook: AdmissionWebhook, _ request: AdmissionRequest, object: KubernetesObject, uid: String
    ) async throws -> JSONValue {
        let kind: JSONValue = [
            "group": .string(request.kind.group), "version": .string(request.kind.version),
            "kind": .string(request.kind.kind),
        ]
        let resource: JSONValue = [
            "group": .string(request.kind.group), "version": .string(request.kind.version),
            "resource": .string(request.kind.plural),
        ]
        var body: JSONValue = [
            "uid": .string(uid), "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": .string(request.name), "operation": .string(request.operation.rawValue),
            "userInfo": request.user.json,
            "object": request.operation == .delete ? .null : object.json, "oldObject": request.oldObject?.json ?? .null,
            "dryRun": .bool(request.isDryRun), "options": .null,
        ]
        if let namespace = request.namespace { body["namespace"] = .string(namespace) }
        if let subresource = request.subresource {
            body["subResource"] = .string(subresource)
            body["requestSubResource"] = .string(subresource)
        }
        let review: JSONValue = ["apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": body]
        let payload = ByteBuffer(data: review.data())
        let destination = try self.destination(webhook)
        let seconds = webhook.timeoutSeconds
        let answer = try await withDeadline(seconds: seconds) {
            try await Self.post(payload, to: destination, timeoutSeconds: seconds)
        }
        guard answer["kind"] == "AdmissionReview", answer["apiVersion"] == "admission.k8s.io/v1" else {
            throw AdmissionFailure("expected an AdmissionReview of admission.k8s.io/v1")
        }
        guard let response = answer["response"], response["uid"]?.string == uid else {
            throw AdmissionFailure(
                "expected response.uid=\"\(uid)\", got \"\(answer["response"]?["uid"]?.string ?? "")\"")
        }
        return response
    }

    private static func post(_ payload: ByteBuffer, to destination: Destination, timeoutSeconds: Int) async throws
        -> JSONValue
    {
        var headers = HTTPHeaders([
            ("host", destination.host), ("content-type", "application/json"), ("accept", "application/json"),
            ("connection", "close"), ("user-agent", "apus-admission"),
        ])
        headers.add(name: "content-length", value: String(payload.readableBytes))
        let separator = destination.path.contains("?") ? "&" : "?"
        let head = HTTPRequestHead(
            version: .http1_1, method: .POST, uri: "\(destination.path)\(separator)timeout=\(timeoutSeconds)s",
            headers: headers)
        return try await destination.exchange.perform(head, body: payload) { head, parts in
            var body = ByteBuffer()
            while let part = try await parts.next() {
                guard case .body(var piece) = part else { continue }
                guard body.readableBytes + piece.readableBytes <= responseLimitBytes else {
                    throw AdmissionFailure("the response is longer than \(responseLimitBytes) bytes")
                }
                body.writeBuffer(&piece)
            }
            guard head.status == .ok else {
                let text = String(buffer: body).prefix(256)
                throw AdmissionFailure("the server answered \(head.status.code): \(text)")
            }
            return try JSONValue(parsing: Data(buffer: body))
        }
    }

    // MARK: - Where

    private struct Destination: Sendable {
        var exchange: HTTPExchange
        var host: String
        var path: String
    }

    private func destination(_ webhook: AdmissionWebhook) throws -> Destination {
        switch webhook.target {
        case .service(let namespace, let name, let path, let port):
            let host = "\(name).\(namespace).svc"
            let (address, target) = try ServiceResolution(store: store).endpoint(
                namespace: namespace, service: name, port: port)
            return Destination(
                exchange: HTTPExchange(
                    address: address, port: target, security: .verified(name: host, authorities: webhook.authorities)),
                host: "\(host):\(port)", path: path)
        case .url(let text):
            guard let components = URLComponents(string: text), components.scheme == "https", let host = components.host
            else {
                throw AdmissionFailure("'\(text)' is not an https URL")
            }
            let bare = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
            guard let port = UInt16(exactly: components.port ?? 443) else {
                throw AdmissionFailure("'\(text)' has no valid port")
            }
            guard let address = IPAddress(bare) ?? (bare == "localhost" ? .loopback4 : nil) else {
                throw AdmissionFailure(
                    "the host of '\(text)' must be an address or localhost; use clientConfig.service for a name")
            }
            return Destination(
                exchange: HTTPExchange(
                    address: address, port: port, security: .verified(name: bare, authorities: webhook.authorities)),
                host: "\(host):\(port)", path: components.path.isEmpty ? "/" : components.path)
        }
    }
}

/// Why a webhook could not be asked.
struct AdmissionFailure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// From a Service's name and port to an address that answers: the API server is no pod, so it looks into the slices itself.
struct ServiceResolution: Sendable {
    var store: ObjectStore

    /// One ready endpoint, at random. `port` is a number or a name of the Service's ports.
    func endpoint(namespace: String, service: String, port: Int) throws -> (IPAddress, UInt16) {
        try endpoint(namespace: namespace, service: service, port: String(port))
    }

    func endpoint(namespace: String, service name: String, port: String) throws -> (IPAddress, UInt16) {
        guard let service = store.object(ObjectKey(.service, namespace: namespace, name: name))?.object else {
            throw StatusError.notFound(.service, name)
        }
        let ports = service.json[path: "spec", "ports"]?.array ?? []
        let chosen =
            port.isEmpty && ports.count == 1
            ? ports.first : ports.first { $0["port"]?.int.map(String.init) == port || $0["name"]?.string == port }
        guard let chosen else {
            throw StatusError(
                code: 503, reason: "ServiceUnavailable",
                message: "service \"\(name)\" in \(namespace) has no port \"\(port)\"")
        }
        let portName = chosen["name"]?.string ?? ""
        var ready: [(IPAddress, UInt16)] = []
        for stored in store.objects(of: ResourceKind.endpointSlice.storageName, namespace: namespace).objects
        where stored.object.labels[Kubernetes.EndpointSlice.serviceLabel] == name {
            let slice = stored.object.json
            let target = slice["ports"]?.array?.first { ($0["name"]?.string ?? "") == portName }?["port"]?.int
            guard let target = target.flatMap({ UInt16(exactly: $0) }) else { continue }
            for endpoint in slice["endpoints"]?.array ?? [] where endpoint[path: "conditions", "ready"]?.bool != false {
                if let address = endpoint["addresses"]?[0]?.string.flatMap({ IPAddress($0) }) {
                    ready.append((address, target))
                }
            }
        }
        guard let endpoint = ready.randomElement() else {
            throw StatusError(
                code: 503, reason: "ServiceUnavailable",
                message: "no endpoints available for service \"\(name)\" in \(namespace)")
        }
        return endpoint
    }
}
