extension Kubernetes {
    package struct Service: HasEmpty, Sendable {
        @OrEmpty package var apiVersion: String
        @OrEmpty package var kind: String
        @OrEmpty package var metadata: ObjectMeta
        @OrEmpty package var spec: ServiceSpec

        package init() {}
    }

    package struct ServiceSpec: HasEmpty, Sendable {
        /// `ClusterIP` when absent, `NodePort`, `LoadBalancer` or `ExternalName`.
        package var type: String?
        /// `None` for a headless service.
        package var clusterIP: String?
        @OrEmpty package var clusterIPs: [String]
        @OrEmpty package var ports: [ServicePort]
        @OrEmpty package var selector: [String: String]
        package var externalName: String?
        @OrEmpty package var externalIPs: [String]
        package var publishNotReadyAddresses: Bool?
        package var sessionAffinity: String?
        package var sessionAffinityConfig: JSONValue?
        @OrEmpty package var ipFamilies: [String]
        package var ipFamilyPolicy: String?
        package var internalTrafficPolicy: String?

        package init() {}

        package var isHeadless: Bool { clusterIP == "None" }
    }

    package struct ServicePort: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var port: Int
        /// The same as `port` when absent; a text names a container's port.
        package var targetPort: IntOrString?
        /// `TCP` when absent.
        package var `protocol`: String?
        package var appProtocol: String?
        package var nodePort: Int?

        package init() {}
    }

    package struct EndpointSlice: HasEmpty, Sendable {
        package static let serviceLabel = "kubernetes.io/service-name"
        package static let managedByLabel = "endpointslice.kubernetes.io/managed-by"

        @OrEmpty package var apiVersion: String
        @OrEmpty package var kind: String
        @OrEmpty package var metadata: ObjectMeta
        /// `IPv4`, `IPv6` or `FQDN`.
        @OrEmpty package var addressType: String
        @OrEmpty package var endpoints: [Endpoint]
        @OrEmpty package var ports: [EndpointPort]

        package init() {}
    }

    package struct Endpoint: HasEmpty, Sendable {
        @OrEmpty package var addresses: [String]
        @OrEmpty package var conditions: EndpointConditions
        package var hostname: String?
        package var targetRef: ObjectReference?
        package var nodeName: String?
        package var zone: String?

        package init() {}
    }

    package struct EndpointConditions: HasEmpty, Sendable {
        /// Unknown counts as ready.
        package var ready: Bool?
        package var serving: Bool?
        package var terminating: Bool?

        package init() {}
    }

    package struct EndpointPort: HasEmpty, Sendable {
        @OrEmpty package var name: String
        package var port: Int?
        package var `protocol`: String?
        package var appProtocol: String?

        package init() {}
    }
}
