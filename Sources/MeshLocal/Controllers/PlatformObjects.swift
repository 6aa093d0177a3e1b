import MeshAddress
import MeshKubernetes

/// The objects that are there from the start.
struct PlatformObjects: Sendable {
    var api: LocalAPI

    /// The permanent namespaces, and the `kubernetes` Service with the addresses at which pods reach the API server.
    func install(apiServers: [SocketAddress]) async throws {
        for name in LocalAPI.permanentNamespaces.sorted() {
            try await ensure(
                .namespace,
                KubernetesObject(["apiVersion": "v1", "kind": "Namespace", "metadata": ["name": .string(name)]]))
        }
        let labels: JSONValue = ["component": "apiserver", "provider": "kubernetes"]
        try await ensure(
            .service,
            KubernetesObject([
                "apiVersion": "v1", "kind": "Service",
                "metadata": ["name": "kubernetes", "namespace": "default", "labels": labels],
                "spec": [
                    "clusterIP": .string(api.addresses.platform.description),
                    "ports": [
                        [
                            "name": "https", "port": 443, "targetPort": .int(Int64(apiServers.first?.port ?? 6443)),
                            "protocol": "TCP",
                        ]
                    ],
                ],
            ]))
        guard let port = apiServers.first?.port else { return }
        try await replace(
            .endpointSlice,
            KubernetesObject([
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": [
                    "name": "kubernetes", "namespace": "default",
                    "labels": [Kubernetes.EndpointSlice.serviceLabel: "kubernetes"],
                ],
                "addressType": "IPv4",
                "endpoints": .array(
                    apiServers.filter { $0.ip.isV4 }.map {
                        [
                            "addresses": [.string($0.ip.description)],
                            "conditions": ["ready": true, "serving": true, "terminating": false],
                        ]
                    }),
                "ports": [["name": "https", "port": .int(Int64(port)), "protocol": "TCP"]],
            ]))
    }

    private func ensure(_ kind: ResourceKind, _ object: KubernetesObject) async throws {
        guard api.store.object(ObjectKey(kind, namespace: object.namespace, name: object.name)) == nil else { return }
        _ = try await api.create(kind, object)
    }

    private func replace(_ kind: ResourceKind, _ object: KubernetesObject) async throws {
        if api.store.object(ObjectKey(kind, namespace: object.namespace, name: object.name)) == nil {
            _ = try await api.create(kind, object)
        } else {
            _ = try await api.update(kind, object, subresource: nil)
        }
    }
}
