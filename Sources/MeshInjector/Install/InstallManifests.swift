import Foundation
import MeshCore
package import MeshKubernetes

/// The objects that make the mesh run on a platform, the same on either.
package enum InstallManifests {
    package static let webhookConfigurationName = "apus-injector"
    static let webhookName = "inject.apus.dev"

    /// In the order in which they must be created.
    package static func render(_ settings: InstallSettings) -> [KubernetesObject] {
        [namespace, serviceAccount] + accessRules + [
            settingsMap(settings), service, deployment(settings), webhookConfiguration(settings, caBundle: nil),
        ]
    }

    /// The same as one text of YAML.
    package static func yaml(_ settings: InstallSettings) -> String {
        render(settings).map { YAMLWriter.text($0.json) }.joined(separator: "---\n")
    }

    static let selector: JSONValue = ["app.kubernetes.io/name": .string(MeshInstallation.controlName)]

    static func metadata(_ name: String, isNamespaced: Bool = true) -> JSONValue {
        var metadata: JSONValue = [
            "name": .string(name),
            "labels": [
                "app.kubernetes.io/name": .string(MeshInstallation.controlName), "app.kubernetes.io/part-of": "apus",
            ],
        ]
        if isNamespaced { metadata["namespace"] = .string(MeshInstallation.namespace) }
        return metadata
    }

    private static var namespace: KubernetesObject {
        var metadata = metadata(MeshInstallation.namespace, isNamespaced: false)
        metadata[path: "labels", MeshLabel.inject] = "disabled"
        return KubernetesObject(["apiVersion": "v1", "kind": "Namespace", "metadata": metadata])
    }

    private static var serviceAccount: KubernetesObject {
        KubernetesObject([
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(MeshInstallation.controlName),
        ])
    }

    private static func settingsMap(_ settings: InstallSettings) -> KubernetesObject {
        KubernetesObject([
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(MeshInstallation.settingsName),
            "data": .object([
                SettingsReader.trustDomainKey: .string(settings.mesh.trustDomain),
                SettingsReader.plaintextKey: .string(settings.mesh.plaintext.rawValue),
                SettingsReader.unknownDestinationsKey: .string(settings.mesh.unknownDestinations.rawValue),
            ]),
        ])
    }

    private static var service: KubernetesObject {
        let ports: [(String, Int64, Int64)] = [
            ("grpc-discovery", 15010, 15010), ("https-webhook", 443, 15011), ("http-admin", 15014, 15014),
        ]
        return KubernetesObject([
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(MeshInstallation.controlName),
            "spec": [
                "selector": selector,
                "ports": .array(
                    ports.map {
                        ["name": .string($0.0), "port": .int($0.1), "targetPort": .int($0.2), "protocol": "TCP"]
                    }),
            ],
        ])
    }

    /// - Parameter caBundle: in PEM; nil until the control plane has started and filled it in.
    package static func webhookConfiguration(_ settings: InstallSettings, caBundle: [UInt8]?) -> KubernetesObject {
        var client: JSONValue = [
            "service": [
                "namespace": .string(MeshInstallation.namespace), "name": .string(MeshInstallation.controlName),
                "path": "/inject", "port": 443,
            ]
        ]
        client["caBundle"] = caBundle.map { .string(Data($0).base64EncodedString()) }
        let optOut: JSONValue = ["key": .string(MeshLabel.inject), "operator": "NotIn", "values": ["disabled"]]
        let systems = InjectionSettings.systemNamespaces.sorted().map { JSONValue.string($0) }
        let webhook: JSONValue = [
            "name": .string(webhookName), "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent", "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 5, "clientConfig": client,
            "rules": [
                [
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
                    "scope": "Namespaced",
                ]
            ],
            "namespaceSelector": [
                "matchExpressions": [
                    optOut, ["key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": .array(systems)],
                ]
            ],
            "objectSelector": ["matchExpressions": [optOut]],
        ]
        return KubernetesObject([
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": metadata(webhookConfigurationName, isNamespaced: false), "webhooks": [webhook],
        ])
    }
}
