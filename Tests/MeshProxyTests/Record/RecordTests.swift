import Foundation
import MeshAddress
import MeshCore
import MeshProxy
import MeshTelemetry
import Synchronization
import Testing

/// What is counted and told of what passed.
@Suite struct RecordTests {
    @Test func bothSidecarsCountARequestWithWhoCalledWhom() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server)
            for _ in 0..<3 { _ = try mesh.get(method: "POST", body: "four") }
            for (plane, reporter) in [(mesh.outbound, EdgeLabels.Reporter.source), (mesh.inbound, .destination)] {
                let snapshot = TestMesh.metrics(of: plane)
                let edge = try #require(snapshot.edges.first)
                #expect(snapshot.edges.count == 1)
                #expect(edge.labels.reporter == reporter)
                #expect(edge.labels.source.workload == "checkout")
                #expect(edge.labels.source.identity == TestMesh.spiffe("checkout"))
                #expect(edge.labels.source.pod == ObjectName(namespace: "shop", name: "checkout-1"))
                #expect(edge.labels.destination.workload == "catalog")
                #expect(edge.labels.destination.identity == TestMesh.spiffe("catalog"))
                #expect(edge.labels.service == TestMesh.serviceName)
                #expect(edge.labels.security == .mutualTLS)
                #expect(edge.series.count == 1)
                #expect(edge.series.first?.key == ResponseKey(status: 200))
                #expect(edge.series.first?.count == 3)
                #expect(edge.series.first?.requestBytes.sum == 12)
                #expect(edge.series.first?.responseBytes.sum == 15)
            }
        }
    }

    @Test func aFailureIsCountedWithItsReason() async throws {
        try await onOwnThread {
            let mesh = try TestMesh([])
            _ = try mesh.get()
            let edge = try #require(TestMesh.metrics(of: mesh.outbound).edges.first)
            #expect(edge.series.first?.key == ResponseKey(status: 503, reason: .noHealthyUpstream))
            #expect(edge.labels.service == TestMesh.serviceName)
        }
    }

    @Test func aClientThatGoesAwayIsCountedAsSuch() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in _ = try socket.readToEnd() }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            try eventually("the request is under way") { mesh.inboundReport.requestsInFlight == 1 }
            client.reset()
            for plane in [mesh.outbound, mesh.inbound] {
                try eventually("it is counted") {
                    TestMesh.metrics(of: plane).edges.first?.series.first?.key
                        == ResponseKey(status: 0, reason: .clientGone)
                }
            }
            #expect(mesh.outboundReport.requestsInFlight == 0)
        }
    }

    @Test func byteStreamsAreCountedWhileAndAfterTheyLive() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in try socket.write(try socket.readToEnd() + [1]) }
            let mesh = try TestMesh(server, declared: .opaque)
            let client = try mesh.client()
            try client.write([UInt8](repeating: 0, count: 1000))
            client.finishWriting()
            #expect(try client.readToEnd().count == 1001)
            for plane in [mesh.outbound, mesh.inbound] {
                try eventually("the connection is counted") {
                    let streams = TestMesh.metrics(of: plane).edges.first?.streams ?? StreamCounts()
                    return streams.connectionsOpened == 1 && streams.connectionsClosed == 1
                        && streams.receivedBytes == 1000 && streams.sentBytes == 1001
                }
            }
        }
    }

    @Test func reportsTellWhatIsNewAndWhoIsEjected() async throws {
        try await onOwnThread {
            let broken = try TestServer.http { _, _ in "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
            }
            let healthy = try TestServer.http(on: IPAddress(v4: 0x7f00_0002))
            let mesh = try TestMesh([.init(server: broken.address), .init(server: healthy.address)]) {
                $0.loadBalancing = .roundRobin
            }
            for _ in 0..<20 { _ = try mesh.get() }
            let first = TestMesh.telemetry(of: mesh.outbound)
            #expect(first.edges.flatMap(\.requests).reduce(0) { $0 + $1.count } == 20)
            #expect(first.ejections.map(\.pod) == [ObjectName(namespace: "shop", name: "catalog-0")])
            #expect(first.ejections.first?.cause == .consecutiveFailures)
            #expect(TestMesh.telemetry(of: mesh.outbound).edges.isEmpty)
        }
    }

    private final class Lines: AccessLogWriter {
        let all = Mutex<String>("")

        func write(_ lines: [UInt8]) -> Bool {
            all.withLock { $0 += String(decoding: lines, as: UTF8.self) }
            return true
        }
    }

    @Test func theAccessLogHasALineForEachRequest() async throws {
        try await onOwnThread {
            let lines = Lines()
            let server = try TestServer.http()
            let mesh = try TestMesh([.init(server: server.address)], configure: { $0.accessLog = (.json, lines) })
            _ = try mesh.get("/item/7?secret=1", fields: "User-Agent: test\r\nX-Request-ID: r-1\r\n")
            try eventually("both sidecars have written") {
                lines.all.withLock { $0.split(separator: "\n").count } == 2
            }
            let text = lines.all.withLock { $0 }
            for line in text.split(separator: "\n") {
                #expect(line.contains("\"path\":\"/item/7\""))
                #expect(line.contains("\"status\":200"))
                #expect(line.contains("\"user_agent\":\"test\""))
                #expect(line.contains("\"request_id\":\"r-1\""))
                #expect(line.contains("\"trace_id\":\""))
            }
        }
    }

    @Test func aTraceGoesOnThroughBothSidecars() async throws {
        try await onOwnThread {
            let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            let server = try TestServer.http { head, _ in
                #expect(head.lines.count { $0.lowercased().hasPrefix("traceparent") } == 1)
                return TestServer.ok(head["traceparent"] ?? "")
            }
            let mesh = try TestMesh(server)
            let parts = try mesh.get(fields: "traceparent: 00-\(trace)-00f067aa0ba902b7-01\r\n").text.split(
                separator: "-")
            #expect(parts.count == 4)
            #expect(parts[1] == trace)
            #expect(parts[2] != "00f067aa0ba902b7")
            #expect(parts[3] == "01")
        }
    }
}
