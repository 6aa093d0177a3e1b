import Foundation
import MeshAddress
import MeshCore
import MeshIO
import MeshProxy
import MeshTelemetry
import Synchronization
import Testing

/// What is spoken on ports that nobody declares: who speaks first decides, what was learned hastens, and nothing hides bytes.
@Suite struct DetectionTests {
    private static let request = "GET / HTTP/1.1\r\nHost: catalog\r\n\r\n"

    /// Greets as a database does, then answers what it hears.
    private static func greeting() throws -> TestServer {
        try TestServer { socket, _ in
            try socket.write("5.5.5-greeting\n")
            #expect(try socket.readText(5) == "login")
            try socket.write("welcome")
        }
    }

    private static func login(_ mesh: TestMesh) throws {
        let client = try mesh.client()
        #expect(try client.readText(15) == "5.5.5-greeting\n")
        try client.write("login")
        #expect(try client.readText(7) == "welcome")
        #expect(client.isEnded())
    }

    private static func learned(_ plane: DataPlane) -> LearnedProtocol? {
        TestMesh.dump(of: plane).services.first?.targets.first?.learned
    }

    // MARK: - Who speaks first

    @Test func aServerThatSpeaksFirstIsDialledBeforeItsClientHasSpoken() async throws {
        try await onOwnThread {
            let server = try Self.greeting()
            let mesh = try TestMesh(server, declared: nil)
            for _ in 0..<3 { try Self.login(mesh) }
            #expect(mesh.outboundReport.counters.dialledEarly == 3)
            #expect(mesh.inboundReport.counters.dialledEarly == 3)
            #expect(server.connections == 3)
            #expect(Self.learned(mesh.outbound) == .serverFirst)
            #expect(TestMesh.telemetry(of: mesh.inbound).learnedPorts == [server.address.port: .serverFirst])
        }
    }

    @Test func aSilentClientThatThenSpeaksHTTPIsServedAsHTTP() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server, declared: nil)
            let client = try mesh.client()
            try eventually("both sidecars have dialled") { mesh.inboundReport.counters.dialledEarly == 1 }
            try client.write(Self.request)
            #expect(try client.readResponse().text == "hello")
            try client.write(Self.request)
            #expect(try client.readResponse().text == "hello")
            #expect(mesh.outboundReport.counters.requests == 2)
            #expect(mesh.outboundReport.counters.dialledInVain == 1)
            #expect(Self.learned(mesh.outbound) == .http1)
            #expect(TestMesh.metrics(of: mesh.outbound).edges.allSatisfy { $0.streams.connectionsOpened == 0 })
        }
    }

    @Test func aSilentClientThatThenSpeaksOtherwiseKeepsTheConnectionThatWasMade() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                #expect(try socket.read(3) == [1, 2, 3])
                try socket.write([4])
            }
            let mesh = try TestMesh(server, declared: nil)
            let client = try mesh.client()
            try eventually("both sidecars have dialled") { mesh.inboundReport.counters.dialledEarly == 1 }
            try client.write([1, 2, 3])
            #expect(try client.read(1) == [4])
            #expect(server.connections == 1)
        }
    }

    @Test(arguments: [true, false])
    func wordsThatCouldBecomeHTTPArePassedOnWhenNothingFollows(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                #expect(try socket.readText(4) == "HELO")
                try socket.write("250 hello\r\n")
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)], declared: nil)
            let client = try mesh.client()
            try client.write("HELO")
            #expect(try client.readText(11) == "250 hello\r\n")
        }
    }

    @Test func aClientThatSaysNothingAndEndsHearsTheServerOut() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                #expect(try socket.readToEnd().isEmpty)
                try socket.write("the last word")
            }
            let mesh = try TestMesh(server, declared: nil)
            let client = try mesh.client()
            client.finishWriting()
            #expect(try client.readToEnd() == Array("the last word".utf8))
        }
    }

    @Test func aClientThatEndsWithItsFirstBytesIsAnswered() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                let all = try socket.readToEnd()
                try socket.write(all.reversed())
            }
            let mesh = try TestMesh(server, declared: nil)
            let client = try mesh.client()
            try client.write("tac")
            client.finishWriting()
            #expect(try client.readToEnd() == Array("cat".utf8))
        }
    }

    @Test func aSilentClientOfAnEndpointThatIsGoneIsToldWhyOnceItSpeaksHTTP() async throws {
        try await onOwnThread {
            let server = try TestServer.refusing()
            let mesh = try TestMesh([.init(server: server.address, isMeshed: false)], declared: nil)
            let client = try mesh.client()
            try eventually("it has been dialled") { mesh.outboundReport.counters.connectFailures == 1 }
            try client.write(Self.request)
            let response = try client.readResponse()
            #expect(response.status == 503)
            #expect(response.reason == "connect_failed")
        }
    }

    @Test func aServerThatEndsInSilenceEndsItsClient() async throws {
        try await onOwnThread {
            let server = try TestServer { _, _ in }
            let mesh = try TestMesh(server, declared: nil)
            #expect(try mesh.client().isEnded())
        }
    }

    @Test func connectionsOnWhichNobodySpokeAreNotWaitedForWhenDraining() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in _ = try socket.readToEnd() }
            let mesh = try TestMesh(server, declared: nil)
            let client = try mesh.client()
            try eventually("both sidecars have dialled") { mesh.inboundReport.counters.dialledEarly == 1 }
            let left = Atomic<Int>(-1)
            mesh.inbound.drain(deadlineMilliseconds: 10_000) { left.store($0, ordering: .relaxed) }
            try eventually("the drain has ended") { left.load(ordering: .relaxed) == 0 }
            #expect(client.isEnded())
        }
    }

    // MARK: - What was learned

    @Test func whatOthersLearnedHastensTheFirstConnection() async throws {
        try await onOwnThread {
            let server = try Self.greeting()
            let mesh = try TestMesh(server, declared: nil) { $0.ports[0].learnedProtocol = .serverFirst }
            #expect(
                TestMesh.dump(of: mesh.outbound).services.first?.service.ports.first?.learnedProtocol == .serverFirst)
            try Self.login(mesh)
        }
    }

    /// Whoever says it, and whatever it is.
    @Test(arguments: LearnedProtocol.allCases)
    func whatOthersLearnedNeverHidesARequest(_ lie: LearnedProtocol) async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server, declared: nil) { $0.ports[0].learnedProtocol = lie }
            #expect(try mesh.get().text == "hello")
            #expect(mesh.outboundReport.counters.requests == 1)
            #expect(mesh.inboundReport.counters.requests == 1)
            #expect(Self.learned(mesh.outbound) == .http1, "what was seen goes before what was told")
        }
    }

    @Test(arguments: LearnedProtocol.allCases)
    func whatOthersLearnedNeverKeepsAGreetingBack(_ lie: LearnedProtocol) async throws {
        try await onOwnThread {
            let server = try Self.greeting()
            let mesh = try TestMesh(server, declared: nil) { $0.ports[0].learnedProtocol = lie }
            try Self.login(mesh)
            #expect(Self.learned(mesh.outbound) == .serverFirst)
        }
    }

    @Test func aPortThatChangesItsProtocolIsLearnedAnew() async throws {
        try await onOwnThread {
            let speaksHTTP = Atomic<Bool>(false)
            let server = try TestServer { socket, _ in
                if speaksHTTP.load(ordering: .relaxed) {
                    while try socket.readHead() != nil { try socket.write(TestServer.ok("hello")) }
                } else {
                    try socket.write("5.5.5-greeting\n")
                    _ = try socket.readText(5)
                    try socket.write("welcome")
                }
            }
            let mesh = try TestMesh(server, declared: nil)
            try Self.login(mesh)
            #expect(Self.learned(mesh.outbound) == .serverFirst)
            speaksHTTP.store(true, ordering: .relaxed)
            #expect(try mesh.get().text == "hello")
            #expect(Self.learned(mesh.outbound) == .http1)
            #expect(TestMesh.telemetry(of: mesh.inbound).learnedPorts == [server.address.port: .http1])
            speaksHTTP.store(false, ordering: .relaxed)
            try Self.login(mesh)
            #expect(Self.learned(mesh.outbound) == .serverFirst)
            #expect(mesh.outboundReport.counters.learnedContradicted == 2)
        }
    }

    @Test func whatNobodyAnsweredProvesNothing() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in _ = try socket.readSome() }
            let mesh = try TestMesh(server, declared: nil)
            let client = try mesh.client()
            try client.write(Self.request)
            #expect(try client.readResponse().status == 502)
            #expect(Self.learned(mesh.outbound) == nil)
            #expect(TestMesh.telemetry(of: mesh.inbound).learnedPorts.isEmpty)
        }
    }

    @Test func aNewWordOfOthersKeepsConnections() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh([], destination: server.address, knowsDestination: false)
            var workload = Workload(pod: ObjectName(namespace: "shop", name: "bare"), addresses: [server.address.ip])
            mesh.outbound.apply([.destination(server.address, .workload(workload))])
            let client = try mesh.client()
            try client.write(Self.request)
            #expect(try client.readResponse().text == "hello")
            workload.learnedPorts = [server.address.port: .http1]
            mesh.outbound.apply([.destination(server.address, .workload(workload))])
            try client.write(Self.request)
            #expect(try client.readResponse().text == "hello")
            #expect(try mesh.get().text == "hello")
            #expect(server.connections == 1)
        }
    }

    // MARK: - Policy

    @Test func aCallersWordThatItSendsBytesIsNotTakenWhereHTTPIsDeclared() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh(server, declared: .opaque)
            var own = TestMesh.configuration("catalog", nil, .strict, unknown: .allow)
            own.workload.ports = [server.address.port: .http1]
            mesh.inbound.apply([.own(own)])
            #expect(try mesh.get().text == "hello")
            #expect(mesh.outboundReport.counters.requests == 0)
            #expect(mesh.inboundReport.counters.requests == 1)
        }
    }

    @Test func aSidecarThatIsSlowIsRecognisedUnderAPermissivePolicy() async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in _ = try socket.readToEnd() }
            let mesh = try TestMesh([.init(server: server.address)], declared: nil, plaintext: .permissive)
            let client = try TestSocket.connected(to: mesh.sidecars[0])
            try eventually("it is taken for somebody without an identity") {
                mesh.inboundReport.counters.dialledEarly == 1
            }
            try client.write(ClientHelloTests.hello(["apus/1"]))
            // A hello without a supported group is answered with an alert: TLS was begun.
            #expect(try client.read(1) == [0x15])
        }
    }

    // MARK: - Destinations without an answer

    @Test func anAddressNearTheMeshIsNotDialledInPlaintextForWantOfAnAnswer() async throws {
        try await onOwnThread {
            let server = try TestServer.http(on: IPAddress(v4: 0x7f00_0003))
            let mesh = try TestMesh([], destination: server.address, knowsDestination: false) { _ in
            } configure: {
                $0.deadlines.destinationMilliseconds = 50
            }
            var own = TestMesh.configuration("checkout", nil, .strict, unknown: .allow)
            own.workload.addresses = [IPAddress(v4: 0x7f00_0009)]
            mesh.outbound.apply([.own(own)])
            let response = try mesh.get()
            #expect(response.status == 503)
            #expect(response.reason == "destination_timeout")
            #expect(server.connections == 0)
            #expect(mesh.outboundReport.counters.unresolvedRefused == 1)
        }
    }

    @Test func anAddressFarFromTheMeshIsPassedThroughForWantOfAnAnswer() async throws {
        try await onOwnThread {
            let server = try TestServer.http()
            let mesh = try TestMesh([], destination: server.address, knowsDestination: false) { _ in
            } configure: {
                $0.deadlines.destinationMilliseconds = 50
            }
            #expect(try mesh.get().text == "hello")
            #expect(mesh.outboundReport.counters.unresolvedPassed == 1)
            try eventually("it is counted as plaintext") {
                TestMesh.metrics(of: mesh.outbound).edges.contains { $0.labels.security == .none }
            }
        }
    }

    // MARK: - TLS of the application's own

    private final class Lines: AccessLogWriter {
        let text = Mutex("")
        func write(_ lines: [UInt8]) -> Bool {
            text.withLock { $0 += String(decoding: lines, as: UTF8.self) }
            return true
        }
    }

    @Test(arguments: [nil, ApplicationProtocol.tls], ["Db.Example", "a\"\n{}", ""])
    func applicationsTLSIsCountedByTheNameItAsksFor(_ declared: ApplicationProtocol?, _ name: String) async throws {
        try await onOwnThread {
            let hello = ClientHelloTests.hello(["h2"], serverName: Array(name.utf8))
            let lines = Lines()
            let server = try TestServer { socket, _ in
                #expect(try socket.read(hello.count) == hello)
                try socket.write([0x16, 3, 3])
            }
            let mesh = try TestMesh([.init(server: server.address)], declared: declared) { _ in
            } configure: {
                $0.accessLog = (.json, lines)
            }
            let client = try mesh.client()
            try client.write(Array(hello.prefix(700)))
            usleep(10_000)
            try client.write(Array(hello.dropFirst(700)))
            #expect(try client.read(3) == [0x16, 3, 3])
            #expect(client.isEnded())
            client.finishWriting()
            let label = name == "Db.Example" ? "db.example" : "(invalid)"
            for (plane, reporter) in [(mesh.outbound, EdgeLabels.Reporter.source), (mesh.inbound, .destination)] {
                try eventually("it is counted at the \(reporter)") {
                    let names = TestMesh.metrics(of: plane).serverNames
                    let counts = names[ServerNameMetrics.Key(reporter: reporter, serverName: label)]
                    return names.count == 1 && counts?.connectionsOpened == 1 && counts?.sentBytes == 3
                        && counts?.receivedBytes == UInt64(hello.count)
                }
            }
            try eventually("it is in the log of both") {
                lines.text.withLock { $0.split(separator: "\n").count { $0.contains("\"server_name\":\"\(label)\"") } }
                    == 2
            }
        }
    }

    // MARK: - Bytes

    @Test(arguments: [true, false])
    func aConnectionOnWhichNothingMovesIsEnded(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                try socket.write(try socket.readText(4))
                #expect(try socket.readToEnd().isEmpty)
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)], declared: .opaque) { _ in
            } configure: {
                $0.deadlines.byteIdleMilliseconds = 150
            }
            let client = try mesh.client()
            try client.write("ping")
            #expect(try client.readText(4) == "ping")
            #expect(client.isEnded())
            #expect(mesh.outboundReport.counters.idleTimeouts + mesh.inboundReport.counters.idleTimeouts >= 1)
        }
    }

    @Test(arguments: [true, false])
    func bytesOfLongConnectionsAreCountedWhileTheyLive(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try TestServer { socket, _ in
                while true {
                    let more = try socket.readSome()
                    if more.isEmpty { return }
                    try socket.write(more)
                }
            }
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)], declared: .opaque)
            let client = try mesh.client()
            let chunk = [UInt8](repeating: 7, count: 100_000)
            try client.write(chunk)
            #expect(try client.read(chunk.count) == chunk)
            try eventually("they are counted before the connection ends") {
                let streams = TestMesh.metrics(of: mesh.outbound).edges.first?.streams ?? StreamCounts()
                return streams.sentBytes == 100_000 && streams.receivedBytes == 100_000
                    && streams.connectionsClosed == 0
            }
        }
    }
}
