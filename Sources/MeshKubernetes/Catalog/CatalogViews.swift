package import MeshAddress
package import MeshCore

/// The parts of the API's objects that the catalog is made of: all that the informers keep.

package struct PodView: Sendable, Hashable {
    package var name: ObjectName
    package var uid: String
    /// Empty until it has one, and for a pod on its node's network, whose address belongs to many.
    package var addresses: [IPAddress]
    package var isOnHostNetwork: Bool
    package var isTerminating: Bool
    /// All its containers have ended for good.
    package var isFinished: Bool
    package var serviceAccount: String
    package var isMeshed: Bool
    package var owner: String
    package var app: String
    package var version: String
    package var node: String
    /// What its container ports declare by their names.
    package var ports: [UInt16: ApplicationProtocol]
    package var skippedInboundPorts: Set<UInt16>
}

package struct ServiceView: Sendable, Hashable {
    package var service: Service
    package var uid: String
    package var publishesNotReady: Bool
    package var problems: [AnnotationProblem]
}

package struct EndpointSliceView: Sendable, Hashable {
    package struct Port: Sendable, Hashable {
        package var name: String
        /// Nil stands for the service port's own number.
        package var port: UInt16?
    }

    package struct Entry: Sendable, Hashable {
        /// Nil for an address that is no pod's.
        package var pod: ObjectName?
        package var podUID: String
        package var isReady: Bool
        package var isServing: Bool
        package var isTerminating: Bool
    }

    package var name: ObjectName
    package var service: ObjectName
    package var ports: [Port]
    package var entries: [IPAddress: Entry]
}

// MARK: - From the API's documents

extension PodView {
    /// Nil for a document that is no pod.
    package init?(_ object: KubernetesObject) {
        guard let pod = try? object.view(Kubernetes.Pod.self), !pod.metadata.name.isEmpty else { return nil }
        name = ObjectName(namespace: pod.metadata.namespace, name: pod.metadata.name)
        uid = pod.metadata.uid
        isOnHostNetwork = pod.spec.hostNetwork == true
        let texts = pod.status.podIPs.isEmpty ? [pod.status.podIP] : pod.status.podIPs.map(\.ip)
        addresses = isOnHostNetwork ? [] : texts.compactMap { IPAddress($0) }
        isTerminating = pod.metadata.deletionTimestamp != nil
        isFinished = pod.status.phase == "Succeeded" || pod.status.phase == "Failed"
        let account = pod.spec.serviceAccountName ?? ""
        serviceAccount = account.isEmpty ? "default" : account
        let labels = pod.metadata.labels
        isMeshed = labels[MeshLabel.injected] == "true"
        owner = PodView.owner(pod.metadata)
        app = labels["app.kubernetes.io/name"] ?? labels["app"] ?? ""
        version = labels["app.kubernetes.io/version"] ?? labels["version"] ?? ""
        node = pod.spec.nodeName ?? ""
        ports = [:]
        for port in pod.spec.containers.flatMap(\.ports) where port.protocol == nil || port.protocol == "TCP" {
            guard let number = UInt16(exactly: port.containerPort), number > 0 else { continue }
            ports[number] = ports[number] ?? ApplicationProtocol(appProtocol: nil, portName: port.name)
        }
        let skipped = pod.metadata.annotations[MeshAnnotation.skipInboundPorts] ?? ""
        skippedInboundPorts = Set((try? PortList.parse(skipped, annotation: MeshAnnotation.skipInboundPorts)) ?? [])
    }

    /// The name that stays while pods come and go: the Deployment behind a ReplicaSet, the CronJob behind a Job, else
    /// the controller itself, else the pod.
    package static func owner(_ metadata: Kubernetes.ObjectMeta) -> String {
        guard let controller = metadata.controller else {
            let generated = metadata.generateName
            guard metadata.name.isEmpty else { return metadata.name }
            return generated.hasSuffix("-") ? String(generated.dropLast()) : generated
        }
        switch controller.kind {
        case "ReplicaSet":
            let suffix = "-" + (metadata.labels["pod-template-hash"] ?? "\u{0}")
            return controller.name.hasSuffix(suffix) ? String(controller.name.dropLast(suffix.count)) : controller.name
        case "Job":
            // A CronJob names its Jobs by their minute since 1970: eight digits or more.
            guard let dash = controller.name.lastIndex(of: "-"), dash != controller.name.startIndex else {
                return controller.name
            }
            let digits = controller.name[controller.name.index(after: dash)...]
            let isMinute = (8...10).contains(digits.utf8.count) && digits.utf8.allSatisfy { (48...57).contains($0) }
            return isMinute ? String(controller.name[..<dash]) : controller.name
        default:
            return controller.name
        }
    }
}

extension ServiceView {
    /// Nil for a document that is no service, and for one that is only another name (`ExternalName`).
    package init?(_ object: KubernetesObject) {
        guard let view = try? object.view(Kubernetes.Service.self), !view.metadata.name.isEmpty,
            view.spec.type != "ExternalName"
        else { return nil }
        var texts = view.spec.clusterIPs
        if texts.isEmpty, let address = view.spec.clusterIP { texts = [address] }
        var service = Service(
            name: ObjectName(namespace: view.metadata.namespace, name: view.metadata.name),
            addresses: (texts + view.spec.externalIPs).compactMap { IPAddress($0) })
        for port in view.spec.ports where port.protocol == nil || port.protocol == "TCP" {
            guard let number = UInt16(exactly: port.port), number > 0 else { continue }
            let declared = ApplicationProtocol(appProtocol: port.appProtocol, portName: port.name)
            service.ports.append(ServicePort(port: number, name: port.name, declaredProtocol: declared))
        }
        problems = ServiceAnnotations.apply(view.metadata.annotations, to: &service)
        self.service = service
        uid = view.metadata.uid
        publishesNotReady = view.spec.publishNotReadyAddresses == true
    }
}

extension EndpointSliceView {
    /// Nil for a document that is no slice, belongs to no service, or has names instead of addresses.
    package init?(_ object: KubernetesObject) {
        guard let view = try? object.view(Kubernetes.EndpointSlice.self), view.addressType != "FQDN",
            let service = view.metadata.labels[Kubernetes.EndpointSlice.serviceLabel], !service.isEmpty
        else { return nil }
        name = ObjectName(namespace: view.metadata.namespace, name: view.metadata.name)
        self.service = ObjectName(namespace: view.metadata.namespace, name: service)
        ports = []
        for port in view.ports where port.protocol == nil || port.protocol == "TCP" {
            guard let number = port.port else {
                ports.append(Port(name: port.name, port: nil))
                continue
            }
            guard let number = UInt16(exactly: number), number > 0 else { continue }
            ports.append(Port(name: port.name, port: number))
        }
        entries = [:]
        for endpoint in view.endpoints {
            // The addresses of one entry are the same place (EndpointSlice API): the first one will do.
            guard let address = endpoint.addresses.lazy.compactMap({ IPAddress($0) }).first else { continue }
            var pod: ObjectName?
            if let target = endpoint.targetRef, target.kind == "Pod", !target.name.isEmpty {
                let namespace = target.namespace.isEmpty ? view.metadata.namespace : target.namespace
                pod = ObjectName(namespace: namespace, name: target.name)
            }
            let isReady = endpoint.conditions.ready ?? true
            entries[address] = Entry(
                pod: pod, podUID: pod == nil ? "" : endpoint.targetRef?.uid ?? "", isReady: isReady,
                isServing: endpoint.conditions.serving ?? isReady,
                isTerminating: endpoint.conditions.terminating ?? false)
        }
    }
}
