import MeshKubernetes

/// The fields of a pod's spec that `apus up` honours, or that cannot mean anything on one machine without images. Any other
/// field is refused at creation by its path, so that nobody waits for an effect that does not come.
indirect enum PodFieldRule: Sendable {
    /// Any value.
    case any
    /// Only these values.
    case only([JSONValue])
    case object([String: PodFieldRule])
    /// An object whose members are the user's own names.
    case map
    case list(PodFieldRule)

    /// The fields under `spec` of a pod.
    static let podSpec = PodFieldRule.object([
        "containers": .list(.object(container)),
        "initContainers": .list(.object(container.merging(["restartPolicy": .only(["Always"])]) { $1 })),
        "volumes": .list(volume),
        "restartPolicy": .any,
        "terminationGracePeriodSeconds": .any,
        "activeDeadlineSeconds": .any,
        "dnsPolicy": .only(["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]),
        "dnsConfig": .object([
            "nameservers": .any, "searches": .any, "options": .list(.object(["name": .any, "value": .any])),
        ]),
        "serviceAccountName": .any,
        "serviceAccount": .any,
        "automountServiceAccountToken": .any,
        "hostAliases": .list(.object(["ip": .any, "hostnames": .any])),
        "hostname": .any,
        "subdomain": .any,
        "securityContext": .object([
            "runAsUser": .any, "runAsGroup": .any, "runAsNonRoot": .any, "fsGroup": .any, "fsGroupChangePolicy": .any,
            "supplementalGroups": .any, "seccompProfile": .object(["type": .only(["RuntimeDefault", "Unconfined"])]),
        ]),
        "nodeName": .any,
        "nodeSelector": .map,
        "hostNetwork": .only([false]),
        "hostPID": .only([false]),
        "hostIPC": .only([false]),
        "shareProcessNamespace": .only([false]),
        "enableServiceLinks": .any,
        // One node, no images: what these ask for is true of every pod.
        "schedulerName": .only(["default-scheduler"]),
        "tolerations": .any,
        "topologySpreadConstraints": .any,
        "imagePullSecrets": .any,
        "priority": .any,
        "priorityClassName": .any,
        "preemptionPolicy": .any,
        "os": .object(["name": .only(["linux"])]),
    ])

    private static let container: [String: PodFieldRule] = [
        "name": .any, "image": .any, "imagePullPolicy": .any, "command": .any, "args": .any, "workingDir": .any,
        "env": .list(
            .object([
                "name": .any, "value": .any,
                "valueFrom": .object([
                    "fieldRef": .object(["apiVersion": .only(["v1"]), "fieldPath": .any]),
                    "resourceFieldRef": resourceReference,
                    "configMapKeyRef": keyReference, "secretKeyRef": keyReference,
                ]),
            ])),
        "envFrom": .list(.object(["prefix": .any, "configMapRef": optionalReference, "secretRef": optionalReference])),
        "ports": .list(
            .object([
                "name": .any, "containerPort": .any, "protocol": .only(["TCP", "UDP", "SCTP"]),
            ])),
        "resources": .any,
        "volumeMounts": .list(
            .object([
                "name": .any, "mountPath": .any, "subPath": .any, "subPathExpr": .any, "readOnly": .any,
                "mountPropagation": .only(["None"]),
                "recursiveReadOnly": .only(["Disabled"]),
            ])),
        "livenessProbe": probe, "readinessProbe": probe, "startupProbe": probe,
        "lifecycle": .object(["postStart": handler, "preStop": handler]),
        "securityContext": .object([
            "runAsUser": .any, "runAsGroup": .any, "runAsNonRoot": .any, "readOnlyRootFilesystem": .any,
            "allowPrivilegeEscalation": .any, "privileged": .only([false]), "procMount": .only(["Default"]),
            "capabilities": .object(["add": .any, "drop": .any]),
            "seccompProfile": .object(["type": .only(["RuntimeDefault", "Unconfined"])]),
        ]),
        "terminationMessagePath": .only(["/dev/termination-log"]),
        "terminationMessagePolicy": .only(["File"]),
        "stdin": .only([false]), "stdinOnce": .only([false]), "tty": .only([false]),
    ]

    private static let resourceReference = PodFieldRule.object([
        "containerName": .any, "resource": .any, "divisor": .any,
    ])
    private static let keyReference = PodFieldRule.object(["name": .any, "key": .any, "optional": .any])
    private static let optionalReference = PodFieldRule.object(["name": .any, "optional": .any])

    private static let httpGet = PodFieldRule.object([
        "path": .any, "port": .any, "host": .any, "scheme": .only(["HTTP", "HTTPS"]),
        "httpHeaders": .list(.object(["name": .any, "value": .any])),
    ])
    private static let handler = PodFieldRule.object([
        "exec": .object(["command": .any]), "httpGet": httpGet, "sleep": .object(["seconds": .any]),
    ])
    private static let probe = PodFieldRule.object([
        "httpGet": httpGet, "tcpSocket": .object(["port": .any, "host": .any]),
        "grpc": .object(["port": .any, "service": .any]), "exec": .object(["command": .any]),
        "initialDelaySeconds": .any, "periodSeconds": .any, "timeoutSeconds": .any, "successThreshold": .any,
        "failureThreshold": .any, "terminationGracePeriodSeconds": .any,
    ])

    private static let items = PodFieldRule.list(.object(["key": .any, "path": .any, "mode": .any]))
    private static let downwardItems = PodFieldRule.list(
        .object([
            "path": .any, "mode": .any, "fieldRef": .object(["apiVersion": .any, "fieldPath": .any]),
            "resourceFieldRef": resourceReference,
        ]))
    private static let volume = PodFieldRule.object([
        "name": .any,
        "emptyDir": .object(["medium": .only(["", "Memory"]), "sizeLimit": .any]),
        "configMap": .object(["name": .any, "items": items, "defaultMode": .any, "optional": .any]),
        "secret": .object(["secretName": .any, "items": items, "defaultMode": .any, "optional": .any]),
        "downwardAPI": .object(["items": downwardItems, "defaultMode": .any]),
        "projected": .object([
            "defaultMode": .any,
            "sources": .list(
                .object([
                    "serviceAccountToken": .object(["audience": .any, "expirationSeconds": .any, "path": .any]),
                    "configMap": .object(["name": .any, "items": items, "optional": .any]),
                    "secret": .object(["name": .any, "items": items, "optional": .any]),
                    "downwardAPI": .object(["items": downwardItems]),
                ])),
        ]),
    ])

    /// One error for each field that is not supported; null and empty values ask for nothing.
    func errors(in value: JSONValue, at path: String) -> [FieldError] {
        switch (self, value) {
        case (_, .null), (.any, _), (.map, _), (_, .array([])):
            return []
        case (.only(let values), _):
            return values.contains(value)
                ? []
                : [.notSupported(path, value, values.map { $0.string ?? String(decoding: $0.data(), as: UTF8.self) })]
        case (.list(let rule), .array(let elements)):
            return elements.enumerated().flatMap { rule.errors(in: $1, at: "\(path)[\($0)]") }
        case (.object(let rules), .object(let members)):
            return members.sorted { $0.key < $1.key }.flatMap { name, member -> [FieldError] in
                guard let rule = rules[name] else {
                    if member.isNull || member == .array([]) || member == .object([:]) { return [] }
                    return [.forbidden("\(path).\(name)", "apus up does not support this field; remove it")]
                }
                return rule.errors(in: member, at: "\(path).\(name)")
            }
        case (.list, _):
            return [.invalid(path, value, "must be a list")]
        case (.object, _):
            return [.invalid(path, value, "must be an object")]
        }
    }
}
