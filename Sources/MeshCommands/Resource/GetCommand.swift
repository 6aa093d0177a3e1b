package import ArgumentParser
import Foundation
import MeshKubernetes

package struct GetCommand: AsyncParsableCommand {
    enum Format: String, ExpressibleByArgument, CaseIterable {
        case table
        case wide
        case json
        case yaml
        case name
    }

    package static let configuration = CommandConfiguration(
        commandName: "get", abstract: "Show objects: apus get pods, apus get deployment/web -o yaml.")

    @OptionGroup var platform: PlatformOptions
    @OptionGroup var scope: NamespaceOptions

    @Option(name: .shortAndLong, help: "table, wide, json, yaml or name.")
    var output: Format = .table

    @Option(
        name: [.customShort("l"), .customLong("selector")], help: "Only objects with these labels: app=web,tier!=test.")
    var selector: String?

    @Option(help: "Only objects with these fields: status.phase=Running.")
    var fieldSelector: String?

    @Flag(name: .shortAndLong, help: "Go on with what changes, until Ctrl-C.")
    var watch = false

    @Argument(help: "TYPE, TYPE NAME… or TYPE/NAME…")
    var resource: [String]

    package init() {}

    package mutating func run() async throws {
        let command = self
        try await platform.withClient { client in
            let catalog = try await ResourceCatalog.load(client)
            let targets = try catalog.parse(command.resource)
            if command.watch {
                guard targets.count == 1 else { throw CommandFailure("--watch takes one resource type or one object") }
                return try await command.follow(targets[0], client)
            }
            switch command.output {
            case .table, .wide: try await command.printTables(targets, client)
            case .json, .yaml, .name: try await command.printObjects(targets, client)
            }
        }
    }

    private func namespace(_ kind: ResourceKind, _ client: KubernetesClient) -> String? {
        guard kind.isNamespaced, !scope.allNamespaces else { return nil }
        return scope.namespace ?? client.defaultNamespace
    }

    // MARK: - Documents

    private func printObjects(_ targets: [(kind: ResourceKind, name: String?)], _ client: KubernetesClient) async throws
    {
        var items: [KubernetesObject] = []
        for target in targets {
            if let name = target.name {
                items.append(try await client.get(target.kind, namespace: namespace(target.kind, client), name: name))
            } else {
                let list = try await client.list(
                    target.kind, namespace: namespace(target.kind, client), labelSelector: selector,
                    fieldSelector: fieldSelector)
                items += list.items.map { item in
                    var item = item
                    item.json["kind"] = .string(target.kind.kind)
                    item.json["apiVersion"] = .string(target.kind.apiVersion)
                    return item
                }
            }
        }
        if output == .name {
            return Terminal.print(items.map { "\($0.kind.lowercased())/\($0.name)\n" }.joined())
        }
        let isSingle = targets.count == 1 && targets[0].name != nil
        let document: JSONValue =
            isSingle
            ? items[0].json : ["apiVersion": "v1", "kind": "List", "metadata": [:], "items": .array(items.map(\.json))]
        Terminal.print(
            output == .yaml
                ? YAMLWriter.text(document) : String(decoding: document.data(pretty: true), as: UTF8.self) + "\n")
    }

    // MARK: - Tables

    /// Tables are the server's own (`as=Table`), so that a cluster's columns and a CustomResourceDefinition's are shown as they are meant.
    private func printTables(_ targets: [(kind: ResourceKind, name: String?)], _ client: KubernetesClient) async throws
    {
        for (index, target) in targets.enumerated() {
            let table = try await table(target, client)
            if (table["rows"]?.array ?? []).isEmpty && target.name == nil {
                let place = namespace(target.kind, client).map { " in namespace \($0)" } ?? ""
                Terminal.note("no \(target.kind.plural)\(place)")
                continue
            }
            if index > 0 && target.name == nil { Terminal.print("\n") }
            Terminal.print(render(table, header: target.name == nil || index == 0))
        }
    }

    private func table(_ target: (kind: ResourceKind, name: String?), _ client: KubernetesClient) async throws
        -> JSONValue
    {
        var path = target.kind.path(namespace: namespace(target.kind, client))
        if let name = target.name { path += "/" + APIRequest.segment(name) }
        var query: [(name: String, value: String)] = []
        if target.name == nil {
            if let selector { query.append(("labelSelector", selector)) }
            if let fieldSelector { query.append(("fieldSelector", fieldSelector)) }
        }
        let response = try await client.raw(
            APIRequest(
                "GET", path, query: query, accept: "application/json;as=Table;g=meta.k8s.io;v=v1, application/json"))
        let document = try JSONValue(parsing: Data(response.body))
        guard response.status == 200 else {
            throw CommandFailure(document["message"]?.string ?? "the server answered \(response.status)")
        }
        return document
    }

    private func render(_ table: JSONValue, header: Bool) -> String {
        let columns = table["columnDefinitions"]?.array ?? []
        let shown = columns.indices.filter { output == .wide || (columns[$0]["priority"]?.int ?? 0) == 0 }
        let withNamespace = scope.allNamespaces
        var text = TextTable(
            header: (withNamespace ? ["NAMESPACE"] : [])
                + shown.map { (columns[$0]["name"]?.string ?? "").uppercased() })
        for row in table["rows"]?.array ?? [] {
            let cells = row["cells"]?.array ?? []
            let namespace = row[path: "object", "metadata", "namespace"]?.string ?? ""
            text.add(
                cells: (withNamespace ? [namespace] : [])
                    + shown.map { $0 < cells.count ? GetCommand.cell(cells[$0]) : "" })
        }
        return header ? text.text : String(text.text.drop { $0 != "\n" }.dropFirst())
    }

    private static func cell(_ value: JSONValue) -> String {
        switch value {
        case .string(let text): text
        case .null: "<none>"
        default: String(decoding: value.data(), as: UTF8.self)
        }
    }

    // MARK: - Watching

    private func follow(_ target: (kind: ResourceKind, name: String?), _ client: KubernetesClient) async throws {
        let namespace = namespace(target.kind, client)
        let field = target.name.map { "metadata.name=\($0)" } ?? fieldSelector
        var version = try await client.list(
            target.kind, namespace: namespace, labelSelector: selector, fieldSelector: field
        ).resourceVersion
        if output == .table || output == .wide {
            try await printTables([target], client)
        } else {
            try await printObjects([target], client)
        }
        while !Task.isCancelled {
            do {
                let events = client.watch(
                    target.kind, namespace: namespace, labelSelector: selector, fieldSelector: field,
                    resourceVersion: version)
                for try await event in events {
                    version = event.object.resourceVersion
                    if event.change == .bookmark { continue }
                    try await show(event, target.kind, client)
                }
            } catch let error as StatusError where error.code == 410 {
                version = try await client.list(
                    target.kind, namespace: namespace, labelSelector: selector, fieldSelector: field
                ).resourceVersion
            }
        }
    }

    private func show(_ event: WatchEvent, _ kind: ResourceKind, _ client: KubernetesClient) async throws {
        switch output {
        case .json: Terminal.print(String(decoding: event.object.json.data(), as: UTF8.self) + "\n")
        case .yaml: Terminal.print("---\n" + YAMLWriter.text(event.object.json))
        case .name: Terminal.print("\(kind.kind.lowercased())/\(event.object.name)\n")
        case .table, .wide:
            if event.change == .deleted { return Terminal.print("\(event.object.name)   deleted\n") }
            var single = self
            single.scope.namespace = event.object.namespace ?? scope.namespace
            // Gone again before it could be asked for: its deletion is the next event.
            guard let table = try? await single.table((kind, event.object.name), client) else { return }
            Terminal.print(single.render(table, header: false))
        }
    }
}
