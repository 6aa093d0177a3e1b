import MeshKubernetes

/// Brings the objects of a manifest into the API: made when they are missing, changed to what the manifest says otherwise.
struct ManifestApplication: Sendable {
    let api: LocalAPI

    func apply(_ objects: [KubernetesObject]) async throws {
        for object in objects {
            let group =
                object.apiVersion.split(separator: "/").count == 2 ? String(object.apiVersion.prefix { $0 != "/" }) : ""
            guard let kind = api.registry.served(group: group, kindName: object.kind)?.kind else {
                throw PlatformError(
                    "manifest \(object.kind) '\(object.name)': the platform serves no \(object.kind) of \(object.apiVersion)"
                )
            }
            var object = object
            if kind.isNamespaced && object.namespace == nil { object.json[path: "metadata", "namespace"] = "default" }
            do {
                try await apply(object, kind)
            } catch {
                throw PlatformError("manifest \(object.kind) '\(object.name)': \(error)")
            }
        }
    }

    private func apply(_ object: KubernetesObject, _ kind: ResourceKind) async throws {
        do {
            _ = try await api.create(kind, object)
        } catch let error as StatusError where error.code == 409 {
            var change = object.json
            change["status"] = nil
            _ = try await api.patch(
                kind, namespace: object.namespace, name: object.name, subresource: nil, .merge(change))
        }
    }
}
