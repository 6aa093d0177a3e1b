package import ArgumentParser
import MeshKubernetes

package struct DeleteCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Delete objects: apus delete pod web-1, apus delete -f shop.yaml.")

    @OptionGroup var platform: PlatformOptions
    @OptionGroup var scope: NamespaceOptions

    @Option(name: .shortAndLong, help: "Delete what these manifests name.")
    var filename: [String] = []

    @Option(name: [.customShort("l"), .customLong("selector")], help: "Delete the objects with these labels.")
    var selector: String?

    @Flag(help: "Delete every object of the type in the namespace.")
    var all = false

    @Option(help: "Seconds that pods get to end; 0 kills them.")
    var gracePeriod: Int?

    @Flag(inversion: .prefixedNo, help: "Wait until the objects are gone.")
    var wait = true

    @Argument(help: "TYPE NAME… or TYPE/NAME…")
    var resource: [String] = []

    package init() {}

    package mutating func validate() throws {
        if filename.isEmpty == resource.isEmpty { throw ValidationError("name objects, or give manifests with -f") }
        if let gracePeriod, gracePeriod < 0 {
            throw ValidationError("--grace-period is \(gracePeriod): give seconds, 0 or more")
        }
    }

    package mutating func run() async throws {
        let command = self
        try await platform.withClient { client in
            let catalog = try await ResourceCatalog.load(client)
            var failures = 0
            var gone: [(kind: ResourceKind, namespace: String?, name: String, uid: String)] = []
            for target in try await command.targets(catalog, client) {
                do {
                    let live = try await client.get(target.kind, namespace: target.namespace, name: target.name)
                    try await client.delete(
                        target.kind, namespace: target.namespace, name: target.name,
                        gracePeriodSeconds: command.gracePeriod, uid: nil)
                    Terminal.print("\(target.kind.kind.lowercased())/\(target.name) deleted\n")
                    gone.append((target.kind, target.namespace, target.name, live.uid))
                } catch {
                    failures += 1
                    Terminal.note("apus: \(error)")
                }
            }
            if command.wait { for object in gone { try await command.waitUntilGone(object, client) } }
            guard failures == 0 else { throw ExitCode(1) }
        }
    }

    private func targets(_ catalog: ResourceCatalog, _ client: KubernetesClient) async throws -> [(
        kind: ResourceKind, namespace: String?, name: String
    )] {
        let namespace = scope.namespace ?? client.defaultNamespace
        if !filename.isEmpty {
            // In the opposite order, so that what was applied into a namespace goes before it.
            return try Manifests.load(filename).reversed().map { object in
                let kind = try catalog.kind(of: object)
                return (kind, kind.isNamespaced ? object.namespace ?? namespace : nil, object.name)
            }
        }
        var targets: [(ResourceKind, String?, String)] = []
        for (kind, name) in try catalog.parse(resource) {
            let place = kind.isNamespaced ? namespace : nil
            if let name {
                targets.append((kind, place, name))
            } else {
                guard all || selector != nil else {
                    throw CommandFailure("name the \(kind.plural), or give --selector or --all")
                }
                let list = try await client.list(kind, namespace: place, labelSelector: selector, fieldSelector: nil)
                targets += list.items.map { (kind, place, $0.name) }
            }
        }
        return targets
    }

    private func waitUntilGone(
        _ object: (kind: ResourceKind, namespace: String?, name: String, uid: String), _ client: KubernetesClient
    ) async throws {
        while true {
            do {
                guard
                    try await client.get(object.kind, namespace: object.namespace, name: object.name).uid == object.uid
                else { return }
            } catch let error as StatusError where error.code == 404 {
                return
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}
