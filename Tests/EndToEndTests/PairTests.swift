import Foundation
import Testing

/// Two sidecars in namespaces that the test made, configured by files: what needs no platform.
@Suite("A pair of sidecars", .serialized, .timeLimit(.minutes(2)))
struct PairTests {
    private func check(_ script: String) async throws {
        guard geteuid() == 0 else { throw Failure("this test needs root, because it makes network namespaces") }
        let proxy =
            URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path + "/.build/release/apus-proxy"
        let done = try await Command.run(
            [try Command.path(Workloads.python), try Workloads.path(script), proxy], seconds: 90)
        #expect(done.status == 0, "\(done.text)")
    }

    @Test("IPv6 alone and beside IPv4: redirected, resolved, authenticated and named like IPv4")
    func ipv6() async throws { try await check("ipv6.py") }

    @Test("Without a descriptor left it neither spins nor dies, and serves again when there are some")
    func exhaustion() async throws { try await check("exhaustion.py") }
}
