package import MeshKubernetes

/// The API of `apus up` within its own process: what its HTTP server, its controllers and its pod runner share.
///
/// Every kind is kept as the document that it is; what Kubernetes does to it on the way (defaults, admission, validation,
/// generation, grace, finalizers) is done here, in the order in which Kubernetes does it.
package final class LocalAPI: KubernetesAPI {
    package let store: ObjectStore
    package let settings: LocalAPISettings
    package let addresses: ServiceAddresses
    let registry = ResourceRegistry()
    let tokens: TokenAuthority
    let admission: MutatingAdmission

    /// As JSON; larger objects are refused.
    static let objectLimitBytes = 1_572_864

    package init(store: ObjectStore, settings: LocalAPISettings) throws {
        self.store = store
        self.settings = settings
        addresses = try ServiceAddresses(subnet: settings.serviceSubnet)
        tokens = try TokenAuthority(store: store, clusterDomain: settings.clusterDomain)
        admission = MutatingAdmission(store: store)
        for stored in store.objects(of: ResourceKind.customResourceDefinition.storageName).objects {
            if let definition = CustomDefinition(stored.object) { registry.declare(definition) }
        }
        for stored in store.objects(of: ResourceKind.service.storageName).objects {
            for address in clusterAddresses(stored.object) { _ = addresses.reserve(address) }
        }
    }

    // MARK: - Reading

    package func get(_ kind: ResourceKind, namespace: String?, name: String) async throws -> KubernetesObject {
        try stored(try served(kind), namespace, name).view(kind)
    }

    package func list(
        _ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?
    ) async throws -> (items: [KubernetesObject], resourceVersion: String) {
        let result = try select(
            served(kind), namespace: namespace, ObjectFilter(labelSelector: labelSelector, fieldSelector: fieldSelector)
        )
        return (result.objects.map { $0.view(kind) }, String(result.version))
    }

    package func watch(
        _ kind: ResourceKind, namespace: String?, labelSelector: String?, fieldSelector: String?,
        resourceVersion: String
    ) -> AsyncThrowingStream<WatchEvent, any Error> {
        do {
            let watch = try openWatch(
                served(kind), namespace: namespace,
                ObjectFilter(labelSelector: labelSelector, fieldSelector: fieldSelector),
                resourceVersion: resourceVersion,
                wantsBookmarks: true)
            let cursor = WatchCursor(watch)
            return AsyncThrowingStream {
                guard let event = try await cursor.next() else { return nil }
                return WatchEvent(
                    event.change, event.change == .bookmark ? event.stored.bookmark(kind) : event.stored.view(kind))
            }
        } catch {
            return AsyncThrowingStream { throw error }
        }
    }

    func served(_ kind: ResourceKind) throws -> ServedKind {
        guard let served = registry.served(kind) else {
            throw StatusError(
                code: 404, reason: "NotFound", message: "the server does not serve \(kind.storageName)/\(kind.version)")
        }
        return served
    }

    func stored(_ served: ServedKind, _ namespace: String?, _ name: String) throws -> StoredObject {
        guard let stored = store.object(ObjectKey(served.kind, namespace: namespace, name: name)) else {
            throw StatusError.notFound(served.kind, name)
        }
        return stored
    }

    func select(
        _ served: ServedKind, namespace: String?, _ filter: ObjectFilter
    ) -> (objects: [StoredObject], version: Int64) {
        let scope = served.kind.isNamespaced ? namespace : nil
        let (objects, version) = store.objects(of: served.kind.storageName, namespace: scope)
        return (filter.isEmpty ? objects : objects.filter { filter.matches($0.object) }, version)
    }

    /// With an empty version, or `0`, the present objects come first, as additions.
    func openWatch(
        _ served: ServedKind, namespace: String?, _ filter: ObjectFilter, resourceVersion: String, wantsBookmarks: Bool
    ) throws -> StoreWatch {
        let resource = served.kind.storageName
        let scope = served.kind.isNamespaced ? namespace : nil
        var matching: (@Sendable (KubernetesObject) -> Bool)?
        if !filter.isEmpty { matching = { filter.matches($0) } }
        do {
            if resourceVersion.isEmpty || resourceVersion == "0" {
                let (objects, version) = select(served, namespace: namespace, filter)
                let watch = try store.watch(
                    resource, namespace: scope, after: version, wantsBookmarks: wantsBookmarks, matching: matching)
                return StoreWatch(
                    backlog: objects.map { StoreEvent(change: .added, stored: $0) } + watch.backlog, live: watch.live,
                    end: watch.end)
            }
            guard let version = Int64(resourceVersion) else {
                throw StatusError.badRequest(
                    "resourceVersion '\(resourceVersion)': expected the version of a list or an object")
            }
            return try store.watch(
                resource, namespace: scope, after: version, wantsBookmarks: wantsBookmarks, matching: matching)
        } catch let error as StoreError {
            throw StatusError(error, served.kind, "")
        }
    }

    // MARK: - Writing

    package func create(_ kind: ResourceKind, _ object: KubernetesObject) async throws -> KubernetesObject {
        try await create(kind, namespace: object.namespace, object, .platform).object
    }

    package func update(_ kind: ResourceKind, _ object: KubernetesObject, subresource: String?) async throws
        -> KubernetesObject
    {
        try await update(
            kind, namespace: object.namespace, name: object.name, object, subresource: subresource, .platform
        ).object
    }

    package func patch(
        _ kind: ResourceKind, namespace: String?, name: String, subresource: String?, _ patch: KubernetesPatch
    ) async throws -> KubernetesObject {
        let change: PatchDocument
        switch patch {
        case .merge(let document): change = .merge(document)
        case .json(let document): change = .json(document)
        }
        return try await self.patch(kind, namespace: namespace, name: name, subresource: subresource, change, .platform)
            .object
    }

    @discardableResult
    package func delete(
        _ kind: ResourceKind, namespace: String?, name: String, gracePeriodSeconds: Int?, uid: String?
    ) async throws -> KubernetesObject {
        try await delete(
            kind, namespace: namespace, name: name, DeleteOptions(gracePeriodSeconds: gracePeriodSeconds, uid: uid))
    }

    // MARK: - Tokens

    /// The `token` subresource of a service account. With a pod the token ends with it. Seconds are held within 10 minutes and
    /// one day; no audience means the API itself.
    package func requestToken(
        namespace: String, serviceAccount: String, audiences: [String], expirationSeconds: Int,
        pod: PodReference?
    ) async throws -> (token: String, expires: KubernetesTime) {
        let account = try stored(served(.serviceAccount), namespace, serviceAccount).object
        if let pod {
            let current = try stored(served(.pod), namespace, pod.name).object
            guard current.uid == pod.uid else {
                throw StatusError.conflict(
                    .pod, pod.name, "the UID in the bound object reference (\(pod.uid)) does not match it")
            }
            let name = current.json[path: "spec", "serviceAccountName"]?.string ?? "default"
            guard name == serviceAccount else {
                throw StatusError.badRequest("pod \(pod.name) runs as service account \(name), not \(serviceAccount)")
            }
        }
        let range = TokenAuthority.secondsRange
        return try tokens.sign(
            TokenAuthority.Request(
                namespace: namespace, serviceAccount: serviceAccount, serviceAccountUID: account.uid,
                audiences: audiences.isEmpty ? [tokens.issuer] : audiences,
                seconds: min(max(expirationSeconds, range.lowerBound), range.upperBound),
                pod: pod.map { ($0.name, $0.uid) }),
            now: .now)
    }
}

/// Which objects of a kind a request is about.
struct ObjectFilter: Sendable {
    var labels: LabelSelector?
    var fields: FieldSelector?

    init(labelSelector: String?, fieldSelector: String?) throws {
        do {
            if let labelSelector, !labelSelector.isEmpty { labels = try LabelSelector(parsing: labelSelector) }
            if let fieldSelector, !fieldSelector.isEmpty { fields = try FieldSelector(parsing: fieldSelector) }
        } catch {
            throw StatusError.badRequest("unable to parse the selector: \(error)")
        }
    }

    var isEmpty: Bool { labels == nil && fields == nil }

    func matches(_ object: KubernetesObject) -> Bool {
        if let labels, !labels.matches(object.labels) { return false }
        if let fields, !fields.matches(object) { return false }
        return true
    }
}

/// Reads a storage watch from its beginning, one event at a time.
actor WatchCursor {
    private var backlog: [StoreEvent]
    private var iterator: AsyncThrowingStream<StoreEvent, any Error>.Iterator

    init(_ watch: StoreWatch) {
        backlog = watch.backlog.reversed()
        iterator = watch.live.makeAsyncIterator()
    }

    func next() async throws -> StoreEvent? {
        if let event = backlog.popLast() { return event }
        var live = iterator
        let event = try await live.next(isolation: self)
        iterator = live
        return event
    }
}

extension StoredObject {
    /// As a client of this version sees it: the versions of a custom kind differ in name alone.
    func view(_ kind: ResourceKind) -> KubernetesObject {
        guard object.apiVersion != kind.apiVersion else { return object }
        var view = object
        view.json["apiVersion"] = .string(kind.apiVersion)
        return view
    }

    func bookmark(_ kind: ResourceKind) -> KubernetesObject {
        KubernetesObject([
            "kind": .string(kind.kind), "apiVersion": .string(kind.apiVersion),
            "metadata": ["resourceVersion": .string(String(version)), "creationTimestamp": nil],
        ])
    }
}
