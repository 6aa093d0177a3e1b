import Logging
import MeshKubernetes

/// Tells, for every Service with a selector, which pods serve it.
struct EndpointSliceController: Sendable {
    var api: LocalAPI
    var logger: Logger

    static let manager = "endpointslice-controller.k8s.io"
    static let headlessLabel = "service.kubernetes.io/headless"

    init(api: LocalAPI, logger: Logger) {
        self.api = api
        self.logger = logger
    }

    func run() async throws {
        let store = api.store
        let pods = ControlLoop.Trigger(kind: .pod) { event in
            let objects = [event.stored.object, event.previous?.object].compactMap { $0 }
            // A change that no endpoint tells of, such as a restart count, concerns nobody.
            if event.change == .modified, objects.count == 2, Self.view(objects[0]) == Self.view(objects[1]) {
                return []
            }
            let labels = objects.map(\.labels)
            return store.objects(of: ResourceKind.service.storageName, namespace: event.stored.key.namespace).objects
                .filter { service in
                    guard let selector = Self.selector(service.object) else { return false }
                    return labels.contains { selector.matches($0) }
                }.map(\.key)
        }
        let slices = ControlLoop.Trigger(kind: .endpointSlice) { event in
            guard event.stored.object.labels[Kubernetes.EndpointSlice.managedByLabel] == Self.manager,
                let name = event.stored.object.labels[Kubernetes.EndpointSlice.serviceLabel]
            else { return [] }
            return [ObjectKey(.service, namespace: event.stored.key.namespace, name: name)]
        }
        try await ControlLoop(
            name: "endpointslice", api: api, logger: logger, triggers: [.itself(.service), pods, slices],
            reconcile: reconcile
        ).run()
    }

    /// What of a pod an endpoint depends on.
    private static func view(_ pod: KubernetesObject) -> [JSONValue?] {
        let state = PodState(pod)
        return [
            pod.json["metadata"]?["labels"], pod.json[path: "status", "podIP"], .bool(state.isReady),
            .bool(state.isFinished),
            .bool(state.isTerminating),
        ]
    }

    /// Nil for a Service whose endpoints are somebody else's business.
    private static func selector(_ service: KubernetesObject) -> LabelSelector? {
        guard service.json[path: "spec", "type"] != "ExternalName",
            let labels = service.json[path: "spec", "selector"]?.object?.compactMapValues(\.string), !labels.isEmpty
        else { return nil }
        return LabelSelector(matchLabels: labels)
    }

    private func reconcile(_ key: ObjectKey) async throws -> Int? {
        let present = api.store.objects(of: ResourceKind.endpointSlice.storageName, namespace: key.namespace).objects
            .map(\.object).filter {
                $0.labels[Kubernetes.EndpointSlice.serviceLabel] == key.name
                    && $0.labels[Kubernetes.EndpointSlice.managedByLabel] == Self.manager
            }
        guard let service = api.store.object(key)?.object, !service.isTerminating, let selector = Self.selector(service)
        else {
            for slice in present {
                _ = try? await api.delete(
                    .endpointSlice, namespace: key.namespace, name: slice.name, gracePeriodSeconds: nil, uid: slice.uid)
            }
            return nil
        }
        let pods = api.store.objects(of: ResourceKind.pod.storageName, namespace: key.namespace).objects.map(\.object)
            .filter { selector.matches($0.labels) }
        let plan = SlicePlan(
            ServiceEndpoints.groups(service, pods),
            present: present.map {
                SlicePlan.Slice(
                    name: $0.name, ports: $0.json["ports"] ?? [], endpoints: $0.json["endpoints"]?.array ?? [])
            })
        // What goes is told first: a caller that fails for a moment is worse than one that finds fewer endpoints.
        for slice in plan.update {
            guard var object = present.first(where: { $0.name == slice.name }) else { continue }
            object.json["endpoints"] = .array(slice.endpoints)
            object.json[path: "metadata", "resourceVersion"] = nil
            _ = try await api.update(.endpointSlice, object, subresource: nil)
        }
        for name in plan.delete {
            _ = try? await api.delete(
                .endpointSlice, namespace: key.namespace, name: name, gracePeriodSeconds: nil, uid: nil)
        }
        for group in plan.create {
            var labels: JSONValue = [
                Kubernetes.EndpointSlice.serviceLabel: .string(key.name),
                Kubernetes.EndpointSlice.managedByLabel: .string(Self.manager),
            ]
            if service.json[path: "spec", "clusterIP"] == "None" { labels[Self.headlessLabel] = "" }
            _ = try await api.create(
                .endpointSlice,
                KubernetesObject([
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": [
                        "generateName": .string(key.name + "-"), "namespace": .string(key.namespace), "labels": labels,
                        "ownerReferences": [OwnedObjects.reference(to: service)],
                    ],
                    "addressType": "IPv4", "endpoints": .array(group.endpoints), "ports": group.ports,
                ]))
        }
        return nil
    }
}
