import MeshCore

/// Who a connection comes from, as metrics name it: this pod itself, a peer by its certificate and preface, or nobody known.
final class Caller {
    /// From the certificate; nil for plaintext.
    let identity: SPIFFEID?
    let namespace: String
    let owner: String
    let app: String
    let version: String
    /// `namespace/name`, as the caller says.
    let pod: ObjectName?
    /// The service that the caller dialled, as it says.
    let service: ObjectName?
    /// Metrics cells found for this caller; few, since a caller uses one or two of a pod's ports.
    var cells = UpstreamCells()

    init(
        identity: SPIFFEID?, namespace: String = "", owner: String = "", app: String = "", version: String = "",
        pod: ObjectName? = nil, service: ObjectName? = nil
    ) {
        self.identity = identity
        self.namespace = namespace
        self.owner = owner
        self.app = app
        self.version = version
        self.pod = pod
        self.service = service
    }

    convenience init(_ identity: SPIFFEID, _ preface: Preface) {
        self.init(
            identity: identity, namespace: identity.serviceAccount?.namespace ?? "", owner: preface.owner,
            app: preface.app, version: preface.version, pod: ObjectName(preface.pod), service: ObjectName(preface.service))
    }

    convenience init(own workload: Workload) {
        self.init(
            identity: workload.identity, namespace: workload.pod.namespace, owner: workload.owner, app: workload.app,
            version: workload.version, pod: workload.pod)
    }
}
