import Foundation
import Testing

@Suite("WebSocket", .timeLimit(.minutes(2)))
struct WebSocketTests {
    @Test("A real client and a real server talk through a pair of sidecars, and through one without TLS")
    func converse() async throws {
        guard geteuid() == 0 else { throw Failure("this test needs root, because it makes network namespaces") }
        let proxy =
            URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path + "/.build/release/apus-proxy"
        let done = try await Command.run(
            [Workloads.pythonWithGRPC, try Workloads.path("websocket.py"), proxy], seconds: 90)
        #expect(done.status == 0, "\(done.text)")
    }
}
