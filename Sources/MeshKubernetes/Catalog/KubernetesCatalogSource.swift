package import Logging
package import MeshCore
import NIOCore
import Synchronization

/// The catalog out of the Kubernetes API: five informers, one reducer, no delay of its own.
package final class KubernetesCatalogSource: CatalogSource {
    private let api: any KubernetesAPI
    private let logger: Logger
    private let shared: Mutex<Shared>
    private let pods: Informer<PodView>
    private let services: Informer<ServiceView>
    private let slices: Informer<EndpointSliceView>
    private let namespaces: Informer<NamespaceView>
    private let settingsMap: Informer<[String: String]>

    private struct Shared: Sendable {
        var reducer: CatalogReducer
        var settings: SettingsReader
        /// The informers whose first list has not come yet.
        var missing: Set<String>
        var hasToldSettings = false
    }

    /// - Parameter settings: what is in force as long as the platform's own settings say nothing else; its trust domain
    ///   is the one of all identities.
    package init(
        api: any KubernetesAPI, settings: MeshSettings, installationNamespace: String = MeshInstallation.namespace,
        logger: Logger = Logger(label: "catalog")
    ) {
        self.api = api
        self.logger = logger
        pods = Informer(api: api, kind: .pod, logger: logger) { PodView($0) }
        services = Informer(api: api, kind: .service, logger: logger) { ServiceView($0) }
        slices = Informer(api: api, kind: .endpointSlice, logger: logger) { EndpointSliceView($0) }
        namespaces = Informer(api: api, kind: .namespace, logger: logger) { NamespaceView($0) }
        settingsMap = Informer(
            api: api, kind: .configMap, namespace: installationNamespace,
            fieldSelector: "metadata.name=\(MeshInstallation.settingsName)", logger: logger
        ) { ($0.json["data"]?.object ?? [:]).compactMapValues(\.string) }
        shared = Mutex(
            Shared(
                reducer: CatalogReducer(trustDomain: settings.trustDomain), settings: SettingsReader(initial: settings),
                missing: ["pods", "services", "endpointslices", "namespaces", "settings"]))
    }

    /// How each informer is doing, by the kind it follows.
    package var informers: [(name: String, status: InformerStatus)] {
        [
            ("pods", pods.status), ("services", services.status), ("endpointslices", slices.status),
            ("namespaces", namespaces.status), ("settings", settingsMap.status),
        ]
    }

    /// Whether everything that existed at the start has been delivered.
    package var isSynchronized: Bool { shared.withLock { $0.missing.isEmpty } }

    package func run(deliver: @escaping @Sendable ([CatalogEvent], UInt64) -> Void) async throws {
        let reporter = ProblemReporter(api: api, logger: logger)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await reporter.run() }
            group.addTask { [self] in
                try await pods.run { batch in
                    reduce(batch, "pods", deliver) {
                        $1.apply($0, removed: { .podRemoved($0.name) }, changed: { .pod($0) })
                    }
                }
            }
            group.addTask { [self] in
                try await services.run { batch in
                    for case .changed(let old, let view) in batch.changes where old?.problems != view.problems {
                        reporter.report(view)
                    }
                    reduce(batch, "services", deliver) {
                        $1.apply($0, removed: { .serviceRemoved($0.service.name) }, changed: { .service($0) })
                    }
                }
            }
            group.addTask { [self] in
                try await slices.run { batch in
                    reduce(batch, "endpointslices", deliver) {
                        $1.apply($0, removed: { .sliceRemoved($0.name) }, changed: { .slice($0) })
                    }
                }
            }
            group.addTask { [self] in
                try await namespaces.run { batch in
                    change(batch, "namespaces", deliver) { change, settings in
                        switch change {
                        case .changed(_, let view): settings.set(namespace: view.name, plaintext: view.plaintext)
                        case .removed(let view): settings.set(namespace: view.name, plaintext: nil)
                        }
                    }
                }
            }
            group.addTask { [self] in
                try await settingsMap.run { batch in
                    change(batch, "settings", deliver) { change, settings in
                        switch change {
                        case .changed(_, let data): settings.set(data: data)
                        case .removed: settings.set(data: nil)
                        }
                    }
                }
            }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    /// One batch of the catalog's own objects. The delivery stays within the lock, so that events leave in their order.
    private func reduce<Value>(
        _ batch: InformerBatch<Value>, _ name: String, _ deliver: ([CatalogEvent], UInt64) -> Void,
        _ apply: (InformerChange<Value>, inout CatalogReducer) -> [CatalogEvent]
    ) {
        shared.withLock { shared in
            var events = batch.changes.flatMap { apply($0, &shared.reducer) }
            events += synchronize(name, batch.isWholeList, &shared)
            if !events.isEmpty { deliver(events, batch.arrivedNanoseconds) }
        }
    }

    private func change<Value>(
        _ batch: InformerBatch<Value>, _ name: String, _ deliver: ([CatalogEvent], UInt64) -> Void,
        _ apply: (InformerChange<Value>, inout SettingsReader) -> [AnnotationProblem]
    ) {
        shared.withLock { shared in
            let before = shared.settings.settings
            for problem in batch.changes.flatMap({ apply($0, &shared.settings) }) {
                logger.warning("a setting of the mesh is ignored", metadata: ["problem": "\(problem)"])
            }
            var events: [CatalogEvent] = []
            if shared.settings.settings != before || !shared.hasToldSettings {
                shared.hasToldSettings = true
                events.append(.settings(shared.settings.settings))
            }
            events += synchronize(name, batch.isWholeList, &shared)
            if !events.isEmpty { deliver(events, batch.arrivedNanoseconds) }
        }
    }

    private func synchronize(_ name: String, _ isWholeList: Bool, _ shared: inout Shared) -> [CatalogEvent] {
        guard isWholeList, shared.missing.remove(name) != nil, shared.missing.isEmpty else { return [] }
        return [.synchronized]
    }
}

private struct NamespaceView: Sendable {
    let name: String
    let plaintext: String?

    init(_ object: KubernetesObject) {
        name = object.name
        plaintext = object.annotations[MeshAnnotation.plaintext]
    }
}

extension CatalogReducer {
    fileprivate mutating func apply<Value>(
        _ change: InformerChange<Value>, removed: (Value) -> Input, changed: (Value) -> Input
    ) -> [CatalogEvent] {
        switch change {
        case .changed(_, let value): apply(changed(value))
        case .removed(let value): apply(removed(value))
        }
    }
}
