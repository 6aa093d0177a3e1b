import Foundation
import Testing

/// The platform itself: what `apus` promises its user on one machine.
@Suite("The platform on one machine", .serialized, .timeLimit(.minutes(5)))
struct PlatformTests {
    @Test("exec, logs and refusals are what their user expects")
    func commands() async throws {
        try await Platform.with { platform in
            try await platform.apply(
                try Workloads.code(), Workloads.account("web"), Workloads.account("caller"), Workloads.service("web"),
                Workloads.server("web"), Workloads.caller(targets: "web"))
            let web = try #require(try await platform.ready(1, "app=web").first)
            _ = try await platform.ready(1, "app=caller")

            let words = ["exec", "-i", "-n", "test", web.name, "--", "sh", "-c", "cat; echo aside >&2; exit 7"]
            let exec = try await platform.apusOutcome(words, input: "what was typed\n")
            #expect(exec.status == 7)
            #expect(exec.output == "what was typed\n")
            #expect(exec.errors.contains("aside"))

            let follower = try RunningCommand(
                try platform.apusWords(["logs", "-f", "deployment/caller", "-n", "test", "-c", "caller"]))
            defer { follower.stop() }
            let had = try await platform.until("a followed log") {
                let lines = follower.output.split(separator: "\n").count
                return lines > 0 ? lines : nil
            }
            _ = try await platform.until("lines written since") {
                follower.output.split(separator: "\n").count >= had + 3 ? true : nil
            }

            let unsupported = try await platform.apusOutcome(
                ["apply", "-f", "-"], input: pod("spec", "shareProcessNamespace: true, "))
            #expect(unsupported.status != 0)
            #expect(unsupported.errors.contains("spec.shareProcessNamespace"), "\(unsupported.text)")
            let malformed = try await platform.apusOutcome(
                ["apply", "-f", "-"], input: pod("metadata", "annotations: {apus.dev/opaque-ports: \"80,many\"}, "))
            #expect(malformed.status != 0)
            #expect(malformed.errors.contains("apus.dev/opaque-ports"), "\(malformed.text)")
            #expect(malformed.errors.contains("80,many"), "\(malformed.text)")
            let unknown = try await platform.apusOutcome(
                ["apply", "-f", "-"], input: pod("metadata", "annotations: {apus.dev/no-such-thing: \"1\"}, "))
            #expect(unknown.status != 0)
            #expect(unknown.errors.contains("apus.dev/no-such-thing"), "\(unknown.text)")
            #expect(try await platform.apusOutcome(["get", "pod", "refused", "-n", "test"]).status != 0)
        }
    }

    private func pod(_ place: String, _ extra: String) -> String {
        """
        apiVersion: v1
        kind: Pod
        metadata: {\(place == "metadata" ? extra : "")name: refused, namespace: test}
        spec: {\(place == "spec" ? extra : "")containers: [{name: only, image: host, command: [sleep, "60"]}]}
        """
    }

    @Test("A second platform on the same data is refused, objects outlive the platform, and a killed one is cleaned up")
    func life() async throws {
        try await Platform.with { platform in
            try await platform.apply(
                try Workloads.code(), Workloads.account("web"), Workloads.account("caller"), Workloads.service("web"),
                Workloads.server("web"), Workloads.caller(targets: "web"))
            _ = try await platform.ready(1, "app=web")
            _ = try await platform.ready(1, "app=caller")

            let process = try record(platform)["platform"]["id"].count
            let second = try await platform.apusOutcome(["up"])
            #expect(second.status != 0)
            #expect(second.errors.contains("process \(process)"), "\(second.text)")
            #expect(second.errors.contains(platform.dataDirectory), "\(second.text)")

            let ended = try await trace(platform)
            try await platform.apus("down", seconds: 120)
            try await expectNothing(of: ended, platform)
            try await platform.apus("up", "--detach", seconds: 200)
            try await answered(platform)

            let killed = try await trace(platform)
            let victim = try #require(Int32(exactly: try record(platform)["platform"]["id"].count))
            try #require(victim > 1)
            #expect(kill(victim, SIGKILL) == 0)
            try await platform.apus("down", seconds: 120)
            try await expectNothing(of: killed, platform)
            try await platform.apus("up", "--detach", seconds: 200)
            try await answered(platform)
        }
    }

    /// Both pods are there again, and the one is answered by the other.
    private func answered(_ platform: Platform) async throws {
        let now = Date.now.timeIntervalSince1970
        _ = try await platform.ready(1, "app=web")
        _ = try await platform.ready(1, "app=caller")
        _ = try await platform.until("an answer after the platform's return") {
            try await platform.newestLine("deployment/caller", container: "caller").flatMap { (seen: JSON) -> JSON? in
                guard case .number(let time) = seen["time"], time > now, seen["answers"].count > 0 else { return nil }
                return seen
            }
        }
    }

    /// What a platform has made.
    private struct Trace {
        var sandboxes: [String]
        var processes: Set<String>
    }

    private func record(_ platform: Platform) throws -> JSON {
        try JSON.parse(try String(contentsOfFile: platform.dataDirectory + "/platform.json", encoding: .utf8))
    }

    private func trace(_ platform: Platform) async throws -> Trace {
        let record = try record(platform)
        let roots = ["platform", "spawner"].map { String(record[$0]["id"].count) }
        let trace = Trace(sandboxes: record["sandboxes"].items.map(\.text), processes: try descendants(of: roots))
        // The platform, its spawner, and of three pods five containers that run.
        #expect(trace.sandboxes.count == 3 && trace.processes.count >= 7, "\(trace)")
        #expect(try await platform.must(try platform.inside(["ip", "-br", "link"])).contains("apus0"))
        #expect(try await platform.must(try platform.inside(["nft", "list", "tables"])).contains("apus_apus0"))
        return trace
    }

    /// Every process that has not ended, with its parent. One that nobody has waited for yet has ended.
    private func processes() throws -> [String: String] {
        var found: [String: String] = [:]
        for process in try FileManager.default.contentsOfDirectory(atPath: "/proc") where Int32(process) != nil {
            // The second field, the program's name, may contain anything.
            guard let stat = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8),
                let name = stat.lastIndex(of: ")")
            else { continue }
            let fields = stat[name...].split(separator: " ")
            if fields.count > 2, fields[1] != "Z", fields[1] != "X" { found[process] = String(fields[2]) }
        }
        return found
    }

    private func descendants(of roots: [String]) throws -> Set<String> {
        let parents = try processes()
        var found = Set(roots)
        while true {
            let more = parents.filter { found.contains($0.value) }.keys
            if found.isSuperset(of: more) { return found }
            found.formUnion(more)
        }
    }

    private func expectNothing(of trace: Trace, _ platform: Platform) async throws {
        let namespaces = try await platform.must(["ip", "netns", "list"])
        for sandbox in trace.sandboxes { #expect(!namespaces.contains(sandbox), "the namespace \(sandbox) is left") }
        let links = try await platform.must(try platform.inside(["ip", "-br", "link"])).split(separator: "\n")
        #expect(links.allSatisfy { $0.hasPrefix("lo ") }, "links are left: \(links)")
        #expect(try await platform.must(try platform.inside(["nft", "list", "tables"])) == "")
        let mounts = try String(contentsOfFile: "/proc/mounts", encoding: .utf8)
        #expect(!mounts.contains(platform.dataDirectory))
        let running = try processes()
        let left = trace.processes.filter { running[$0] != nil }
        #expect(left.isEmpty, "processes are left: \(left)")
        #expect(try await platform.must(["ip", "netns", "pids", platform.namespace]) == "")
        #expect(!FileManager.default.fileExists(atPath: platform.dataDirectory + "/platform.json"))
    }
}
