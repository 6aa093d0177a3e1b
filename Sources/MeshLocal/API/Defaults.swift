import MeshKubernetes

/// The values that an absent field stands for, written into the object so that everyone who reads it sees the same.
enum Defaults {
    static func apply(to object: inout KubernetesObject, served: ServedKind) {
        switch served.kind.storageName {
        case "pods": object.json["spec"] = podSpec(object.json["spec"] ?? [:])
        case "deployments.apps": deployment(&object.json)
        case "replicasets.apps":
            object.json[path: "spec", "replicas"].fill(1)
            template(&object.json, labelSelector: true)
        case "jobs.batch": job(&object)
        case "services": service(&object.json)
        case "secrets": secret(&object.json)
        case "endpointslices.discovery.k8s.io": endpointSlice(&object.json)
        case "mutatingwebhookconfigurations.admissionregistration.k8s.io": webhooks(&object.json)
        case "namespaces":
            object.json[path: "spec", "finalizers"].fill(["kubernetes"])
            object.json[path: "metadata", "labels", "kubernetes.io/metadata.name"] = .string(object.name)
        default:
            if let schema = served.schema { object.json = schema.normalized(object.json) }
        }
    }

    // MARK: - Pods

    static func podSpec(_ spec: JSONValue) -> JSONValue {
        guard spec.object != nil else { return spec }
        var spec = spec
        spec["restartPolicy"].fill("Always")
        spec["terminationGracePeriodSeconds"].fill(30)
        spec["dnsPolicy"].fill("ClusterFirst")
        spec["schedulerName"].fill("default-scheduler")
        spec["enableServiceLinks"].fill(true)
        spec["securityContext"].fill([:])
        // The deprecated name stands for the other where only it is given.
        if spec["serviceAccountName"]?.string?.isEmpty != false { spec["serviceAccountName"] = spec["serviceAccount"] }
        for list in ["containers", "initContainers"] {
            spec[list]?.mapElements(container)
        }
        spec["volumes"]?.mapElements(volume)
        return spec
    }

    private static func container(_ container: inout JSONValue) {
        guard container.object != nil else { return }
        container["imagePullPolicy"].fill("IfNotPresent")
        container["resources"].fill([:])
        container["ports"]?.mapElements { $0["protocol"].fill("TCP") }
        container["env"]?.mapElements { variable in
            if variable[path: "valueFrom", "fieldRef"]?.object != nil {
                variable[path: "valueFrom", "fieldRef", "apiVersion"].fill("v1")
            }
        }
        for name in ["livenessProbe", "readinessProbe", "startupProbe"] where container[name]?.object != nil {
            var probe = container[name] ?? [:]
            probe["timeoutSeconds"].fill(1)
            probe["periodSeconds"].fill(10)
            probe["successThreshold"].fill(1)
            probe["failureThreshold"].fill(3)
            httpGet(&probe)
            if probe["grpc"]?.object != nil { probe[path: "grpc", "service"].fill("") }
            container[name] = probe
        }
        for name in ["postStart", "preStop"] where container[path: "lifecycle", name]?.object != nil {
            var handler = container[path: "lifecycle", name] ?? [:]
            httpGet(&handler)
            container[path: "lifecycle", name] = handler
        }
    }

    private static func httpGet(_ handler: inout JSONValue) {
        guard handler["httpGet"]?.object != nil else { return }
        handler[path: "httpGet", "path"].fill("/")
        handler[path: "httpGet", "scheme"].fill("HTTP")
    }

    private static func volume(_ volume: inout JSONValue) {
        guard let members = volume.object else { return }
        if members.count == 1, members["name"] != nil { volume["emptyDir"] = [:] }
        for source in ["configMap", "secret", "projected", "downwardAPI"] where volume[source]?.object != nil {
            volume[path: source, "defaultMode"].fill(420)
        }
        volume["projected"]?["sources"]?.mapElements { source in
            if source["serviceAccountToken"]?.object != nil {
                source[path: "serviceAccountToken", "expirationSeconds"].fill(3600)
            }
        }
    }

    private static func template(_ json: inout JSONValue, labelSelector: Bool) {
        if let spec = json[path: "spec", "template", "spec"] { json[path: "spec", "template", "spec"] = podSpec(spec) }
        if labelSelector, json["metadata"]?["labels"] == nil,
            let labels = json[path: "spec", "template", "metadata", "labels"]
        {
            json[path: "metadata", "labels"] = labels
        }
    }

    // MARK: - Workloads

    private static func deployment(_ json: inout JSONValue) {
        json[path: "spec", "replicas"].fill(1)
        json[path: "spec", "revisionHistoryLimit"].fill(10)
        json[path: "spec", "progressDeadlineSeconds"].fill(600)
        json[path: "spec", "strategy", "type"].fill("RollingUpdate")
        if json[path: "spec", "strategy", "type"] == "RollingUpdate" {
            json[path: "spec", "strategy", "rollingUpdate", "maxSurge"].fill("25%")
            json[path: "spec", "strategy", "rollingUpdate", "maxUnavailable"].fill("25%")
        }
        template(&json, labelSelector: false)
    }

    /// A Job's pods are told apart by the Job's uid, so the uid has to be there before.
    private static func job(_ object: inout KubernetesObject) {
        object.json[path: "spec", "backoffLimit"].fill(6)
        object.json[path: "spec", "completionMode"].fill("NonIndexed")
        object.json[path: "spec", "suspend"].fill(false)
        let spec = object.json["spec"]
        if spec?["completions"] == nil, spec?["parallelism"] == nil {
            object.json[path: "spec", "completions"] = 1
        }
        object.json[path: "spec", "parallelism"].fill(1)
        template(&object.json, labelSelector: false)
        guard spec?["manualSelector"]?.bool != true, !object.uid.isEmpty else { return }
        let labels: JSONValue = ["batch.kubernetes.io/controller-uid": .string(object.uid)]
        object.json[path: "spec", "selector", "matchLabels"].fill(labels)
        object.json[path: "spec", "template", "metadata", "labels", "batch.kubernetes.io/controller-uid"].fill(
            .string(object.uid))
        object.json[path: "spec", "template", "metadata", "labels", "controller-uid"].fill(.string(object.uid))
        object.json[path: "spec", "template", "metadata", "labels", "batch.kubernetes.io/job-name"].fill(
            .string(object.name))
        object.json[path: "spec", "template", "metadata", "labels", "job-name"].fill(.string(object.name))
    }

    // MARK: - The others

    private static func service(_ json: inout JSONValue) {
        json[path: "spec", "type"].fill("ClusterIP")
        json[path: "spec", "sessionAffinity"].fill("None")
        if json[path: "spec", "type"] != "ExternalName" {
            json[path: "spec", "internalTrafficPolicy"].fill("Cluster")
            json[path: "spec", "ipFamilies"].fill(["IPv4"])
            json[path: "spec", "ipFamilyPolicy"].fill("SingleStack")
        }
        json["spec"]?["ports"]?.mapElements { port in
            port["protocol"].fill("TCP")
            if let number = port["port"] { port["targetPort"].fill(number) }
        }
    }

    /// `stringData` is for writing: its values go to `data` in base64.
    private static func secret(_ json: inout JSONValue) {
        json["type"].fill("Opaque")
        guard let texts = json["stringData"]?.object else { return }
        for (name, text) in texts {
            guard let text = text.string else { continue }
            json[path: "data", name] = .string(Array(text.utf8).base64)
        }
        json["stringData"] = nil
    }

    private static func endpointSlice(_ json: inout JSONValue) {
        json["endpoints"].fill([])
        json["ports"]?.mapElements { port in
            port["name"].fill("")
            port["protocol"].fill("TCP")
        }
        json["endpoints"]?.mapElements { endpoint in
            endpoint[path: "conditions", "ready"].fill(true)
            endpoint[path: "conditions", "serving"].fill(endpoint[path: "conditions", "ready"] ?? true)
        }
    }

    private static func webhooks(_ json: inout JSONValue) {
        json["webhooks"]?.mapElements { webhook in
            webhook["failurePolicy"].fill("Fail")
            webhook["matchPolicy"].fill("Equivalent")
            webhook["namespaceSelector"].fill([:])
            webhook["objectSelector"].fill([:])
            webhook["reinvocationPolicy"].fill("Never")
            webhook["timeoutSeconds"].fill(10)
            if webhook[path: "clientConfig", "service"]?.object != nil {
                webhook[path: "clientConfig", "service", "port"].fill(443)
            }
            webhook["rules"]?.mapElements { $0["scope"].fill("*") }
        }
    }
}

extension Optional<JSONValue> {
    /// Sets what is absent or null.
    mutating func fill(_ value: JSONValue) {
        if self == nil || self == .some(.null) { self = value }
    }
}

extension JSONValue {
    /// Changes each element of an array; anything else stays.
    mutating func mapElements(_ change: (inout JSONValue) -> Void) {
        guard case .array(var elements) = self else { return }
        for index in elements.indices { change(&elements[index]) }
        self = .array(elements)
    }
}
