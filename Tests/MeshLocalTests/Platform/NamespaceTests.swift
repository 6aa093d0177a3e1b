import Foundation
import Logging
import MeshLocal
import Testing

/// Runs what needs root and a network in namespaces of its own.
@Suite(.serialized, .enabled(if: TestNamespace.isPossible && !TestNamespace.isInside), .timeLimit(.minutes(5)))
struct NamespaceTests {
    @Test func podsBehaveAsTheirSpecificationSays() async throws {
        try await TestNamespace.with { namespace in
            let result = try await namespace.run("PodBehaviour")
            #expect(result.isSuccess, "\(result.text.suffix(6000))")
        }
    }

    @Test func namesResolveAsTheSpecificationSays() async throws {
        try await TestNamespace.with { namespace in
            let result = try await namespace.run("DNSBehaviour")
            #expect(result.isSuccess, "\(result.text.suffix(6000))")
        }
    }

    @Test func aPlatformStopsOnASignalAndLeavesNothing() async throws {
        try await TestNamespace.with { namespace in
            namespace.setForwarding(false)
            let platform = try await RunningPlatformProcess(namespace)
            #expect(namespace.output(["ip", "-br", "link"]).contains("apust1"))
            platform.process.terminate()
            await platform.waitForEnd()
            #expect(!namespace.output(["ip", "-br", "link"]).contains("apust1"))
            #expect(namespace.output(["nft", "list", "tables"]) == "")
            #expect(namespace.isForwarding == false)
            #expect(access(platform.data + "/platform.json", F_OK) != 0)
            #expect(access(platform.data + "/objects.sqlite", F_OK) == 0, "the objects stay")
        }
    }

    @Test func aSecondPlatformOnTheSameDirectoryIsRefusedAndDownCleansUpAfterAKilledOne() async throws {
        try await TestNamespace.with { namespace in
            namespace.setForwarding(false)
            let platform = try await RunningPlatformProcess(namespace)
            let second = try await namespace.run("PlatformInNamespace/isRefused")
            #expect(second.isSuccess, "\(second.text.suffix(4000))")
            kill(platform.process.processIdentifier, SIGKILL)
            await platform.waitForEnd()
            #expect(namespace.output(["ip", "-br", "link"]).contains("apust1"))
            let down = try await namespace.run("PlatformInNamespace/isTakenDown")
            #expect(down.isSuccess, "\(down.text.suffix(4000))")
            #expect(!namespace.output(["ip", "-br", "link"]).contains("apust1"))
            #expect(namespace.output(["nft", "list", "tables"]) == "")
            #expect(namespace.isForwarding == false)
        }
    }

    @Test func aKilledPlatformIsResumedWithItsObjects() async throws {
        try await TestNamespace.with { namespace in
            let first = try await RunningPlatformProcess(namespace)
            kill(first.process.processIdentifier, SIGKILL)
            await first.waitForEnd()
            let second = try await RunningPlatformProcess(namespace)
            #expect(
                namespace.output(["ip", "-br", "link"]).split(separator: "\n").filter { $0.hasPrefix("apust1") }.count
                    == 1)
            second.process.terminate()
            await second.waitForEnd()
            #expect(second.process.terminationStatus == 0)
        }
    }
}

/// What the tests above run inside the namespace, each in a process of its own.
@Suite(.enabled(if: TestNamespace.isInside), .timeLimit(.minutes(5)))
struct PlatformInNamespace {
    static var options: PlatformOptions {
        var options = PlatformOptions(dataDirectory: TestNamespace.sharedDirectory + "/platform")
        options.network = NetworkSettings(bridge: "apust1", podSubnet: "10.197.0.0/24", serviceSubnet: "10.196.0.0/24")
        options.nodeName = "machine"
        options.stopGraceSeconds = 2
        return options
    }

    @Test(.enabled(if: ProcessInfo.processInfo.environment["APUS_TEST_PLATFORM"] != nil))
    func serves() async throws {
        try await LocalPlatform.run(Self.options, log: .init(label: "platform")) { progress in
            if progress.step == .ready {
                _ = FileManager.default.createFile(atPath: TestNamespace.sharedDirectory + "/ready", contents: nil)
            }
        }
    }

    @Test(.enabled(if: ProcessInfo.processInfo.environment["APUS_TEST_PLATFORM"] == nil))
    func isRefused() async throws {
        let error = await #expect(throws: PlatformError.self) {
            try await LocalPlatform.run(Self.options, log: .init(label: "platform"))
        }
        #expect(error?.description.contains("another apus up (process ") == true)
    }

    @Test func isTakenDown() async throws {
        let removal = try await LocalPlatform.down(dataDirectory: Self.options.dataDirectory)
        #expect(removal.removed.contains("bridge apust1"))
        let again = try await LocalPlatform.down(dataDirectory: Self.options.dataDirectory)
        #expect(!again.wasPresent)
    }
}

/// A platform in a process of its own, ready.
struct RunningPlatformProcess {
    let process: Process
    let data: String

    init(_ namespace: TestNamespace) async throws {
        data = namespace.directory + "/platform"
        let ready = namespace.directory + "/ready"
        let log = namespace.directory + "/platform.log"
        unlink(ready)
        process = try namespace.start("PlatformInNamespace/serves", ["APUS_TEST_PLATFORM": "1"], log: log)
        let deadline = ContinuousClock.now.advanced(by: .seconds(60))
        while access(ready, F_OK) != 0 {
            guard process.isRunning, ContinuousClock.now < deadline else {
                process.terminate()
                let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
                throw PlatformError("the platform did not become ready: \(text.suffix(3000))")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    func waitForEnd() async {
        while process.isRunning { try? await Task.sleep(for: .milliseconds(20)) }
    }
}
