import Foundation
import MeshKubernetes

/// A container that cannot be started as its specification stands: the reason is the API's, the message names the field.
struct ContainerConfigError: Error, Sendable, CustomStringConvertible {
    var reason = "CreateContainerConfigError"
    var message: String
    var description: String { message }
}

/// Reads ConfigMaps and Secrets for a pod.
struct PodObjects: Sendable {
    let api: any KubernetesAPI
    let namespace: String

    /// Nil when it does not exist and need not.
    func configMap(_ name: String, optional: Bool?) async throws -> [String: Data]? {
        guard let object = try await get(.configMap, name, optional) else { return nil }
        var values = (object.json["data"]?.object ?? [:]).compactMapValues { $0.string.map { Data($0.utf8) } }
        for (key, value) in object.json["binaryData"]?.object ?? [:] {
            values[key] = value.string.flatMap { Data(base64Encoded: $0) }
        }
        return values
    }

    func secret(_ name: String, optional: Bool?) async throws -> [String: Data]? {
        guard let object = try await get(.secret, name, optional) else { return nil }
        return (object.json["data"]?.object ?? [:]).compactMapValues { $0.string.flatMap { Data(base64Encoded: $0) } }
    }

    private func get(_ kind: ResourceKind, _ name: String, _ optional: Bool?) async throws -> KubernetesObject? {
        do {
            return try await api.get(kind, namespace: namespace, name: name)
        } catch let error as StatusError where error.code == 404 {
            if optional == true { return nil }
            throw ContainerConfigError(message: "\(kind.kind.lowercased()) \"\(name)\" not found")
        }
    }
}

/// A container's environment in its order: what the platform gives, then `envFrom`, then `env`, later ones winning.
struct ContainerEnvironment {
    private(set) var variables: [(name: String, value: String)] = []
    private var index: [String: Int] = [:]

    /// Together with the arguments the kernel takes about 2 MiB.
    static let byteLimit = 1 << 20

    subscript(name: String) -> String? {
        get { index[name].map { variables[$0].value } }
        set {
            guard let newValue else { return }
            if let position = index[name] {
                variables[position].value = newValue
            } else {
                index[name] = variables.count
                variables.append((name, newValue))
            }
        }
    }

    func expand(_ text: String) -> String { VariableExpansion.expand(text) { self[$0] } }

    init(
        _ container: Kubernetes.Container, defaults: [(String, String)], fields: DownwardFields, node: NodeCapacity,
        objects: PodObjects
    ) async throws {
        for (name, value) in defaults { self[name] = value }
        for source in container.envFrom {
            var values: [String: Data] = [:]
            if let reference = source.configMapRef {
                values = try await objects.configMap(reference.name, optional: reference.optional) ?? [:]
            } else if let reference = source.secretRef {
                values = try await objects.secret(reference.name, optional: reference.optional) ?? [:]
            }
            for (key, value) in values.sorted(by: { $0.key < $1.key }) {
                self[source.prefix + key] = String(decoding: value, as: UTF8.self)
            }
        }
        for entry in container.env {
            guard let source = entry.valueFrom else {
                self[entry.name] = expand(entry.value ?? "")
                continue
            }
            if let value = try await Self.value(source, entry.name, container, fields, node, objects) {
                self[entry.name] = value
            }
        }
        let bytes = variables.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count + 2 }
        guard bytes <= ContainerEnvironment.byteLimit else {
            throw ContainerConfigError(
                message:
                    "container \(container.name): its environment has \(bytes) bytes, more than \(ContainerEnvironment.byteLimit); "
                    + "mount large values as files")
        }
    }

    /// Nil leaves the variable out: its source is optional and absent.
    private static func value(
        _ source: Kubernetes.EnvVarSource, _ name: String, _ container: Kubernetes.Container, _ fields: DownwardFields,
        _ node: NodeCapacity,
        _ objects: PodObjects
    ) async throws -> String? {
        if let reference = source.fieldRef {
            guard let value = fields.value(reference.fieldPath) else {
                throw ContainerConfigError(
                    message:
                        "env \(name): fieldPath '\(reference.fieldPath)' is unknown; expected one such as metadata.name or status.podIP"
                )
            }
            return value
        }
        if let reference = source.resourceFieldRef {
            guard let value = fields.resource(reference, container: container.name, node) else {
                throw ContainerConfigError(
                    message:
                        "env \(name): resource '\(reference.resource)' is unknown; expected limits or requests of cpu or memory"
                )
            }
            return value
        }
        let reference: Kubernetes.KeySelector
        let values: [String: Data]?
        let kind: String
        if let selector = source.configMapKeyRef {
            (reference, kind) = (selector, "ConfigMap")
            values = try await objects.configMap(selector.name, optional: selector.optional)
        } else if let selector = source.secretKeyRef {
            (reference, kind) = (selector, "Secret")
            values = try await objects.secret(selector.name, optional: selector.optional)
        } else {
            return ""
        }
        if let value = values?[reference.key] { return String(decoding: value, as: UTF8.self) }
        if reference.optional == true { return nil }
        throw ContainerConfigError(
            message: "env \(name): couldn't find key \(reference.key) in \(kind) \(objects.namespace)/\(reference.name)"
        )
    }
}
