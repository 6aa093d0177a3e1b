import Foundation
import HTTPTypes
import Hummingbird
import MeshKubernetes
import NIOCore

/// What hangs below an object: logs, exec, proxies, tokens, scale.
extension APIResponder {
    func subresource(
        _ name: String, _ path: RequestTarget.ResourcePath, _ served: ServedKind, _ call: Call, _ query: String?
    ) async throws -> Response {
        switch (served.kind.storageName, name) {
        case ("pods", "log") where call.method == .get: return try await log(path, call)
        case ("pods", "exec"): return try await exec(path, call)
        case ("pods", "proxy"), ("services", "proxy"):
            return try await PodProxy(api: api, access: access).respond(path, query: query, request: call.request)
        case ("serviceaccounts", "token") where call.method == .post: return try await token(path, call)
        case ("deployments.apps", "scale"), ("replicasets.apps", "scale"): return try await scale(path, served, call)
        default:
            throw StatusError(
                code: 404, reason: "NotFound", message: "the server could not find the requested resource")
        }
    }

    private func pod(_ path: RequestTarget.ResourcePath) async throws -> (KubernetesObject, PodReference) {
        let pod = try await api.get(.pod, namespace: path.namespace, name: path.name ?? "")
        return (pod, PodReference(namespace: path.namespace ?? "", name: pod.name, uid: pod.uid))
    }

    /// The container a request means: the one it names, the pod's default, or the only one.
    static func container(named name: String?, in pod: KubernetesObject) throws -> String {
        let names = ["containers", "initContainers"].map { list in
            (pod.json[path: "spec", list]?.array ?? []).compactMap { $0["name"]?.string }
        }
        let wanted =
            name.flatMap { $0.isEmpty ? nil : $0 } ?? pod.annotations["kubectl.kubernetes.io/default-container"]
        if let wanted {
            guard names.joined().contains(wanted) else {
                throw StatusError.badRequest(
                    "container \(wanted) is not valid for pod \(pod.name); it has \(Array(names.joined()))")
            }
            return wanted
        }
        guard names[0].count == 1 else {
            throw StatusError.badRequest(
                "a container name must be specified for pod \(pod.name), choose one of: \(names[0])")
        }
        return names[0][0]
    }

    // MARK: - Logs and exec

    private func log(_ path: RequestTarget.ResourcePath, _ call: Call) async throws -> Response {
        let (pod, reference) = try await pod(path)
        let query = call.query
        let stream = try await access.logs(
            of: reference,
            PodLogRequest(
                container: Self.container(named: query["container"], in: pod), follow: query.flag("follow"),
                previous: query.flag("previous"), timestamps: query.flag("timestamps"),
                tailLines: query.int("tailLines"),
                sinceSeconds: query.int("sinceSeconds")))
        let limit = query.int("limitBytes") ?? Int.max
        let request = call.request
        let body = ResponseBody { writer in
            try await request.body.consumeWithCancellationOnInboundClose { _ in
                var left = limit
                for try await piece in stream where left > 0 {
                    try await writer.write(ByteBuffer(bytes: piece.prefix(left)))
                    left -= min(left, piece.count)
                }
                try await writer.finish(nil)
            }
        }
        return Response(status: .ok, headers: [.contentType: "text/plain; charset=utf-8"], body: body)
    }

    private func exec(_ path: RequestTarget.ResourcePath, _ call: Call) async throws -> Response {
        let (pod, reference) = try await pod(path)
        func header(_ name: String) -> String? { HTTPField.Name(name).flatMap { call.request.headers[$0] } }
        let upgrade = try ExecUpgrade(
            upgrade: header("upgrade"), version: header("sec-websocket-version"), key: header("sec-websocket-key"),
            protocols: header("sec-websocket-protocol"))
        let command = call.query.all("command")
        guard !command.isEmpty else { throw StatusError.badRequest("exec needs a command") }
        guard ["Running", "Pending"].contains(pod.json[path: "status", "phase"]?.string ?? "") else {
            throw StatusError.badRequest(
                "cannot exec in a pod that has ended; its phase is \(pod.json[path: "status", "phase"]?.string ?? "unknown")"
            )
        }
        let request = PodExecRequest(
            container: try Self.container(named: call.query["container"], in: pod), command: command,
            hasStandardInput: call.query.flag("stdin"), hasTerminal: call.query.flag("tty"))
        try await upgrade.run(on: call.context.channel, request, pod: reference, access: access)
        // The connection has become a WebSocket and is closed: nobody reads this.
        return Response(status: .ok)
    }

    // MARK: - Tokens

    private func token(_ path: RequestTarget.ResourcePath, _ call: Call) async throws -> Response {
        let body = try await document(call) ?? [:]
        let spec = body["spec"]
        var pod: PodReference?
        if let bound = spec?["boundObjectRef"], bound.object != nil {
            guard bound["kind"] == "Pod", let name = bound["name"]?.string else {
                throw StatusError.badRequest("spec.boundObjectRef: a token can be bound to a Pod, with its name")
            }
            let current = try await api.get(.pod, namespace: path.namespace, name: name)
            pod = PodReference(namespace: path.namespace ?? "", name: name, uid: bound["uid"]?.string ?? current.uid)
        }
        let seconds = spec?["expirationSeconds"]?.int ?? 3_600
        guard seconds >= TokenAuthority.secondsRange.lowerBound else {
            throw StatusError.badRequest(
                "spec.expirationSeconds: \(seconds) is too short, a token lives for 600 seconds at least")
        }
        let audiences = spec?["audiences"]?.array?.compactMap(\.string) ?? []
        let (token, expires) = try await api.requestToken(
            namespace: path.namespace ?? "", serviceAccount: path.name ?? "", audiences: audiences,
            expirationSeconds: seconds, pod: pod)
        var answer: JSONValue = [
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": ["name": .string(path.name ?? ""), "namespace": .string(path.namespace ?? "")],
            "status": ["token": .string(token), "expirationTimestamp": .string(expires.description)],
        ]
        answer["spec"] = [
            "audiences": .array((audiences.isEmpty ? [api.tokens.issuer] : audiences).map { .string($0) }),
            "expirationSeconds": .int(Int64(seconds)), "boundObjectRef": spec?["boundObjectRef"] ?? .null,
        ]
        return Self.json(answer, code: 201)
    }

    // MARK: - Scale

    private func scale(_ path: RequestTarget.ResourcePath, _ served: ServedKind, _ call: Call) async throws -> Response
    {
        let current = try await api.get(served.kind, namespace: path.namespace, name: path.name ?? "")
        let wanted: JSONValue
        switch call.method {
        case .get: return Self.json(Self.scale(of: current))
        case .put: wanted = try await document(call) ?? [:]
        case .patch: wanted = try await patch(call).applied(to: Self.scale(of: current))
        default: throw StatusError.methodNotAllowed("scale can be read, replaced and patched")
        }
        guard let replicas = wanted[path: "spec", "replicas"]?.int else {
            throw StatusError.badRequest("spec.replicas: expected a number")
        }
        var change: JSONValue = ["spec": ["replicas": .int(Int64(replicas))]]
        if call.method == .put, let version = wanted[path: "metadata", "resourceVersion"]?.string {
            change[path: "metadata", "resourceVersion"] = .string(version)
        }
        let result = try await api.patch(
            served.kind, namespace: path.namespace, name: path.name ?? "", subresource: nil, .merge(change),
            call.options)
        return Self.json(Self.scale(of: result.object))
    }

    static func scale(of object: KubernetesObject) -> JSONValue {
        var metadata: JSONValue = [:]
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            metadata[field] = object.json["metadata"]?[field]
        }
        let labels = object.json[path: "spec", "selector", "matchLabels"]?.object ?? [:]
        let selector = labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value.string ?? "")" }.joined(
            separator: ",")
        return [
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
            "spec": ["replicas": object.json[path: "spec", "replicas"] ?? 0],
            "status": ["replicas": object.json[path: "status", "replicas"] ?? 0, "selector": .string(selector)],
        ]
    }
}
