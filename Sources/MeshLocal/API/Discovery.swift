import Foundation
import MeshKubernetes

/// The documents with which clients find out what the server answers for.
struct Discovery: Sendable {
    var registry: ResourceRegistry
    var version: String

    /// `/api`.
    var coreVersions: JSONValue {
        ["kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []]
    }

    /// `/apis`.
    var groups: JSONValue {
        let names = Set(registry.all.map(\.kind.group)).subtracting([""]).sorted()
        return ["kind": "APIGroupList", "apiVersion": "v1", "groups": .array(names.compactMap(group))]
    }

    /// `/apis/GROUP`; nil when nothing is served there.
    func group(_ name: String) -> JSONValue? {
        var versions: [String] = []
        for served in registry.all where served.kind.group == name && !versions.contains(served.kind.version) {
            versions.append(served.kind.version)
        }
        versions.sort { Self.rank($0) > Self.rank($1) }
        guard let preferred = versions.first else { return nil }
        func entry(_ version: String) -> JSONValue {
            ["groupVersion": .string("\(name)/\(version)"), "version": .string(version)]
        }
        return [
            "kind": "APIGroup", "apiVersion": "v1", "name": .string(name), "versions": .array(versions.map(entry)),
            "preferredVersion": entry(preferred),
        ]
    }

    /// Stable before beta before alpha, higher numbers first.
    private static func rank(_ version: String) -> Int {
        let stability = version.contains("alpha") ? 0 : version.contains("beta") ? 1 : 2
        let number = Int(version.dropFirst().prefix { $0.isNumber }) ?? 0
        return stability * 1_000_000 + min(number, 999_999)
    }

    /// `/api/v1` and `/apis/GROUP/VERSION`; nil when nothing is served there.
    func resources(group: String, version: String) -> JSONValue? {
        let served = registry.all.filter { $0.kind.group == group && $0.kind.version == version }
        guard !served.isEmpty else { return nil }
        return [
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": .string(group.isEmpty ? version : "\(group)/\(version)"),
            "resources": .array(served.flatMap(resources)),
        ]
    }

    private func resources(_ served: ServedKind) -> [JSONValue] {
        let kind = served.kind
        var main: JSONValue = [
            "name": .string(kind.plural), "singularName": .string(served.singular),
            "namespaced": .bool(kind.isNamespaced),
            "kind": .string(kind.kind), "verbs": .array(served.verbs.map { .string($0) }),
        ]
        if !kind.shortNames.isEmpty { main["shortNames"] = .array(kind.shortNames.map { .string($0) }) }
        if !served.categories.isEmpty { main["categories"] = .array(served.categories.map { .string($0) }) }
        var list = [main]
        func add(
            _ name: String, _ resourceKind: String, _ verbs: [JSONValue], group: String? = nil, version: String? = nil
        ) {
            var entry: JSONValue = [
                "name": .string("\(kind.plural)/\(name)"), "singularName": "", "namespaced": .bool(kind.isNamespaced),
                "kind": .string(resourceKind), "verbs": .array(verbs),
            ]
            if let group { entry["group"] = .string(group) }
            if let version { entry["version"] = .string(version) }
            list.append(entry)
        }
        if served.hasStatus { add("status", kind.kind, ["get", "patch", "update"]) }
        switch kind.storageName {
        case "pods":
            add("log", "Pod", ["get"])
            add("exec", "PodExecOptions", ["create", "get"])
            add("proxy", "PodProxyOptions", ["create", "get"])
        case "services": add("proxy", "ServiceProxyOptions", ["create", "get"])
        case "serviceaccounts": add("token", "TokenRequest", ["create"], group: "authentication.k8s.io", version: "v1")
        case "deployments.apps", "replicasets.apps":
            add("scale", "Scale", ["get", "patch", "update"], group: "autoscaling", version: "v1")
        default: break
        }
        return list
    }

    /// `/version`.
    var versionDocument: JSONValue {
        let numbers = version.drop { !$0.isNumber }.split(separator: ".")
        return [
            "major": .string(numbers.first.map(String.init) ?? "1"),
            "minor": .string(numbers.dropFirst().first.map(String.init) ?? "31"), "gitVersion": .string(version),
            "platform": "linux", "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "swift",
        ]
    }

    // MARK: - OpenAPI

    /// `/openapi/v3`. kubectl looks here whether the server checks fields by itself before it sends an object; the documents
    /// say no more than that.
    var openAPI: JSONValue {
        var paths: JSONValue = [:]
        for kind in registry.all.map(\.kind) {
            let path = kind.group.isEmpty ? "api/\(kind.version)" : "apis/\(kind.group)/\(kind.version)"
            paths[path] = ["serverRelativeURL": .string("/openapi/v3/\(path)")]
        }
        return ["paths": paths]
    }

    /// `/openapi/v2`, which kubectl of before 1.27 must have before it applies anything: a description of no kind at all, so that it leaves
    /// the checks to the server. Protocol buffers in the fields of gnostic's `openapi.v2.Document`: swagger 1, info 2 (title 1, version 2).
    var formerOpenAPI: [UInt8] {
        func field(_ number: UInt8, _ bytes: [UInt8]) -> [UInt8] {
            [number << 3 | 2, UInt8(min(bytes.count, 127))] + bytes.prefix(127)
        }
        let info = field(1, Array("Kubernetes".utf8)) + field(2, Array(version.utf8.prefix(64)))
        return field(1, Array("2.0".utf8)) + field(2, info)
    }

    func openAPIDocument(group: String, version: String) -> JSONValue? {
        let served = registry.all.filter { $0.kind.group == group && $0.kind.version == version }
        guard !served.isEmpty else { return nil }
        var paths: JSONValue = [:]
        for kind in served.map(\.kind) {
            let names: JSONValue = ["group": .string(group), "version": .string(version), "kind": .string(kind.kind)]
            let operation: JSONValue = [
                "x-kubernetes-group-version-kind": names, "responses": ["200": ["description": "OK"]],
                "parameters": ["fieldValidation", "fieldManager", "dryRun"].parameters,
            ]
            let root = kind.path(namespace: kind.isNamespaced ? "{namespace}" : nil)
            paths[root] = ["post": operation]
            paths["\(root)/{name}"] = ["patch": operation, "put": operation]
        }
        return [
            "openapi": "3.0.0", "info": ["title": "Kubernetes", "version": .string(self.version)], "paths": paths,
            "components": ["schemas": [:]],
        ]
    }
}

extension [String] {
    fileprivate var parameters: JSONValue {
        .array(map { ["name": .string($0), "in": "query", "schema": ["type": "string"]] })
    }
}
