import MeshCore
import MeshKubernetes

extension InstallManifests {
    static func deployment(_ settings: InstallSettings) -> KubernetesObject {
        let probe = { (path: String, failures: Int64) -> JSONValue in
            [
                "httpGet": ["path": .string(path), "port": 15014], "periodSeconds": 2, "timeoutSeconds": 2,
                "failureThreshold": .int(failures),
            ]
        }
        let field = { (name: String, path: String) -> JSONValue in
            ["name": .string(name), "valueFrom": ["fieldRef": ["apiVersion": "v1", "fieldPath": .string(path)]]]
        }
        let value = { (name: String, value: String) -> JSONValue in ["name": .string(name), "value": .string(value)] }
        var container: JSONValue = [
            "name": .string(MeshInstallation.controlName), "image": .string(settings.controlImage),
            "env": [
                field("APUS_POD_NAME", "metadata.name"), field("APUS_POD_NAMESPACE", "metadata.namespace"),
                field("APUS_POD_IP", "status.podIP"), value("APUS_TRUST_DOMAIN", settings.mesh.trustDomain),
                value("APUS_PLAINTEXT", settings.mesh.plaintext.rawValue),
                value("APUS_UNKNOWN_DESTINATIONS", settings.mesh.unknownDestinations.rawValue),
                value("APUS_PROXY_IMAGE", settings.proxyImage), value("APUS_LOG_LEVEL", settings.logLevel),
            ],
            "ports": [
                ["name": "grpc-discovery", "containerPort": 15010, "protocol": "TCP"],
                ["name": "https-webhook", "containerPort": 15011, "protocol": "TCP"],
                ["name": "http-admin", "containerPort": 15014, "protocol": "TCP"],
            ],
            // Alive as soon as it listens, ready once it knows the platform: a first start may have to wait for that.
            "startupProbe": ["tcpSocket": ["port": 15014], "periodSeconds": 1, "failureThreshold": 60],
            "livenessProbe": [
                "tcpSocket": ["port": 15014], "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
            ],
            "readinessProbe": probe("/ready", 3),
            "resources": [
                "requests": ["cpu": .string(settings.cpuRequest), "memory": .string(settings.memoryRequest)]
            ],
            "securityContext": [
                "runAsNonRoot": true, "runAsUser": 1338, "runAsGroup": 1338, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": ["drop": ["ALL"]],
            ],
        ]
        container["imagePullPolicy"] = settings.imagePullPolicy.map { .string($0) }
        var labels = selector
        labels["app.kubernetes.io/part-of"] = "apus"
        labels["app.kubernetes.io/version"] = .string(settings.version)
        labels[MeshLabel.inject] = "disabled"
        return KubernetesObject([
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(MeshInstallation.controlName),
            "spec": [
                "replicas": .int(Int64(settings.replicas)), "selector": ["matchLabels": selector],
                "strategy": ["type": "RollingUpdate", "rollingUpdate": ["maxUnavailable": 0, "maxSurge": 1]],
                "template": [
                    "metadata": ["labels": labels],
                    "spec": [
                        "serviceAccountName": .string(MeshInstallation.controlName),
                        "terminationGracePeriodSeconds": 10,
                        "containers": [container],
                    ],
                ],
            ],
        ])
    }
}
