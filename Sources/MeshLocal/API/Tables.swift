import Foundation
package import MeshKubernetes

/// What `kubectl get` shows: a table made by the server (`meta.k8s.io/v1` Table).
package struct TablePrinter: Sendable {
    struct Column: Sendable {
        var name: String
        var type = "string"
        var format = ""
        /// Columns above 0 are shown with `-o wide`.
        var priority = 0
        var value: @Sendable (_ json: JSONValue, _ now: KubernetesTime) -> JSONValue
    }

    enum IncludedObject: String, Sendable {
        case metadata = "Metadata"
        case object = "Object"
        case none = "None"
    }

    private let columns: [Column]

    init(_ served: ServedKind) {
        columns = TableColumns.columns(served)
    }

    func table(
        _ objects: [KubernetesObject], metadata: JSONValue, including included: IncludedObject,
        now: KubernetesTime = .now
    ) -> JSONValue {
        [
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "columnDefinitions": .array(
                columns.map { column in
                    [
                        "name": .string(column.name), "type": .string(column.type), "format": .string(column.format),
                        "description": .string(column.name), "priority": .int(Int64(column.priority)),
                    ]
                }),
            "rows": .array(objects.map { row($0, included, now) }),
        ]
    }

    private func row(_ object: KubernetesObject, _ included: IncludedObject, _ now: KubernetesTime) -> JSONValue {
        var row: JSONValue = ["cells": .array(columns.map { $0.value(object.json, now) })]
        switch included {
        case .metadata:
            row["object"] = [
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": object.json["metadata"] ?? [:],
            ]
        case .object: row["object"] = object.json
        case .none: break
        }
        return row
    }

    /// A time span as kubectl writes it: two units at most, one when it is long.
    package static func duration(_ seconds: Int64) -> String {
        let seconds = max(seconds, 0)
        let minutes = seconds / 60
        let hours = minutes / 60
        let days = hours / 24
        switch seconds {
        case ..<120: return "\(seconds)s"
        case ..<600: return seconds % 60 == 0 ? "\(minutes)m" : "\(minutes)m\(seconds % 60)s"
        case ..<10_800: return "\(minutes)m"
        case ..<28_800: return minutes % 60 == 0 ? "\(hours)h" : "\(hours)h\(minutes % 60)m"
        case ..<172_800: return "\(hours)h"
        case ..<691_200: return hours % 24 == 0 ? "\(days)d" : "\(days)d\(hours % 24)h"
        case ..<63_072_000: return "\(days)d"
        default: return "\(days / 365)y"
        }
    }
}

/// The columns of each kind.
enum TableColumns {
    typealias Column = TablePrinter.Column

    static func columns(_ served: ServedKind) -> [Column] {
        let name = Column(name: "Name", format: "name") { json, _ in json[path: "metadata", "name"] ?? "" }
        let age = Column(name: "Age") { json, now in .string(self.age(json[path: "metadata", "creationTimestamp"], now))
        }
        if served.isCustom {
            guard !served.columns.isEmpty else { return [name, age] }
            return [name] + served.columns.map(custom)
        }
        switch served.kind.storageName {
        case "pods": return [name] + pods + [age] + podsWide
        case "services": return [name] + services + [age, selector(["spec", "selector"])]
        case "deployments.apps": return [name] + deployments + [age] + templateWide
        case "replicasets.apps": return [name] + replicaSets + [age] + templateWide
        case "jobs.batch": return [name] + jobs + [age]
        case "nodes": return [name] + nodes(age)
        case "namespaces":
            return [name, text("Status", ["status", "phase"]), age]
        case "endpointslices.discovery.k8s.io": return [name] + endpointSlices + [age]
        case "configmaps": return [name, count("Data", "data"), age]
        case "secrets": return [name, text("Type", ["type"]), count("Data", "data"), age]
        case "events": return events
        case "leases.coordination.k8s.io": return [name, text("Holder", ["spec", "holderIdentity"]), age]
        case "mutatingwebhookconfigurations.admissionregistration.k8s.io":
            return [name, count("Webhooks", "webhooks"), age]
        case "customresourcedefinitions.apiextensions.k8s.io":
            return [name, Column(name: "Created At") { json, _ in json[path: "metadata", "creationTimestamp"] ?? "" }]
        default: return [name, age]
        }
    }

    static func age(_ value: JSONValue?, _ now: KubernetesTime) -> String {
        guard let text = value?.string, let time = KubernetesTime(text) else { return "<unknown>" }
        return TablePrinter.duration(now.seconds - time.seconds)
    }

    private static func text(_ name: String, _ path: [String], priority: Int = 0) -> Column {
        Column(name: name, priority: priority) { json, _ in path.reduce(json) { $0?[$1] } ?? "<none>" }
    }

    private static func number(_ name: String, _ path: [String]) -> Column {
        Column(name: name, type: "integer") { json, _ in path.reduce(json) { $0?[$1] } ?? 0 }
    }

    private static func count(_ name: String, _ field: String) -> Column {
        Column(name: name, type: "integer") { json, _ in
            .int(Int64(json[field]?.object?.count ?? json[field]?.array?.count ?? 0))
        }
    }

    private static func selector(_ path: [String]) -> Column {
        Column(name: "Selector", priority: 1) { json, _ in
            let members = path.reduce(json) { $0?[$1] }?.object ?? [:]
            let pairs = members.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value.string ?? "")" }
            return .string(pairs.isEmpty ? "<none>" : pairs.joined(separator: ","))
        }
    }

    private static func int(_ json: JSONValue, _ path: String...) -> Int {
        path.reduce(json) { $0?[$1] }?.int ?? 0
    }

    // MARK: - Pods

    private static let pods = [
        Column(name: "Ready") { json, _ in
            let statuses = json[path: "status", "containerStatuses"]?.array ?? []
            let sidecars = Set(
                (json[path: "spec", "initContainers"]?.array ?? []).filter { $0["restartPolicy"] == "Always" }
                    .compactMap { $0["name"]?.string })
            let running = (json[path: "status", "initContainerStatuses"]?.array ?? []).filter {
                sidecars.contains($0["name"]?.string ?? "") && $0["ready"]?.bool == true
            }
            let ready = statuses.filter { $0["ready"]?.bool == true }.count + running.count
            return .string("\(ready)/\((json[path: "spec", "containers"]?.array?.count ?? 0) + sidecars.count)")
        },
        Column(name: "Status") { json, _ in .string(podStatus(json)) },
        Column(name: "Restarts") { json, _ in
            let statuses =
                (json[path: "status", "containerStatuses"]?.array ?? [])
                + (json[path: "status", "initContainerStatuses"]?.array ?? [])
            return .string(String(statuses.reduce(0) { $0 &+ ($1["restartCount"]?.int ?? 0) }))
        },
    ]

    private static let podsWide = [
        text("IP", ["status", "podIP"], priority: 1), text("Node", ["spec", "nodeName"], priority: 1),
    ]

    /// One word for where a pod is: the first container that is not as it should be, else the phase.
    static func podStatus(_ json: JSONValue) -> String {
        var reason = json[path: "status", "reason"]?.string ?? json[path: "status", "phase"]?.string ?? "Unknown"
        let initSpecs = json[path: "spec", "initContainers"]?.array ?? []
        let sidecars = Set(initSpecs.filter { $0["restartPolicy"] == "Always" }.compactMap { $0["name"]?.string })
        var isInitializing = false
        for (index, status) in (json[path: "status", "initContainerStatuses"]?.array ?? []).enumerated() {
            let state = status["state"]
            if state?[path: "terminated", "exitCode"]?.int == 0 { continue }
            if sidecars.contains(status["name"]?.string ?? ""), status["started"]?.bool == true { continue }
            if let terminated = state?["terminated"] {
                reason = "Init:" + (terminated["reason"]?.string ?? "ExitCode:\(terminated["exitCode"]?.int ?? 0)")
            } else if let waiting = state?[path: "waiting", "reason"]?.string, waiting != "PodInitializing",
                !waiting.isEmpty
            {
                reason = "Init:\(waiting)"
            } else {
                reason = "Init:\(index)/\(initSpecs.count)"
            }
            isInitializing = true
            break
        }
        // A sidecar that was ended after the application is not one that failed to start.
        let isInitialized = (json[path: "status", "conditions"]?.array ?? []).contains {
            $0["type"] == "Initialized" && $0["status"] == "True"
        }
        if !isInitializing || isInitialized {
            for status in (json[path: "status", "containerStatuses"]?.array ?? []).reversed() {
                if let waiting = status[path: "state", "waiting", "reason"]?.string, !waiting.isEmpty {
                    reason = waiting
                } else if let terminated = status[path: "state", "terminated"] {
                    reason = terminated["reason"]?.string ?? "ExitCode:\(terminated["exitCode"]?.int ?? 0)"
                }
            }
        }
        return json[path: "metadata", "deletionTimestamp"] != nil ? "Terminating" : reason
    }

    // MARK: - The others

    private static let services = [
        text("Type", ["spec", "type"]),
        Column(name: "Cluster-IP") { json, _ in json[path: "spec", "clusterIP"] ?? "<none>" },
        Column(name: "External-IP") { json, _ in json[path: "spec", "externalName"] ?? "<none>" },
        Column(name: "Port(s)") { json, _ in
            let ports = (json[path: "spec", "ports"]?.array ?? []).map {
                "\($0["port"]?.int ?? 0)/\($0["protocol"]?.string ?? "TCP")"
            }
            return .string(ports.isEmpty ? "<none>" : ports.joined(separator: ","))
        },
    ]

    private static let deployments = [
        Column(name: "Ready") { json, _ in
            .string("\(int(json, "status", "readyReplicas"))/\(int(json, "spec", "replicas"))")
        },
        number("Up-to-date", ["status", "updatedReplicas"]), number("Available", ["status", "availableReplicas"]),
    ]

    private static let replicaSets = [
        number("Desired", ["spec", "replicas"]), number("Current", ["status", "replicas"]),
        number("Ready", ["status", "readyReplicas"]),
    ]

    private static let templateWide = [
        Column(name: "Containers", priority: 1) { json, _ in .string(template(json, "name")) },
        Column(name: "Images", priority: 1) { json, _ in .string(template(json, "image")) },
        selector(["spec", "selector", "matchLabels"]),
    ]

    private static func template(_ json: JSONValue, _ field: String) -> String {
        (json[path: "spec", "template", "spec", "containers"]?.array ?? []).compactMap { $0[field]?.string }.joined(
            separator: ",")
    }

    private static let jobs = [
        Column(name: "Status") { json, _ in
            let conditions = json[path: "status", "conditions"]?.array ?? []
            for (type, word) in [("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")]
            where conditions.contains(where: { $0["type"]?.string == type && $0["status"] == "True" }) {
                return .string(word)
            }
            return json[path: "metadata", "deletionTimestamp"] != nil ? "Terminating" : "Running"
        },
        Column(name: "Completions") { json, _ in
            let wanted =
                json[path: "spec", "completions"]?.int.map(String.init) ?? "1 of \(int(json, "spec", "parallelism"))"
            return .string("\(int(json, "status", "succeeded"))/\(wanted)")
        },
        Column(name: "Duration") { json, now in
            guard let start = json[path: "status", "startTime"]?.string.flatMap({ KubernetesTime($0) }) else {
                return ""
            }
            let end = json[path: "status", "completionTime"]?.string.flatMap { KubernetesTime($0) } ?? now
            return .string(TablePrinter.duration(end.seconds - start.seconds))
        },
    ]

    private static func nodes(_ age: Column) -> [Column] {
        [
            Column(name: "Status") { json, _ in
                let ready = json[path: "status", "conditions"]?.array?.first { $0["type"] == "Ready" }
                return ready?["status"] == "True" ? "Ready" : "NotReady"
            },
            Column(name: "Roles") { _, _ in "control-plane" }, age,
            text("Version", ["status", "nodeInfo", "kubeletVersion"]),
            Column(name: "Internal-IP", priority: 1) { json, _ in
                json[path: "status", "addresses"]?.array?.first { $0["type"] == "InternalIP" }?["address"] ?? "<none>"
            },
        ]
    }

    private static let endpointSlices = [
        text("AddressType", ["addressType"]),
        Column(name: "Ports") { json, _ in
            .string(limited((json["ports"]?.array ?? []).map { $0["port"]?.int.map(String.init) ?? "*" }, "<unset>"))
        },
        Column(name: "Endpoints") { json, _ in
            .string(
                limited(
                    (json["endpoints"]?.array ?? []).flatMap { $0["addresses"]?.array?.compactMap(\.string) ?? [] },
                    "<unset>"))
        },
    ]

    private static func limited(_ list: [String], _ none: String) -> String {
        guard !list.isEmpty else { return none }
        return list.prefix(3).joined(separator: ",") + (list.count > 3 ? " + \(list.count - 3) more..." : "")
    }

    private static let events = [
        Column(name: "Last Seen") { json, now in
            .string(age(json["lastTimestamp"]?.string == nil ? json["eventTime"] : json["lastTimestamp"], now))
        },
        text("Type", ["type"]), text("Reason", ["reason"]),
        Column(name: "Object") { json, _ in
            let object = json["involvedObject"]
            return .string("\(object?["kind"]?.string?.lowercased() ?? "")/\(object?["name"]?.string ?? "")")
        },
        text("Message", ["message"]),
    ]

    // MARK: - Columns of a CustomResourceDefinition

    private static func custom(_ column: PrinterColumn) -> Column {
        let steps = PrinterPath(column.path)
        return Column(name: column.name, type: column.type, priority: column.priority) { json, now in
            let value = steps.value(in: json)
            if column.type == "date" { return .string(age(value, now)) }
            switch value {
            case nil, .null: return ""
            case .string, .int, .double, .bool: return value ?? ""
            case .some(let other): return .string(String(decoding: other.data(), as: UTF8.self))
            }
        }
    }
}

/// The part of JSONPath that printer columns use: `.a.b`, `.a['b.c']`, `.list[0]`, `.list[?(@.type=="Ready")].status`.
package struct PrinterPath: Hashable, Sendable {
    private enum Step: Hashable, Sendable {
        case member(String)
        case index(Int)
        case filter(member: String, value: String)
    }

    private var steps: [Step] = []

    /// A path that is not understood finds nothing.
    package init(_ text: String) {
        var rest = text[...]
        if rest.first == "$" { rest.removeFirst() }
        while let first = rest.first {
            if first == "." {
                rest.removeFirst()
                var name = ""
                while let next = rest.first, next != ".", next != "[" {
                    rest.removeFirst()
                    if next == "\\", let escaped = rest.first {
                        name.append(escaped)
                        rest.removeFirst()
                    } else {
                        name.append(next)
                    }
                }
                if !name.isEmpty { steps.append(.member(name)) }
            } else if first == "[", let end = rest.firstIndex(of: "]") {
                steps.append(Self.bracket(rest[rest.index(after: rest.startIndex)..<end]))
                rest = rest[rest.index(after: end)...]
            } else {
                steps = [.member("")]
                return
            }
        }
    }

    private static func bracket(_ text: Substring) -> Step {
        if let index = Int(text) { return .index(index) }
        func unquoted(_ text: some StringProtocol) -> String {
            text.trimmingCharacters(in: CharacterSet(charactersIn: "'\" "))
        }
        guard text.hasPrefix("?(@."), text.hasSuffix(")") else { return .member(unquoted(text)) }
        let parts = text.dropFirst(4).dropLast().components(separatedBy: "==")
        guard parts.count == 2 else { return .member("") }
        return .filter(member: unquoted(parts[0]), value: unquoted(parts[1]))
    }

    package func value(in json: JSONValue) -> JSONValue? {
        steps.reduce(json) { value, step in
            switch step {
            case .member(let name): value?[name]
            case .index(let index): value?[index]
            case .filter(let member, let wanted): value?.array?.first { $0[member]?.string == wanted }
            }
        }
    }
}
