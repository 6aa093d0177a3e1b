package import MeshAddress

/// A running pod, as its peers see it.
package struct Workload: Sendable, Hashable {
    /// The pod's namespace and name.
    package var pod: ObjectName
    package var addresses: [IPAddress]
    /// Its identity; nil when the trust domain has none for it.
    package var identity: SPIFFEID?
    /// Whether it has a sidecar, and so speaks `apus/1` on every port that is not skipped.
    package var isMeshed: Bool
    /// Whether it is being deleted: its sidecar tells those who are connected to go elsewhere.
    package var isTerminating: Bool
    /// The name of what owns it (Deployment, Job, …), for metrics; the pod's own name when nothing does.
    package var owner: String
    /// Labels `app.kubernetes.io/name` or `app`, and `app.kubernetes.io/version` or `version`; empty when absent.
    package var app: String
    package var version: String
    package var node: String
    /// What its ports speak, as far as the services that select it or its container ports declare it.
    package var ports: [UInt16: ApplicationProtocol]
    /// What its sidecar found out of ports that nobody declares; told to those who dial the pod by its own address.
    package var learnedPorts: [UInt16: LearnedProtocol]
    /// The service that selects it, when exactly one does: whom to name in metrics when it is dialled by its own address.
    package var service: ObjectName?
    /// Inbound ports that bypass its sidecar: dialled in plaintext.
    package var skippedInboundPorts: Set<UInt16>

    package init(
        pod: ObjectName, addresses: [IPAddress], identity: SPIFFEID? = nil, isMeshed: Bool = false,
        isTerminating: Bool = false, owner: String = "", app: String = "", version: String = "", node: String = "",
        ports: [UInt16: ApplicationProtocol] = [:], learnedPorts: [UInt16: LearnedProtocol] = [:],
        service: ObjectName? = nil, skippedInboundPorts: Set<UInt16> = []
    ) {
        self.pod = pod
        self.addresses = addresses
        self.identity = identity
        self.isMeshed = isMeshed
        self.isTerminating = isTerminating
        self.owner = owner.isEmpty ? pod.name : owner
        self.app = app
        self.version = version
        self.node = node
        self.ports = ports
        self.learnedPorts = learnedPorts
        self.service = service
        self.skippedInboundPorts = skippedInboundPorts
    }
}

/// One address behind a service. Its `id` is its resource name on the discovery stream.
package struct Endpoint: Sendable, Hashable {
    package var service: ObjectName
    package var address: IPAddress
    /// Service port → port on `address`. A port that is missing is not served by this endpoint.
    package var targetPorts: [UInt16: UInt16]
    /// False while it terminates but still serves: used only when no ready endpoint is left.
    package var isReady: Bool
    /// The pod behind the address; nil for an address outside the mesh's platform.
    package var workload: Workload?

    package init(
        service: ObjectName, address: IPAddress, targetPorts: [UInt16: UInt16], isReady: Bool = true,
        workload: Workload? = nil
    ) {
        self.service = service
        self.address = address
        self.targetPorts = targetPorts
        self.isReady = isReady
        self.workload = workload
    }

    /// `namespace/service/address`.
    package var id: String { "\(service)/\(address)" }
}

/// What an address that an application dialled turned out to be.
package enum Destination: Sendable, Hashable {
    /// A service's own address and one of its ports.
    case service(ObjectName, port: UInt16)
    /// A pod's own address, whatever the port: headless services, StatefulSets, Prometheus.
    case workload(Workload)
    /// Nothing the mesh knows: the policy for unknown destinations decides.
    case unknown
}
