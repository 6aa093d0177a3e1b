import Foundation
import MeshControl
import MeshKubernetes

/// The authority's state in the Secret `apus-ca`, and the trusted roots in the ConfigMap `apus-trust-bundle`, both in
/// the control plane's own namespace.
struct SecretAuthorityStorage: AuthorityStorage {
    static let secretName = "apus-ca"
    static let stateKey = "authority.json"
    static let bundleName = "apus-trust-bundle"
    static let bundleKey = "roots.pem"

    let api: any KubernetesAPI
    let namespace: String

    /// What the secret holds is not what this program put there.
    struct UnusableSecret: Error, CustomStringConvertible {
        let description: String
    }

    func load() async throws -> StoredAuthority? {
        let secret: KubernetesObject
        do {
            secret = try await api.get(.secret, namespace: namespace, name: Self.secretName)
        } catch let error as StatusError where error.code == 404 {
            return nil
        }
        guard let text = secret.json[path: "data", Self.stateKey]?.string, let data = Data(base64Encoded: text) else {
            throw UnusableSecret(
                description:
                    "the secret \(namespace)/\(Self.secretName) has no base64 text at data.\(Self.stateKey); delete the "
                    + "secret to begin a new mesh identity, or restore it")
        }
        return StoredAuthority(document: Array(data), version: secret.resourceVersion)
    }

    func store(_ document: [UInt8], replacing version: String?) async throws -> Bool {
        var object: JSONValue = [
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": [
                "name": .string(Self.secretName), "namespace": .string(namespace),
                "labels": ["app.kubernetes.io/part-of": "apus"],
            ],
            "data": [Self.stateKey: .string(Data(document).base64EncodedString())],
        ]
        do {
            if let version {
                object[path: "metadata", "resourceVersion"] = .string(version)
                _ = try await api.update(.secret, KubernetesObject(object), subresource: nil)
            } else {
                _ = try await api.create(.secret, KubernetesObject(object))
            }
            return true
        } catch let error as StatusError where error.code == 409 {
            return false
        }
    }

    func publish(bundle: String) async throws {
        let object: JSONValue = [
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": [
                "name": .string(Self.bundleName), "namespace": .string(namespace),
                "labels": ["app.kubernetes.io/part-of": "apus"],
            ],
            "data": [Self.bundleKey: .string(bundle)],
        ]
        do {
            _ = try await api.patch(
                .configMap, namespace: namespace, name: Self.bundleName, subresource: nil,
                .merge(["data": [Self.bundleKey: .string(bundle)]]))
        } catch let error as StatusError where error.code == 404 {
            _ = try await api.create(.configMap, KubernetesObject(object))
        }
    }
}
