import Logging
import MeshKubernetes

/// Empties a namespace that is being deleted, then lets it go.
struct NamespaceController: Sendable {
    var api: LocalAPI
    var logger: Logger
    private static let lookAgainMilliseconds = 200

    init(api: LocalAPI, logger: Logger) {
        self.api = api
        self.logger = logger
    }

    func run() async throws {
        try await ControlLoop(
            name: "namespace", api: api, logger: logger, triggers: [.itself(.namespace)], reconcile: reconcile
        ).run()
    }

    private func reconcile(_ key: ObjectKey) async throws -> Int? {
        guard let namespace = api.store.object(key)?.object, namespace.isTerminating else { return nil }
        var isEmpty = true
        for resource in api.store.resourceNames(in: key.name) {
            guard let served = api.registry.served(storageName: resource) else { continue }
            for stored in api.store.objects(of: resource, namespace: key.name).objects {
                isEmpty = false
                guard !stored.object.isTerminating else { continue }
                _ = try? await api.delete(
                    served.kind, namespace: key.name, name: stored.key.name, gracePeriodSeconds: nil,
                    uid: stored.object.uid)
            }
        }
        guard isEmpty || api.store.resourceNames(in: key.name).isEmpty else { return Self.lookAgainMilliseconds }
        var finalized = namespace
        finalized.json[path: "spec", "finalizers"] = []
        finalized.json[path: "metadata", "resourceVersion"] = nil
        _ = try await api.update(.namespace, finalized, subresource: "finalize")
        return nil
    }
}

/// Gives every namespace its `default` service account and the authority's certificate.
struct ServiceAccountController: Sendable {
    var api: LocalAPI
    var authorityPEM: String
    var logger: Logger

    static let authorityConfigMap = "kube-root-ca.crt"

    init(api: LocalAPI, authorityPEM: String, logger: Logger) {
        self.api = api
        self.authorityPEM = authorityPEM
        self.logger = logger
    }

    func run() async throws {
        func owner(of kind: ResourceKind, _ name: String) -> ControlLoop.Trigger {
            ControlLoop.Trigger(kind: kind) { event in
                guard event.stored.key.name == name else { return [] }
                return [ObjectKey(.namespace, namespace: nil, name: event.stored.key.namespace)]
            }
        }
        try await ControlLoop(
            name: "serviceaccount", api: api, logger: logger,
            triggers: [
                .itself(.namespace), owner(of: .serviceAccount, "default"),
                owner(of: .configMap, Self.authorityConfigMap),
            ],
            reconcile: reconcile
        ).run()
    }

    private func reconcile(_ key: ObjectKey) async throws -> Int? {
        guard let namespace = api.store.object(key)?.object, !namespace.isTerminating else { return nil }
        let metadata: (String) -> JSONValue = { ["name": .string($0), "namespace": .string(key.name)] }
        if api.store.object(ObjectKey(.serviceAccount, namespace: key.name, name: "default")) == nil {
            _ = try await api.create(
                .serviceAccount,
                KubernetesObject(["apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("default")]))
        }
        let data: JSONValue = ["ca.crt": .string(authorityPEM)]
        let kept = api.store.object(ObjectKey(.configMap, namespace: key.name, name: Self.authorityConfigMap))?.object
        if kept == nil {
            _ = try await api.create(
                .configMap,
                KubernetesObject([
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(Self.authorityConfigMap),
                    "data": data,
                ]))
        } else if kept?.json["data"] != data {
            _ = try await api.patch(
                .configMap, namespace: key.name, name: Self.authorityConfigMap, subresource: nil,
                .json([["op": "add", "path": "/data", "value": data]]))
        }
        return nil
    }
}

/// Removes Events after an hour, and the oldest when there are too many.
struct EventExpiry: Sendable {
    var api: LocalAPI
    static let lifetimeSeconds: Int64 = 3_600
    static let limit = 5_000
    private static let intervalSeconds = 30

    init(api: LocalAPI) { self.api = api }

    func run() async throws {
        while true {
            try await Task.sleep(for: .seconds(Self.intervalSeconds))
            let events = api.store.objects(of: ResourceKind.event.storageName).objects
            for stored in Self.expired(events, now: KubernetesTime.now.seconds) {
                _ = try? await api.store.remove(stored.key, last: stored.object, expecting: stored.version)
            }
        }
    }

    static func expired(_ events: [StoredObject], now: Int64) -> [StoredObject] {
        func last(_ event: StoredObject) -> Int64 {
            let json = event.object.json
            let times = [
                json["lastTimestamp"], json["eventTime"], json[path: "series", "lastObservedTime"],
                json[path: "metadata", "creationTimestamp"],
            ]
            return times.compactMap { $0?.string.flatMap { KubernetesTime($0) }?.seconds }.first ?? 0
        }
        let dated = events.map { (event: $0, last: last($0)) }.sorted { $0.last < $1.last }
        let old = dated.prefix { now - $0.last > lifetimeSeconds }
        return dated.prefix(max(old.count, events.count - limit)).map(\.event)
    }
}
