import Foundation
import MeshAddress
import MeshKubernetes

/// Create, update and patch.
extension LocalAPI {
    /// How often a patch or an unconditional update is tried again when another write was faster.
    private static let conflictRetries = 20

    func create(
        _ kind: ResourceKind, namespace: String?, _ object: KubernetesObject, _ options: WriteOptions
    ) async throws -> WriteResult {
        let served = try self.served(kind)
        if served.isVirtual { return WriteResult(object: try answer(served, object, options)) }
        var object = try accept(object, served, namespace: namespace)
        guard object.resourceVersion.isEmpty else {
            throw StatusError.badRequest("resourceVersion should not be set on objects to be created")
        }
        let generateName = object.json[path: "metadata", "generateName"]?.string ?? ""
        let mustGenerate = object.name.isEmpty && !generateName.isEmpty
        for attempt in 0... {
            if mustGenerate {
                object.json[path: "metadata", "name"] = .string(generateName.prefix(247) + Self.suffix())
            }
            do {
                return try await createNamed(served, object, options)
            } catch let error as StatusError where error.reason == "AlreadyExists" && mustGenerate && attempt < 8 {
                continue
            }
        }
        throw StatusError.alreadyExists(kind, object.name)
    }

    private func createNamed(_ served: ServedKind, _ original: KubernetesObject, _ options: WriteOptions) async throws
        -> WriteResult
    {
        var object = original
        var metadata = object.json["metadata"] ?? [:]
        for field in [
            "selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion",
        ] {
            metadata[field] = nil
        }
        metadata["uid"] = .string(UUID().uuidString.lowercased())
        metadata["creationTimestamp"] = .string(KubernetesTime.now.description)
        metadata["generation"] = served.hasGeneration ? 1 : nil
        object.json["metadata"] = metadata
        prepareStatus(&object, served)
        if served.kind.storageName == "pods" { try preparePod(&object) }
        Defaults.apply(to: &object, served: served)
        var warnings: [String] = []
        let admitted = try await admit(object, old: nil, .create, subresource: nil, served, options)
        object = admitted.object
        warnings += admitted.warnings
        if served.kind.storageName == "customresourcedefinitions.apiextensions.k8s.io" {
            object = CustomDefinition.established(object, now: KubernetesTime.now.description)
        }
        try validate(object, replacing: nil, served)
        let taken = served.kind.storageName == "services" ? try allocateAddresses(&object, replacing: nil) : []
        if options.isDryRun {
            for address in taken { addresses.release(address) }
            return WriteResult(object: object, warnings: warnings)
        }
        do {
            let stored = try await write(object, served, expecting: .absent)
            return WriteResult(object: stored.view(served.kind), warnings: warnings)
        } catch {
            for address in taken { addresses.release(address) }
            throw error
        }
    }

    func update(
        _ kind: ResourceKind, namespace: String?, name: String, _ object: KubernetesObject, subresource: String?,
        _ options: WriteOptions
    ) async throws -> WriteResult {
        let served = try self.served(kind)
        let object = try accept(object, served, namespace: namespace)
        guard object.name == name else {
            throw StatusError.badRequest(
                "the name of the object (\(object.name)) does not match the name on the URL (\(name))")
        }
        return try await change(served, namespace: namespace, name: name, subresource: subresource, options) {
            current in
            if !object.resourceVersion.isEmpty, object.resourceVersion != current.resourceVersion {
                throw StatusError.modified(kind, name)
            }
            return object
        }
    }

    func patch(
        _ kind: ResourceKind, namespace: String?, name: String, subresource: String?, _ patch: PatchDocument,
        _ options: WriteOptions
    ) async throws -> WriteResult {
        let served = try self.served(kind)
        return try await change(served, namespace: namespace, name: name, subresource: subresource, options) {
            current in
            if let version = patch.resourceVersion, version != current.resourceVersion {
                throw StatusError.modified(kind, name)
            }
            let patched = KubernetesObject(try patch.applied(to: current.json))
            guard patched.json.object != nil, patched.name == name else {
                throw StatusError.badRequest("a patch may not change metadata.name")
            }
            return try self.accept(patched, served, namespace: namespace)
        }
    }

    /// Makes the next state from the current one and keeps it, again when another write was faster.
    private func change(
        _ served: ServedKind, namespace: String?, name: String, subresource: String?, _ options: WriteOptions,
        _ make: (KubernetesObject) throws -> KubernetesObject
    ) async throws -> WriteResult {
        for _ in 0..<Self.conflictRetries {
            let stored = try self.stored(served, namespace, name)
            let current = stored.view(served.kind)
            let wanted = try make(current)
            if !wanted.uid.isEmpty, wanted.uid != current.uid {
                throw StatusError.conflict(
                    served.kind, name,
                    "Precondition failed: UID in precondition: \(wanted.uid), UID in object meta: \(current.uid)")
            }
            do {
                return try await replace(stored, current, with: wanted, subresource: subresource, served, options)
            } catch let error as StoreError {
                guard case .conflict = error else { throw StatusError(error, served.kind, name) }
            }
        }
        throw StatusError.modified(served.kind, name)
    }

    private func replace(
        _ stored: StoredObject, _ current: KubernetesObject, with wanted: KubernetesObject, subresource: String?,
        _ served: ServedKind, _ options: WriteOptions
    ) async throws -> WriteResult {
        var object = wanted
        var metadata = wanted.json["metadata"] ?? [:]
        for field in [
            "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation",
            "resourceVersion",
        ] {
            metadata[field] = current.json["metadata"]?[field]
        }
        metadata["managedFields"] = nil
        metadata["selfLink"] = nil
        object.json["metadata"] = metadata
        var warnings: [String] = []
        switch subresource {
        case "status":
            guard served.hasStatus else { throw StatusError.notFound(served.kind, "\(object.name)/status") }
            let status = object.json["status"]
            object = current
            object.json["status"] = status
        case "finalize":
            let finalizers = object.json[path: "spec", "finalizers"]
            object = current
            object.json[path: "spec", "finalizers"] = finalizers
        case nil:
            if served.hasStatus { object.json["status"] = current.json["status"] }
            if served.kind.storageName == "services" { keepAddresses(&object, of: current) }
            Defaults.apply(to: &object, served: served)
            let admitted = try await admit(object, old: current, .update, subresource: nil, served, options)
            object = admitted.object
            warnings = admitted.warnings
            if served.kind.storageName == "customresourcedefinitions.apiextensions.k8s.io" {
                object = CustomDefinition.established(object, now: KubernetesTime.now.description)
            }
            try validate(object, replacing: current, served)
            if served.hasGeneration, Self.content(object) != Self.content(current) {
                let generation = current.json[path: "metadata", "generation"]?.int ?? 1
                object.json[path: "metadata", "generation"] = .int(Int64(generation &+ 1))
            }
        case .some(let other):
            throw StatusError.notFound(served.kind, "\(object.name)/\(other)")
        }
        if current.isTerminating {
            // New finalizers would keep the object beyond what its deleter agreed to.
            let known = Set(current.json[path: "metadata", "finalizers"]?.array ?? [])
            if let finalizers = object.json[path: "metadata", "finalizers"]?.array {
                object.json[path: "metadata", "finalizers"] = .array(finalizers.filter(known.contains))
            }
        }
        if object == current { return WriteResult(object: current, warnings: warnings) }
        let taken =
            subresource == nil && served.kind.storageName == "services"
            ? try allocateAddresses(&object, replacing: current) : []
        if options.isDryRun {
            for address in taken { addresses.release(address) }
            return WriteResult(object: object, warnings: warnings)
        }
        do {
            if object.isTerminating, Self.isFinalized(object) {
                let removed = try await store.remove(stored.key, last: object, expecting: stored.version)
                forget(removed.object, served)
                return WriteResult(object: removed.view(served.kind), warnings: warnings)
            }
            let result = try await write(object, served, expecting: .version(stored.version))
            if served.kind.storageName == "services" {
                for address in clusterAddresses(current) where !clusterAddresses(object).contains(address) {
                    addresses.release(address)
                }
            }
            return WriteResult(object: result.view(served.kind), warnings: warnings)
        } catch {
            for address in taken { addresses.release(address) }
            throw error
        }
    }

    // MARK: - Steps

    /// The object with kind and namespace as the request has them.
    private func accept(_ object: KubernetesObject, _ served: ServedKind, namespace: String?) throws -> KubernetesObject
    {
        var object = object
        guard object.json.object != nil, object.json["metadata"] == nil || object.json["metadata"]?.object != nil else {
            throw StatusError.badRequest("expected a \(served.kind.kind) with metadata")
        }
        if object.kind.isEmpty { object.json["kind"] = .string(served.kind.kind) }
        if object.apiVersion.isEmpty { object.json["apiVersion"] = .string(served.kind.apiVersion) }
        guard object.kind == served.kind.kind, object.apiVersion == served.kind.apiVersion else {
            throw StatusError.badRequest(
                "the object is a \(object.apiVersion) \(object.kind), expected a \(served.kind.apiVersion) \(served.kind.kind)"
            )
        }
        if served.kind.isNamespaced {
            let wanted = namespace ?? "default"
            if let named = object.namespace, !named.isEmpty, named != wanted {
                throw StatusError.badRequest(
                    "the namespace of the object (\(named)) does not match the namespace on the request (\(wanted))")
            }
            object.json[path: "metadata", "namespace"] = .string(wanted)
        } else if let named = object.namespace, !named.isEmpty {
            throw StatusError.badRequest(
                "\(served.kind.plural) have no namespace, but metadata.namespace is '\(named)'")
        }
        guard Self.size(object.json) <= Self.objectLimitBytes else {
            throw StatusError(
                code: 413, reason: "RequestEntityTooLarge",
                message: "\(served.kind.kind) \"\(object.name)\" is larger than \(Self.objectLimitBytes) bytes")
        }
        return object
    }

    private func admit(
        _ object: KubernetesObject, old: KubernetesObject?, _ operation: AdmissionRequest.Operation,
        subresource: String?,
        _ served: ServedKind, _ options: WriteOptions
    ) async throws -> WriteResult {
        // A webhook cannot stand in the way of its own configuration.
        guard served.kind.group != ResourceKind.mutatingWebhookConfiguration.group else {
            return WriteResult(object: object)
        }
        var admitted = try await admission.admit(
            AdmissionRequest(
                kind: served.kind, operation: operation, subresource: subresource, namespace: object.namespace,
                name: object.name,
                object: object, oldObject: old, user: options.user, isDryRun: options.isDryRun))
        guard admitted.object != object else { return admitted }
        for field in [
            "uid", "name", "namespace", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp",
        ] {
            admitted.object.json[path: "metadata", field] = object.json["metadata"]?[field]
        }
        admitted.object.json["apiVersion"] = object.json["apiVersion"]
        admitted.object.json["kind"] = object.json["kind"]
        if served.hasStatus { admitted.object.json["status"] = object.json["status"] }
        Defaults.apply(to: &admitted.object, served: served)
        return admitted
    }

    private func validate(_ object: KubernetesObject, replacing old: KubernetesObject?, _ served: ServedKind) throws {
        var errors = Validation.errors(object, served: served, settings: settings)
        if let old { errors += Immutability.errors(object, replacing: old, served: served) }
        guard errors.isEmpty else { throw StatusError.invalid(served.kind, object.name, errors) }
    }

    /// Keeps the object, provided that its namespace is there to stay.
    private func write(_ object: KubernetesObject, _ served: ServedKind, expecting: WriteExpectation) async throws
        -> StoredObject
    {
        let namespace = served.kind.isNamespaced ? object.namespace : nil
        let name = object.name
        do {
            let stored = try await store.write(
                ObjectKey(served.kind, namespace: namespace, name: name), object, expecting: expecting
            ) { lookup in
                guard expecting == .absent, let namespace else { return }
                guard let found = lookup(ObjectKey(.namespace, namespace: nil, name: namespace)) else {
                    throw StatusError.notFound(.namespace, namespace)
                }
                guard !found.object.isTerminating else {
                    throw StatusError.forbidden(
                        served.kind, name,
                        "unable to create new content in namespace \(namespace) because it is being terminated")
                }
            }
            if served.kind.storageName == "customresourcedefinitions.apiextensions.k8s.io",
                let definition = CustomDefinition(stored.object)
            {
                registry.declare(definition)
            }
            return stored
        } catch let error as StoreError where expecting == .absent {
            throw StatusError(error, served.kind, name)
        }
    }

    private func prepareStatus(_ object: inout KubernetesObject, _ served: ServedKind) {
        switch served.kind.storageName {
        case "nodes": break
        case "namespaces": object.json["status"] = ["phase": "Active"]
        case "pods":
            object.json["status"] = ["phase": "Pending", "qosClass": .string(Self.qualityClass(object.json["spec"]))]
        case "services": object.json["status"] = ["loadBalancer": [:]]
        default: if served.hasStatus { object.json["status"] = nil }
        }
    }

    /// The service account that Kubernetes' admission gives a pod, and the only node there is.
    private func preparePod(_ object: inout KubernetesObject) throws {
        guard object.json["spec"]?.object != nil else { return }
        let spec = object.json["spec"]
        let name = spec?["serviceAccountName"]?.string ?? spec?["serviceAccount"]?.string ?? ""
        let account = name.isEmpty ? "default" : name
        if account != "default",
            store.object(ObjectKey(.serviceAccount, namespace: object.namespace, name: account)) == nil
        {
            throw StatusError.forbidden(
                .pod, object.name,
                "error looking up service account \(object.namespace ?? "")/\(account): serviceaccount \"\(account)\" not found"
            )
        }
        object.json[path: "spec", "serviceAccountName"] = .string(account)
        object.json[path: "spec", "serviceAccount"] = .string(account)
        object.json[path: "spec", "nodeName"].fill(.string(settings.nodeName))
    }

    private static func qualityClass(_ spec: JSONValue?) -> String {
        let containers = (spec?["containers"]?.array ?? []) + (spec?["initContainers"]?.array ?? [])
        func amounts(_ container: JSONValue, _ name: String) -> [String: JSONValue] {
            (container["resources"]?[name]?.object ?? [:]).filter { ["cpu", "memory"].contains($0.key) }
        }
        if containers.allSatisfy({ amounts($0, "limits").isEmpty && amounts($0, "requests").isEmpty }) {
            return "BestEffort"
        }
        let isGuaranteed = containers.allSatisfy { container in
            let limits = amounts(container, "limits")
            let requests = amounts(container, "requests")
            return limits.count == 2 && requests.allSatisfy { limits[$0.key] == $0.value }
        }
        return isGuaranteed ? "Guaranteed" : "Burstable"
    }

    /// What `metadata.generation` counts the changes of.
    private static func content(_ object: KubernetesObject) -> JSONValue {
        var content = object.json
        content["metadata"] = nil
        content["status"] = nil
        return content
    }

    /// About as long as the text of a value.
    static func size(_ value: JSONValue) -> Int {
        switch value {
        case .null, .bool: 4
        case .int, .double: 8
        case .string(let text): text.utf8.count + 2
        case .array(let elements): elements.reduce(2) { $0 + size($1) + 1 }
        case .object(let members): members.reduce(2) { $0 + $1.key.utf8.count + size($1.value) + 4 }
        }
    }

    /// Five letters and digits that spell nothing, as Kubernetes appends them to `generateName`.
    static func suffix() -> String {
        let alphabet = Array("bcdfghjklmnpqrstvwxz2456789")
        return String((0..<5).map { _ in alphabet[Int.random(in: 0..<alphabet.count)] })
    }

    // MARK: - Service addresses

    func clusterAddresses(_ service: KubernetesObject) -> [IPAddress] {
        guard let text = service.json[path: "spec", "clusterIP"]?.string, let address = IPAddress(text) else {
            return []
        }
        return [address]
    }

    /// An update that leaves the address out keeps the one that is there.
    private func keepAddresses(_ object: inout KubernetesObject, of current: KubernetesObject) {
        guard object.json[path: "spec", "type"] != "ExternalName",
            (object.json[path: "spec", "clusterIP"]?.string ?? "").isEmpty
        else { return }
        for field in ["clusterIP", "clusterIPs"] { object.json[path: "spec", field] = current.json["spec"]?[field] }
    }

    /// Gives a Service its address; returns what was taken for it.
    private func allocateAddresses(_ object: inout KubernetesObject, replacing current: KubernetesObject?) throws
        -> [IPAddress]
    {
        if object.json[path: "spec", "type"] == "ExternalName" {
            object.json[path: "spec", "clusterIP"] = nil
            object.json[path: "spec", "clusterIPs"] = nil
            return []
        }
        let wanted = object.json[path: "spec", "clusterIP"]?.string ?? ""
        if wanted == "None" {
            object.json[path: "spec", "clusterIPs"] = ["None"]
            return []
        }
        if let current, let address = IPAddress(wanted), clusterAddresses(current).contains(address) { return [] }
        if wanted.isEmpty {
            guard let address = addresses.allocate() else {
                throw StatusError.internalError(
                    "failed to allocate a service address: all of \(settings.serviceSubnet) are taken")
            }
            object.json[path: "spec", "clusterIP"] = .string(address.description)
            object.json[path: "spec", "clusterIPs"] = [.string(address.description)]
            return [address]
        }
        guard let address = IPAddress(wanted), addresses.contains(address) else {
            throw StatusError.invalid(
                .service, object.name,
                [
                    .invalid(
                        "spec.clusterIP", .string(wanted),
                        "must be an address of \(settings.serviceSubnet), None, or left out")
                ])
        }
        guard addresses.reserve(address) else {
            throw StatusError.invalid(
                .service, object.name, [.invalid("spec.clusterIP", .string(wanted), "provided IP is already allocated")]
            )
        }
        object.json[path: "spec", "clusterIPs"] = [.string(wanted)]
        return [address]
    }
}
