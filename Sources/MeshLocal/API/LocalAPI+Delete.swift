import Foundation
import MeshKubernetes

/// Deletion, with grace and finalizers.
extension LocalAPI {
    /// Namespaces that the platform needs.
    static let permanentNamespaces: Set<String> = ["default", "kube-system", "kube-public"]

    /// Returns the object as it is after the call: gone, or terminating.
    func delete(
        _ kind: ResourceKind, namespace: String?, name: String, _ options: DeleteOptions,
        by user: RequestUser = .platform
    ) async throws -> KubernetesObject {
        let served = try self.served(kind)
        guard !served.isVirtual else { throw StatusError.methodNotAllowed("\(kind.plural) cannot be deleted") }
        if kind.storageName == "namespaces", Self.permanentNamespaces.contains(name) {
            throw StatusError.forbidden(kind, name, "this namespace may not be deleted")
        }
        for _ in 0..<20 {
            let stored = try self.stored(served, namespace, name)
            try verifyPreconditions(stored, served, options)
            if !stored.object.isTerminating, kind.group != ResourceKind.mutatingWebhookConfiguration.group {
                // A webhook may refuse a deletion; there is nothing that it could change.
                _ = try await admission.admit(
                    AdmissionRequest(
                        kind: kind, operation: .delete, namespace: stored.object.namespace, name: name,
                        object: stored.object,
                        oldObject: stored.object, user: user, isDryRun: options.isDryRun))
            }
            do {
                return try await deleteOnce(stored, served, options)
            } catch let error as StoreError {
                guard case .conflict = error else { throw StatusError(error, kind, name) }
            }
        }
        throw StatusError.modified(kind, name)
    }

    private func verifyPreconditions(_ stored: StoredObject, _ served: ServedKind, _ options: DeleteOptions) throws {
        if let uid = options.uid, uid != stored.object.uid {
            throw StatusError.conflict(
                served.kind, stored.key.name,
                "Precondition failed: UID in precondition: \(uid), UID in object meta: \(stored.object.uid)")
        }
        if let version = options.resourceVersion, version != stored.object.resourceVersion {
            throw StatusError.conflict(
                served.kind, stored.key.name,
                "Precondition failed: ResourceVersion in precondition: \(version), ResourceVersion in object meta: "
                    + stored.object.resourceVersion)
        }
    }

    private func deleteOnce(_ stored: StoredObject, _ served: ServedKind, _ options: DeleteOptions) async throws
        -> KubernetesObject
    {
        var object = stored.object
        switch options.propagation {
        case .background: break
        case .foreground: add(DeleteOptions.foregroundFinalizer, to: &object)
        case .orphan: add(DeleteOptions.orphanFinalizer, to: &object)
        }
        let grace = gracePeriod(object, served, options)
        if !object.isTerminating {
            let end = KubernetesTime(seconds: KubernetesTime.now.seconds + Int64(grace))
            object.json[path: "metadata", "deletionTimestamp"] = .string(end.description)
            object.json[path: "metadata", "deletionGracePeriodSeconds"] = .int(Int64(grace))
        } else if served.kind.storageName == "pods" {
            // A second deletion may only shorten the time that is left.
            let current = object.json[path: "metadata", "deletionGracePeriodSeconds"]?.int ?? 0
            if options.gracePeriodSeconds != nil, grace < current {
                object.json[path: "metadata", "deletionGracePeriodSeconds"] = .int(Int64(grace))
                object.json[path: "metadata", "deletionTimestamp"] = .string(
                    KubernetesTime(seconds: KubernetesTime.now.seconds + Int64(grace)).description)
            }
        }
        if served.kind.storageName == "namespaces" { object.json[path: "status", "phase"] = "Terminating" }
        if options.isDryRun { return object }
        if Self.isFinalized(object) {
            if served.kind.storageName == "customresourcedefinitions.apiextensions.k8s.io" {
                try await removeInstances(of: stored.object)
            }
            let removed = try await store.remove(stored.key, last: object, expecting: stored.version)
            forget(removed.object, served)
            return removed.view(served.kind)
        }
        guard object != stored.object else { return stored.view(served.kind) }
        return try await store.write(stored.key, object, expecting: .version(stored.version)).view(served.kind)
    }

    /// Only pods have a grace; a pod that has ended needs none.
    private func gracePeriod(_ object: KubernetesObject, _ served: ServedKind, _ options: DeleteOptions) -> Int {
        guard served.kind.storageName == "pods" else { return 0 }
        if ["Succeeded", "Failed"].contains(object.json[path: "status", "phase"]?.string ?? "") { return 0 }
        let own = object.json[path: "spec", "terminationGracePeriodSeconds"]?.int ?? 30
        return min(max(options.gracePeriodSeconds ?? own, 0), 86_400 * 365)
    }

    private func add(_ finalizer: String, to object: inout KubernetesObject) {
        var finalizers = object.json[path: "metadata", "finalizers"]?.array ?? []
        guard !finalizers.contains(.string(finalizer)) else { return }
        finalizers.append(.string(finalizer))
        object.json[path: "metadata", "finalizers"] = .array(finalizers)
    }

    /// Whether nothing keeps a terminating object any longer.
    static func isFinalized(_ object: KubernetesObject) -> Bool {
        guard (object.json[path: "metadata", "finalizers"]?.array ?? []).isEmpty else { return false }
        if object.kind == "Namespace", object.apiVersion == "v1",
            !(object.json[path: "spec", "finalizers"]?.array ?? []).isEmpty
        {
            return false
        }
        return (object.json[path: "metadata", "deletionGracePeriodSeconds"]?.int ?? 0) == 0
    }

    /// What has to follow when an object is gone.
    func forget(_ object: KubernetesObject, _ served: ServedKind) {
        switch served.kind.storageName {
        case "services": for address in clusterAddresses(object) { addresses.release(address) }
        case "customresourcedefinitions.apiextensions.k8s.io": registry.withdraw(definition: object.name)
        default: break
        }
    }

    /// The objects of a kind go with its definition, finalizers or not: nobody could read them any longer.
    private func removeInstances(of definition: KubernetesObject) async throws {
        for stored in store.objects(of: definition.name).objects {
            _ = try? await store.remove(stored.key, last: stored.object, expecting: stored.version)
        }
    }

    // MARK: - Reviews

    /// TokenReview and the access reviews: created, answered, not kept.
    func answer(_ served: ServedKind, _ object: KubernetesObject, _ options: WriteOptions) throws -> KubernetesObject {
        var object = object
        object.json["kind"] = .string(served.kind.kind)
        object.json["apiVersion"] = .string(served.kind.apiVersion)
        object.json[path: "metadata", "creationTimestamp"] = .null
        guard served.kind.kind == "TokenReview" else {
            object.json["status"] = ["allowed": true, "reason": "apus up keeps roles but does not enforce them"]
            return object
        }
        let requested = object.json[path: "spec", "audiences"]?.array?.compactMap(\.string) ?? []
        do throws(TokenAuthority.Refusal) {
            let (user, audiences) = try tokens.verify(
                object.json[path: "spec", "token"]?.string ?? "",
                audiences: requested.isEmpty ? [tokens.issuer] : requested, now: .now)
            object.json["status"] = [
                "authenticated": true, "user": user.json, "audiences": .array(audiences.map { .string($0) }),
            ]
        } catch {
            object.json["status"] = ["authenticated": false, "error": .string(error.description)]
        }
        return object
    }
}
