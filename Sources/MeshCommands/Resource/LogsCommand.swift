package import ArgumentParser
import Foundation
import MeshKubernetes

package struct LogsCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "logs",
        abstract: "Print a container's log: apus logs web-1, apus logs -f deployment/web -c apus-proxy.")

    @OptionGroup var platform: PlatformOptions

    @Option(name: .shortAndLong, help: "The namespace; `default` when absent.")
    var namespace: String?

    @Option(name: .shortAndLong, help: "The container; the pod's first one when absent.")
    var container: String?

    @Flag(name: .shortAndLong, help: "Go on as the container writes.")
    var follow = false

    @Flag(name: .shortAndLong, help: "Of the container that ran before.")
    var previous = false

    @Flag(help: "Begin each line with its time.")
    var timestamps = false

    @Option(help: "Only the last lines.")
    var tail: Int?

    @Argument(help: "POD or TYPE/NAME, such as deployment/web.")
    var pod: String

    package init() {}

    package mutating func run() async throws {
        let command = self
        try await platform.withClient { client in
            let namespace = command.namespace ?? client.defaultNamespace
            let pod = try await PodReferenceResolver(client: client).pod(command.pod, namespace: namespace)
            var options = KubernetesClient.LogOptions()
            options.container = command.container ?? pod.json[path: "spec", "containers"]?[0]?["name"]?.string
            options.isFollowing = command.follow
            options.isPrevious = command.previous
            options.hasTimestamps = command.timestamps
            options.tailLines = command.tail
            for try await part in client.log(namespace: namespace, pod: pod.name, options) {
                FileHandle.standardOutput.write(Data(part))
            }
        }
    }
}
