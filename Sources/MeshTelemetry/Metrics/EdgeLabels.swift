package import MeshAddress
package import MeshCore

/// One end of an edge, as far as the reporting sidecar knows it. Empty and nil become Istio's `unknown`.
package struct EdgePeerLabels: Hashable, Sendable {
    package var pod: ObjectName?
    package var namespace: String
    /// The name of what owns the pod.
    package var workload: String
    package var app: String
    package var version: String
    /// Proved by a certificate.
    package var identity: SPIFFEID?
    package var address: IPAddress?

    package init(
        pod: ObjectName? = nil, namespace: String = "", workload: String = "", app: String = "", version: String = "",
        identity: SPIFFEID? = nil, address: IPAddress? = nil
    ) {
        self.pod = pod
        self.namespace = namespace
        self.workload = workload
        self.app = app
        self.version = version
        self.identity = identity
        self.address = address
    }

    package init(_ workload: Workload) {
        self.init(
            pod: workload.pod, namespace: workload.pod.namespace, workload: workload.owner, app: workload.app,
            version: workload.version, identity: workload.identity, address: workload.addresses.first)
    }
}

/// What identifies an edge: who calls whom, through which service, and what is spoken.
package struct EdgeLabels: Hashable, Sendable {
    package enum Reporter: String, Hashable, Sendable {
        /// The caller's sidecar.
        case source
        /// The callee's sidecar.
        case destination
    }

    /// The label `connection_security_policy`. Unlike Istio, whose callers report `unknown`, both ends report what they know.
    package enum Security: String, Hashable, Sendable {
        case mutualTLS = "mutual_tls"
        case none
    }

    package var reporter: Reporter
    package var source: EdgePeerLabels
    package var destination: EdgePeerLabels
    /// Nil when the destination was dialled by an address that no service has.
    package var service: ObjectName?
    /// The service's port, or the one dialled.
    package var port: UInt16
    package var applicationProtocol: ApplicationProtocol
    package var security: Security

    package init(
        reporter: Reporter, source: EdgePeerLabels, destination: EdgePeerLabels, service: ObjectName?, port: UInt16,
        applicationProtocol: ApplicationProtocol, security: Security
    ) {
        self.reporter = reporter
        self.source = source
        self.destination = destination
        self.service = service
        self.port = port
        self.applicationProtocol = applicationProtocol
        self.security = security
    }

    /// Where everything goes for which there is no room.
    static let overflow = EdgeLabels(
        reporter: .source, source: EdgePeerLabels(workload: "overflow"),
        destination: EdgePeerLabels(workload: "overflow"),
        service: nil, port: 0, applicationProtocol: .opaque, security: .none)

    /// Istio's label pairs for this edge, without those of a response. Two edges that differ by pod or port only have the same.
    func labels(clusterDomain: String) -> PrometheusText.Labels {
        var text = PrometheusText.Labels()
        func append(_ name: String, _ value: String) { text.append(name, value.isEmpty ? "unknown" : value) }
        func append(_ side: String, _ peer: EdgePeerLabels) {
            append("\(side)_workload", peer.workload)
            append("\(side)_workload_namespace", peer.namespace)
            append("\(side)_principal", peer.identity?.description ?? "")
            append("\(side)_app", peer.app)
            append("\(side)_version", peer.version)
            append("\(side)_canonical_service", peer.app.isEmpty ? peer.workload : peer.app)
            append("\(side)_canonical_revision", peer.version.isEmpty ? "latest" : peer.version)
            append("\(side)_cluster", "Kubernetes")
        }
        append("reporter", reporter.rawValue)
        append("source", source)
        append("destination", destination)
        if let service {
            append("destination_service", "\(service.name).\(service.namespace).svc.\(clusterDomain)")
        } else {
            // An unknown destination is named by what was dialled.
            append("destination_service", destination.address.map { "\(SocketAddress($0, port))" } ?? "")
        }
        append("destination_service_name", service?.name ?? "")
        append("destination_service_namespace", service?.namespace ?? "")
        append("request_protocol", requestProtocol)
        append("connection_security_policy", security.rawValue)
        return text
    }

    private var requestProtocol: String {
        switch applicationProtocol {
        case .http1, .http2: "http"
        case .grpc: "grpc"
        case .tls, .opaque: "tcp"
        }
    }
}
