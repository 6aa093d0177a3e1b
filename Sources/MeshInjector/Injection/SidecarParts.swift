import MeshKubernetes

/// The containers and volumes that the injector adds to a pod.
struct SidecarParts {
    let settings: InjectionSettings
    let annotations: PodAnnotations
    /// The owner's name for metrics.
    let owner: String
    /// The probes as their authors wrote them, by container.
    let probes: [String: JSONValue]

    /// Redirects the pod's traffic, then ends. Root with the one capability that this takes.
    var capture: JSONValue {
        var container = base(SidecarNames.capture, "capture")
        container["env"] = .array(skippedPorts)
        container["resources"] = ["requests": ["cpu": "10m", "memory": "16Mi"]]
        container["securityContext"] = [
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false, "capabilities": ["add": ["NET_ADMIN"], "drop": ["ALL"]],
        ]
        if container["env"] == [] { container["env"] = nil }
        return container
    }

    /// The native sidecar: started before the pod's other containers and ended after them.
    var proxy: JSONValue {
        var container = base(SidecarNames.proxy, "run")
        container["restartPolicy"] = "Always"
        container["env"] = .array(environment)
        container["ports"] = [
            ["name": "apus-metrics", "containerPort": .int(Int64(SidecarPorts.metrics)), "protocol": "TCP"],
            ["name": "apus-health", "containerPort": .int(Int64(SidecarPorts.health)), "protocol": "TCP"],
        ]
        container["startupProbe"] = probe(periodSeconds: 1, failureThreshold: 120)
        container["readinessProbe"] = probe(periodSeconds: 5, failureThreshold: 3)
        container["resources"] = resources
        container["securityContext"] = [
            "runAsUser": .int(Int64(SidecarPorts.user)), "runAsGroup": .int(Int64(SidecarPorts.user)),
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": ["drop": ["ALL"]],
        ]
        container["volumeMounts"] = [
            ["name": .string(SidecarNames.identityVolume), "mountPath": "/var/run/apus/identity", "readOnly": true],
            ["name": .string(SidecarNames.stateVolume), "mountPath": "/var/run/apus/state"],
        ]
        return container
    }

    var volumes: [JSONValue] {
        [
            [
                "name": .string(SidecarNames.identityVolume),
                "projected": [
                    "defaultMode": 420,
                    "sources": [
                        ["serviceAccountToken": ["audience": "apus", "expirationSeconds": 3600, "path": "token"]]
                    ],
                ],
            ],
            ["name": .string(SidecarNames.stateVolume), "emptyDir": ["medium": "Memory", "sizeLimit": "64Mi"]],
        ]
    }

    private func base(_ name: String, _ command: String) -> JSONValue {
        var container: JSONValue = [
            "name": .string(name), "image": .string(settings.image), "args": [.string(command)],
        ]
        container["imagePullPolicy"] = settings.imagePullPolicy.map { .string($0) }
        return container
    }

    private func probe(periodSeconds: Int64, failureThreshold: Int64) -> JSONValue {
        [
            "httpGet": ["path": "/healthz/ready", "port": .int(Int64(SidecarPorts.health)), "scheme": "HTTP"],
            "periodSeconds": .int(periodSeconds), "timeoutSeconds": 2, "successThreshold": 1,
            "failureThreshold": .int(failureThreshold),
        ]
    }

    private var resources: JSONValue {
        var resources: JSONValue = [
            "requests": [
                "cpu": .string(annotations.cpuRequest.text), "memory": .string(annotations.memoryRequest.text),
            ]
        ]
        var limits: [String: JSONValue] = [:]
        limits["cpu"] = annotations.cpuLimit.map { .string($0.text) }
        limits["memory"] = annotations.memoryLimit.map { .string($0.text) }
        if !limits.isEmpty { resources["limits"] = .object(limits) }
        return resources
    }

    private var environment: [JSONValue] {
        var variables: [JSONValue] = [
            field("APUS_POD_NAME", "metadata.name"), field("APUS_POD_NAMESPACE", "metadata.namespace"),
            field("APUS_POD_IP", "status.podIP"), field("APUS_SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("APUS_NODE_NAME", "spec.nodeName"), value("APUS_TRUST_DOMAIN", settings.trustDomain),
            value("APUS_CONTROL_ADDRESS", settings.controlAddress), value("APUS_OWNER", owner),
        ]
        if !settings.trustBundle.isEmpty { variables.append(value("APUS_TRUST_BUNDLE", settings.trustBundle)) }
        if !annotations.opaquePorts.isEmpty { variables.append(ports("APUS_OPAQUE_PORTS", annotations.opaquePorts)) }
        variables += skippedPorts
        if let level = annotations.logLevel { variables.append(value("APUS_LOG_LEVEL", level)) }
        if let log = annotations.accessLog { variables.append(value("APUS_ACCESS_LOG", log)) }
        if let seconds = annotations.drainSeconds { variables.append(value("APUS_DRAIN_SECONDS", "\(seconds)")) }
        if !probes.isEmpty {
            variables.append(
                value(SidecarParts.probesVariable, String(decoding: JSONValue.object(probes).bytes(), as: UTF8.self)))
        }
        return variables
    }

    private var skippedPorts: [JSONValue] {
        var variables: [JSONValue] = []
        if !annotations.skipInboundPorts.isEmpty {
            variables.append(ports("APUS_SKIP_INBOUND_PORTS", annotations.skipInboundPorts))
        }
        if !annotations.skipOutboundPorts.isEmpty {
            variables.append(ports("APUS_SKIP_OUTBOUND_PORTS", annotations.skipOutboundPorts))
        }
        return variables
    }

    private func ports(_ name: String, _ ports: [UInt16]) -> JSONValue {
        value(name, ports.map { "\($0)" }.joined(separator: ","))
    }

    private func value(_ name: String, _ value: String) -> JSONValue {
        // The platform replaces `$(NAME)` in values and reads `$$` as `$`.
        ["name": .string(name), "value": .string(value.replacing("$", with: "$$"))]
    }

    private func field(_ name: String, _ path: String) -> JSONValue {
        ["name": .string(name), "valueFrom": ["fieldRef": ["apiVersion": "v1", "fieldPath": .string(path)]]]
    }

    /// A container as an earlier injection made it keeps what the platform has filled in since, so that a second call
    /// finds nothing to change.
    static func keepingDefaults(_ container: JSONValue, of earlier: JSONValue?) -> JSONValue {
        var container = container
        for field in ["imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy"]
        where container[field] == nil {
            container[field] = earlier?[field]
        }
        return container
    }

    static let probesVariable = "APUS_PROBES"

    /// The probes that an earlier injection kept in its sidecar; an empty object when there are none.
    static func keptProbes(in container: JSONValue?) -> JSONValue {
        let variable = container?["env"]?.array?.first { $0["name"]?.string == probesVariable }
        guard let text = variable?["value"]?.string?.replacing("$$", with: "$"),
            let probes = try? JSONValue(parsing: Array(text.utf8)), probes.object != nil
        else { return [:] }
        return probes
    }
}
