import Foundation
package import MeshKubernetes

/// Manifests as the user gives them: files, folders, `-` for standard input; many documents to a file; lists are taken apart.
enum Manifests {
    static let limitBytes = 64 << 20

    static func load(_ paths: [String]) throws -> [KubernetesObject] {
        try paths.flatMap { path in try files(path).flatMap { try objects(text($0), source: $0) } }
    }

    static func text(_ path: String) throws -> String {
        let data: Data?
        if path == "-" {
            data = try FileHandle.standardInput.readToEnd() ?? Data()
        } else {
            data = FileManager.default.contents(atPath: path)
        }
        guard let data else { throw CommandFailure("\(path) cannot be read: \(String(cString: strerror(errno)))") }
        guard data.count <= limitBytes else { throw CommandFailure("\(path) is longer than \(limitBytes >> 20) MiB") }
        return String(decoding: data, as: UTF8.self)
    }

    private static func files(_ path: String) throws -> [String] {
        var isDirectory: ObjCBool = false
        guard path != "-", FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory),
            isDirectory.boolValue
        else { return [path] }
        return try FileManager.default.contentsOfDirectory(atPath: path).sorted()
            .filter { $0.hasSuffix(".yaml") || $0.hasSuffix(".yml") || $0.hasSuffix(".json") }.map { "\(path)/\($0)" }
    }

    private static func objects(_ text: String, source: String) throws -> [KubernetesObject] {
        let documents: [JSONValue]
        do { documents = try YAMLReader.documents(text) } catch {
            throw CommandFailure("\(source): \(error.description)")
        }
        var objects: [KubernetesObject] = []
        for (index, document) in documents.enumerated() {
            let items =
                document["kind"]?.string?.hasSuffix("List") == true
                ? document["items"]?.array ?? [document] : [document]
            for item in items {
                let object = KubernetesObject(item)
                guard !object.kind.isEmpty, !object.apiVersion.isEmpty else {
                    throw CommandFailure("\(source): document \(index + 1) has no 'kind' or no 'apiVersion'")
                }
                guard !object.name.isEmpty || item[path: "metadata", "generateName"] != nil else {
                    throw CommandFailure("\(source): document \(index + 1) (\(object.kind)) has no 'metadata.name'")
                }
                objects.append(object)
            }
        }
        return objects
    }
}

/// Makes the platform's object be what the manifest says, and leaves alone what the manifest never said.
///
/// What was applied before is kept in kubectl's own annotation, so that a field that is taken out of a manifest is taken out of the object, and
/// so that both tools may be used in turn. Arrays are replaced as a whole (RFC 7386).
package struct Applier {
    package enum Outcome: String {
        case created
        case configured
        case unchanged
    }

    static let annotation = "kubectl.kubernetes.io/last-applied-configuration"
    let client: KubernetesClient
    let defaultNamespace: String?

    func apply(_ manifest: KubernetesObject, kind: ResourceKind) async throws -> Outcome {
        var manifest = manifest
        if kind.isNamespaced && manifest.namespace == nil {
            manifest.json[path: "metadata", "namespace"] = .string(defaultNamespace ?? client.defaultNamespace)
        }
        let wanted = manifest.json
        manifest.json[path: "metadata", "annotations", Applier.annotation] = .string(
            String(decoding: wanted.data(), as: UTF8.self) + "\n")
        // Somebody else may change or delete it between the calls: three tries, as for any optimistic write.
        for attempt in 1...3 {
            do {
                guard !manifest.name.isEmpty else {
                    _ = try await client.create(kind, manifest)
                    return .created
                }
                let live: KubernetesObject
                do {
                    live = try await client.get(kind, namespace: manifest.namespace, name: manifest.name)
                } catch let error as StatusError where error.code == 404 {
                    _ = try await client.create(kind, manifest)
                    return .created
                }
                let last =
                    live.annotations[Applier.annotation].flatMap { try? JSONValue(parsing: Data($0.utf8)) } ?? .null
                let patch = Applier.patch(
                    live: Applier.basis(live: live.json, last: last), last: last, wanted: manifest.json)
                guard patch != .object([:]) else { return .unchanged }
                let patched = try await client.patch(
                    kind, namespace: manifest.namespace, name: manifest.name, subresource: nil, .merge(patch))
                return patched.resourceVersion == live.resourceVersion ? .unchanged : .configured
            } catch let error as StatusError where error.code == 409 && attempt < 3 {
                continue
            }
        }
        throw CommandFailure("\(manifest.kind) \(manifest.name) keeps being changed by somebody else")
    }

    /// What a manifest is compared with. Admission adds to a pod's lists and rewrites its probes, and the API lets nobody change them back:
    /// what counts of its spec is what was applied before.
    package static func basis(live: JSONValue, last: JSONValue) -> JSONValue {
        guard live["kind"] == "Pod", let spec = last["spec"] else { return live }
        var basis = live
        basis["spec"] = spec
        return basis
    }

    /// The merge patch: members of `wanted` that differ from `live`, and null for those of `last` that `wanted` no longer has.
    package static func patch(live: JSONValue, last: JSONValue, wanted: JSONValue) -> JSONValue {
        var patch: [String: JSONValue] = [:]
        for (name, value) in wanted.object ?? [:] {
            let current = live[name]
            if case .object = value, case .object? = current {
                let inner = self.patch(live: current ?? .null, last: last[name] ?? .null, wanted: value)
                if inner != .object([:]) { patch[name] = inner }
            } else if current != value, !(value.isNull && current == nil) {
                patch[name] = value
            }
        }
        for (name, _) in last.object ?? [:] where wanted[name] == nil && live[name] != nil {
            patch[name] = .null
        }
        return .object(patch)
    }
}
