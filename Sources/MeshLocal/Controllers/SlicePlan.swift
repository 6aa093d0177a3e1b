package import MeshKubernetes

/// The EndpointSlices of a Service: which are to be made, changed and removed, so that few change when a pod comes or goes.
package struct SlicePlan: Hashable, Sendable {
    /// The slices' ports, resolved: pods whose named ports differ are in different slices.
    package struct Group: Hashable, Sendable {
        package var ports: JSONValue
        package var endpoints: [JSONValue]

        package init(ports: JSONValue, endpoints: [JSONValue]) {
            self.ports = ports
            self.endpoints = endpoints
        }
    }

    package struct Slice: Hashable, Sendable {
        package var name: String
        package var ports: JSONValue
        package var endpoints: [JSONValue]

        package init(name: String, ports: JSONValue, endpoints: [JSONValue]) {
            self.name = name
            self.ports = ports
            self.endpoints = endpoints
        }
    }

    package static let endpointsPerSlice = 100

    package var create: [Group] = []
    package var update: [Slice] = []
    package var delete: [String] = []

    package init(_ groups: [Group], present: [Slice]) {
        // A Service without pods keeps one empty slice, which says that somebody looks after it.
        let wanted = groups.isEmpty ? [Group(ports: [], endpoints: [])] : groups
        var unused = present
        for group in wanted {
            var rest: [String: JSONValue] = [:]
            for endpoint in group.endpoints { rest[Self.identity(endpoint)] = endpoint }
            let mine = unused.filter { $0.ports == group.ports }
            unused.removeAll { $0.ports == group.ports }
            var slices: [Slice] = mine.map { slice in
                // Who is in a slice stays there, with what is now said of it.
                let kept = slice.endpoints.compactMap { rest.removeValue(forKey: Self.identity($0)) }
                return Slice(name: slice.name, ports: slice.ports, endpoints: kept)
            }
            var new = rest.sorted { $0.key < $1.key }.map(\.value)[...]
            for index in slices.indices {
                let room = max(Self.endpointsPerSlice - slices[index].endpoints.count, 0)
                slices[index].endpoints += new.prefix(room)
                new = new.dropFirst(room)
            }
            while !new.isEmpty || (slices.isEmpty && create.isEmpty && group.endpoints.isEmpty) {
                create.append(Group(ports: group.ports, endpoints: Array(new.prefix(Self.endpointsPerSlice))))
                new = new.dropFirst(Self.endpointsPerSlice)
            }
            for (slice, before) in zip(slices, mine) {
                let isSpare = slice.endpoints.isEmpty && !(group.endpoints.isEmpty && slice == slices.first)
                if isSpare {
                    delete.append(slice.name)
                } else if slice != before {
                    update.append(slice)
                }
            }
        }
        delete += unused.map(\.name)
    }

    private static func identity(_ endpoint: JSONValue) -> String {
        endpoint[path: "targetRef", "uid"]?.string ?? endpoint["addresses"]?[0]?.string ?? ""
    }
}

/// From a Service and its pods to endpoints.
package enum ServiceEndpoints {
    /// The groups of a Service's pods by what its ports mean for them.
    package static func groups(_ service: KubernetesObject, _ pods: [KubernetesObject]) -> [SlicePlan.Group] {
        let spec = service.json["spec"]
        let publishes = spec?["publishNotReadyAddresses"]?.bool == true
        var groups: [JSONValue: [JSONValue]] = [:]
        for pod in pods {
            guard let address = pod.json[path: "status", "podIP"]?.string, !address.isEmpty, !PodState(pod).isFinished
            else { continue }
            let ports = (spec?["ports"]?.array ?? []).compactMap { port($0, in: pod) }
            // A pod that has none of the ports serves nothing of a Service that has some.
            if ports.isEmpty, !(spec?["ports"]?.array ?? []).isEmpty { continue }
            groups[.array(ports), default: []].append(endpoint(pod, address, service, publishes: publishes))
        }
        return groups.map { SlicePlan.Group(ports: $0.key, endpoints: $0.value) }
            .sorted { $0.ports.data().lexicographicallyPrecedes($1.ports.data()) }
    }

    private static func endpoint(
        _ pod: KubernetesObject, _ address: String, _ service: KubernetesObject, publishes: Bool
    ) -> JSONValue {
        let isReady = PodState(pod).isReady
        var endpoint: JSONValue = [
            "addresses": [.string(address)],
            "conditions": [
                "ready": .bool(publishes || (isReady && !pod.isTerminating)), "serving": .bool(publishes || isReady),
                "terminating": .bool(pod.isTerminating),
            ],
            "targetRef": [
                "kind": "Pod", "namespace": .string(pod.namespace ?? ""), "name": .string(pod.name),
                "uid": .string(pod.uid),
            ],
        ]
        endpoint["nodeName"] = pod.json["spec"]?["nodeName"]
        if pod.json[path: "spec", "subdomain"]?.string == service.name {
            endpoint["hostname"] = pod.json["spec"]?["hostname"]
        }
        return endpoint
    }

    /// A Service's port as this pod serves it; nil when the pod has no port of that name.
    private static func port(_ port: JSONValue, in pod: KubernetesObject) -> JSONValue? {
        let transport = port["protocol"]?.string ?? "TCP"
        let number: Int?
        if let name = port["targetPort"]?.string {
            let containers =
                (pod.json[path: "spec", "containers"]?.array ?? [])
                + (pod.json[path: "spec", "initContainers"]?.array ?? []).filter { $0["restartPolicy"] == "Always" }
            number =
                containers.flatMap { $0["ports"]?.array ?? [] }
                .first { $0["name"]?.string == name && ($0["protocol"]?.string ?? "TCP") == transport }?[
                    "containerPort"]?.int
        } else {
            number = port["targetPort"]?.int ?? port["port"]?.int
        }
        guard let number else { return nil }
        var result: JSONValue = [
            "name": .string(port["name"]?.string ?? ""), "port": .int(Int64(number)), "protocol": .string(transport),
        ]
        result["appProtocol"] = port["appProtocol"]
        return result
    }
}
