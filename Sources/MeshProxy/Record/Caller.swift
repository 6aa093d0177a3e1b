import MeshCore
import MeshTelemetry

/// Who a connection comes from, as metrics name it: this pod itself, a peer by its certificate and preface, or nobody known.
final class Caller {
    let labels: EdgePeerLabels
    /// The service that the caller dialled, as it says.
    let service: ObjectName?
    /// Where its requests to this pod's one port are counted; another port replaces it.
    var edge = CachedEdge()

    /// Nobody known.
    init() {
        labels = EdgePeerLabels()
        service = nil
    }

    init(_ identity: SPIFFEID, _ preface: Preface) {
        labels = EdgePeerLabels(
            pod: ObjectName(preface.pod), namespace: identity.serviceAccount?.namespace ?? "", workload: preface.owner,
            app: preface.app, version: preface.version, identity: identity)
        service = ObjectName(preface.service)
    }

    init(own workload: Workload) {
        labels = EdgePeerLabels(workload)
        service = nil
    }
}

/// A metrics cell that was found once. It is found anew when this pod's own labels, or what it was found for, have changed.
struct CachedEdge {
    private var edge: EdgeMetrics?
    private var generation = 0
    private var target: ObjectIdentifier?
    private var applicationProtocol = ApplicationProtocol.http1

    @inline(__always)
    mutating func find(
        _ loop: ProxyLoop, _ target: RouteTarget, _ applicationProtocol: ApplicationProtocol, _ labels: () -> EdgeLabels
    ) -> EdgeMetrics {
        if let edge, generation == loop.labelGeneration, self.target == ObjectIdentifier(target),
            self.applicationProtocol == applicationProtocol
        {
            return edge
        }
        let found = loop.metrics.edge(labels())
        edge = found
        generation = loop.labelGeneration
        self.target = ObjectIdentifier(target)
        self.applicationProtocol = applicationProtocol
        return found
    }
}
