import Foundation
import Testing

/// `apus up` as somebody at a terminal has it.
@Suite("The platform on a terminal", .serialized, .timeLimit(.minutes(5)))
struct TerminalTests {
    private func up(_ platform: Platform, presses: Int, after text: String, pause: Double = 0, file: String? = nil)
        async throws -> Command
    {
        let words = ["up"] + (file.map { ["-f", $0] } ?? [])
        return try await Command.run(
            [
                try Command.path(Workloads.python), try Workloads.path("terminal.py"), "\(presses)", text, "\(pause)",
            ] + (try platform.apusWords(words).withPath()), seconds: 100)
    }

    /// Nothing that Ctrl-C should have ended is there, and nothing was said that means nothing to who pressed it.
    private func expectCleanEnd(_ command: Command, _ platform: Platform) async throws {
        #expect(command.status == 0, "\(command.text)")
        #expect(command.output.contains("nothing is left but"), "\(command.text)")
        #expect(!command.output.contains("rror"), "\(command.text)")
        #expect(!command.output.contains("not ready"), "\(command.text)")
        let links = try await platform.must(try platform.inside(["ip", "-br", "link"])).split(separator: "\n")
        #expect(links.allSatisfy { $0.hasPrefix("lo ") }, "\(links)")
        #expect(try await platform.must(try platform.inside(["nft", "list", "tables"])) == "")
        #expect(try await platform.must(["ip", "netns", "pids", platform.namespace]) == "")
    }

    @Test("Ctrl-C ends a platform in order, with watchers and a container that does not want to end")
    func interrupted() async throws {
        try await Platform.with(up: nil) { platform in
            let stubborn = """
                apiVersion: v1
                kind: Pod
                metadata: {name: stubborn, namespace: default}
                spec:
                  terminationGracePeriodSeconds: 30
                  containers: [{name: only, image: host, command: [sh, -c, "trap 'echo no' TERM; while true; do sleep 1; done"]}]
                """
            let file = platform.directory + "/stubborn.yaml"
            try Data(stubborn.utf8).write(to: URL(filePath: file))
            let ending = Task {
                try await up(platform, presses: 2, after: "the mesh is ready", pause: 4, file: file)
            }
            _ = try await platform.until("the stubborn pod to be ready") {
                try? await platform.pods("apus.dev/injected=true", in: "default").first { $0.isReady }
            }
            let watcher = try RunningCommand(try platform.apusWords(["get", "pods", "-A", "--watch"]))
            defer { watcher.stop() }
            let ended = try await ending.value
            try await expectCleanEnd(ended, platform)
            #expect(ended.output.contains("control plane"), "\(ended.text)")
        }
    }

    @Test("Ctrl-C ends a platform that is still starting", arguments: ["API server", "ready  "])
    func early(step: String) async throws {
        try await Platform.with(up: nil) { platform in
            try await expectCleanEnd(try await up(platform, presses: 1, after: step), platform)
        }
    }
}

extension [String] {
    /// With the whole path of the program that comes first.
    fileprivate func withPath() throws -> [String] { [try Command.path(self[0])] + dropFirst() }
}
