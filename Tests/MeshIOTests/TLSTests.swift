import Foundation
import MeshAddress
import MeshIO
import Testing

@Suite struct TLSTests {
    /// Two connections of one loop that speak TLS to each other.
    struct Pair {
        let rig: LoopRig
        let server = Recorder()
        let client = Recorder()

        init() throws { rig = try LoopRig() }

        /// The client's `opened` (or `closed`) follows, and the server's.
        func connect(
            _ serverContext: TLSContext, _ clientContext: TLSContext, handshakeTimeoutMilliseconds: Int = 20_000
        ) throws {
            let address = try rig.listen(for: server) { $0.startTLS(serverContext) }
            try rig.dial(address, client, tls: (clientContext, serverName: nil))
        }
    }

    static func failure(_ recorder: Recorder) throws -> TLSFailure {
        let cause = try recorder.waitUntilClosed()
        guard case .tls(let failure) = cause else { throw RigFailure("closed because of \(cause)") }
        return failure
    }

    // MARK: What works

    @Test func bothSidesSeeEachOthersIdentity() async throws {
        try await onOwnThread {
            let tls = try TestTLS(alpn: ["apus/1"])
            let pair = try Pair()
            pair.server.onReceived = { connection, bytes in
                connection.write(bytes)
                return bytes.count
            }
            try pair.connect(tls.server, tls.client)
            try pair.client.wait(for: .opened)
            try pair.server.wait(for: .opened)
            let client = try pair.client.waitForConnection()
            let server = try pair.server.waitForConnection()
            try pair.rig.run { client.write("over TLS") }
            try pair.client.wait(forText: "over TLS")
            let seen = try pair.rig.run { client.tls }
            #expect(seen?.peerURISANs == ["spiffe://test/ns/a/sa/server"])
            #expect(seen?.applicationProtocol == "apus/1")
            #expect(seen?.version == "TLSv1.3")
            #expect(seen?.peerCertificates.count == 1)
            let left = (seen?.peerNotAfter ?? 0) - Int64(Date().timeIntervalSince1970)
            #expect((3500...3601).contains(left))
            #expect(try pair.rig.run { server.tls?.peerURISANs } == ["spiffe://test/ns/a/sa/client"])
            #expect(try pair.rig.run { [client.bytesSent, client.bytesReceived] } == [8, 8])
        }
    }

    @Test func everyURINameOfACertificateIsSeen() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let uris = ["spiffe://test/a", "spiffe://test/a", "https://b.example/"]
            let client = try TLSContext.client(
                identity: tls.authority.identity(uris: uris), trustRoots: [tls.authority.rootDER], alpn: ["apus/1"])
            let pair = try Pair()
            try pair.connect(tls.server, client)
            try pair.server.wait(for: .opened)
            let connection = try pair.server.waitForConnection()
            #expect(try pair.rig.run { connection.tls?.peerURISANs } == uris)
        }
    }

    @Test func aSEC1KeyIsTakenToo() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let server = try TLSContext.server(
                identity: tls.authority.identity(sec1: true), trustRoots: [], clientCertificate: .none, alpn: [])
            let client = try TLSContext.client(identity: nil, trustRoots: [tls.authority.rootDER], alpn: [])
            let pair = try Pair()
            try pair.connect(server, client)
            try pair.server.wait(for: .opened)
            let connection = try pair.server.waitForConnection()
            #expect(try pair.rig.run { connection.tls?.peerURISANs } == [])
            #expect(try pair.rig.run { connection.tls?.applicationProtocol } == nil)
        }
    }

    @Test func theHandshakeBeginsWithBytesThatADetectorLeft() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let pair = try Pair()
            let isStarted = Watched(false)
            pair.server.onReceived = { connection, bytes in
                if isStarted.value { return bytes.count }
                // A detector wants five bytes and the handshake type at least.
                guard bytes.count > 5, bytes[0] == 22, bytes[5] == 1 else { return 0 }
                isStarted.change { $0 = true }
                connection.startTLS(tls.server)
                return 0
            }
            let address = try pair.rig.listen(for: pair.server)
            try pair.rig.dial(address, pair.client, tls: (tls.client, serverName: "b.a.svc")) {
                $0.write("first words")
            }
            try pair.server.wait(forText: "first words")
            #expect(pair.server.events == [.opened])
        }
    }

    @Test func theHandshakeMayBeginAfterTheClientHelloHasWaited() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let pair = try Pair()
            let isStarted = Watched(false)
            pair.server.onReceived = { _, bytes in isStarted.value ? bytes.count : 0 }
            let address = try pair.rig.listen(for: pair.server)
            try pair.rig.dial(address, pair.client, tls: (tls.client, serverName: nil)) { $0.write("first words") }
            try pair.server.log.wait(for: "the ClientHello", until: { $0.deliveries > 0 })
            let connection = try pair.server.waitForConnection()
            try pair.rig.run {
                isStarted.change { $0 = true }
                connection.startTLS(tls.server)
            }
            try pair.server.wait(forText: "first words")
        }
    }

    @Test func theServersPreferenceDecidesTheProtocol() async throws {
        try await onOwnThread {
            let authority = try TestAuthority()
            let server = try TLSContext.server(
                identity: authority.identity(), trustRoots: [], clientCertificate: .none, alpn: ["h2", "http/1.1"])
            let client = try TLSContext.client(
                identity: nil, trustRoots: [authority.rootDER], alpn: ["http/1.1", "other", "h2"])
            let pair = try Pair()
            try pair.connect(server, client)
            try pair.client.wait(for: .opened)
            let connection = try pair.client.waitForConnection()
            #expect(try pair.rig.run { connection.tls?.applicationProtocol } == "h2")
        }
    }

    @Test func bytesInBothPartsOfAWriteAndOfAnySizeArrive() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let pair = try Pair()
            try pair.connect(tls.server, tls.client)
            try pair.client.wait(for: .opened)
            let client = try pair.client.waitForConnection()
            var expected: [UInt8] = []
            for count in [1, 16_000, 16_383, 16_384, 16_385, 65_536, 200_000, 1_000_000] {
                let head = [UInt8](repeating: UInt8(truncatingIfNeeded: count), count: 100)
                let body = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
                expected += head + body
                try pair.rig.run { head.withUnsafeBytes { head in body.withUnsafeBytes { client.write(head, $0) } } }
            }
            try pair.server.wait(forBytes: expected.count)
            #expect(pair.server.log.value.bytes == expected)
        }
    }

    @Test func bothSidesMayFinishOneAfterTheOther() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let pair = try Pair()
            pair.server.onReadEnded = { connection in
                connection.write("answer after the end")
                connection.finishWriting()
            }
            let address = try pair.rig.listen(for: pair.server) { $0.startTLS(tls.server) }
            try pair.rig.dial(address, pair.client, tls: (tls.client, serverName: nil)) {
                $0.write("question")
                $0.finishWriting()
            }
            #expect(try pair.client.waitUntilClosed() == .peer)
            #expect(try pair.server.waitUntilClosed() == .peer)
            #expect(pair.client.text == "answer after the end")
            #expect(pair.server.text == "question")
            #expect(pair.client.events == [.opened, .readEnded, .closed(.peer)])
        }
    }

    @Test func aPausedConnectionKeepsWhatItDecrypted() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let pair = try Pair()
            pair.server.onReceived = { connection, bytes in
                connection.pauseReading()
                return min(bytes.count, 10_000)
            }
            try pair.connect(tls.server, tls.client)
            let server = try pair.server.waitForConnection()
            let sent = (0..<400_000).map { UInt8(truncatingIfNeeded: $0 &* 13) }
            try pair.client.wait(for: .opened)
            let client = try pair.client.waitForConnection()
            try pair.rig.run {
                client.write(sent)
                client.finishWriting()
            }
            var mostRetained = 0
            while pair.server.log.value.bytes.count < sent.count {
                mostRetained = max(mostRetained, try pair.rig.run { server.retainedBytes })
                try pair.rig.run { server.resumeReading() }
            }
            try pair.rig.run { server.resumeReading() }
            try pair.server.wait(for: .readEnded)
            #expect(pair.server.log.value.bytes == sent)
            #expect(mostRetained <= 80 * 1024 + 128 * 1024)
        }
    }

    @Test func aHundredMegabytesToASlowReaderStayWithinTheHighWaterMark() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let rig = try LoopRig()
            let total = 100 << 20
            let pump = Pump(total: total)
            pump.recorder.onOpened = { pump.go($0) }
            let address = try rig.listen(for: pump.recorder) { $0.startTLS(tls.server) }
            let readerRig = try LoopRig()
            let reader = Recorder()
            reader.keepsBytes = false
            let received = Watched(0)
            reader.onReceived = { connection, bytes in
                received.change { $0 += bytes.count }
                connection.pauseReading()
                let later = LoopBound(connection, loop: connection.loop)
                connection.loop.submit { later.value.resumeReading() }
                return bytes.count
            }
            try readerRig.dial(address, reader, tls: (tls.client, serverName: nil))
            try reader.wait(for: .readEnded)
            #expect(received.value == total)
            #expect(pump.mostUnsent <= 256 * 1024 + Pump.piece + 1024)
        }
    }

    @Test func aDelegateMayWriteToEveryOtherConnectionFromADelivery() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let rig = try LoopRig()
            let all = Watched<[Connection]>([])
            let clients = (0..<6).map { _ in Recorder() }
            let accepted = Watched<[Recorder]>([])
            let listener = try rig.listen { socket, loop in
                let recorder = Recorder()
                // What one client says all hear, the speaker twice and the last one until it is closed in between.
                recorder.onReceived = { connection, bytes in
                    for other in all.value { other.write(bytes) }
                    connection.write(bytes, bytes)
                    return bytes.count
                }
                recorder.onOpened = { opened in all.change { $0.append(opened) } }
                accepted.change { $0.append(recorder) }
                Connection(accepting: socket, loop: loop, delegate: recorder).startTLS(tls.server)
            }
            for client in clients { try rig.dial(listener.address, client, tls: (tls.client, serverName: nil)) }
            try all.wait(for: "all connections", until: { $0.count == clients.count })
            let said = (0..<clients.count).map { [UInt8](repeating: UInt8($0), count: 30_000) }
            for (client, words) in zip(clients, said) {
                let connection = try client.waitForConnection()
                try rig.run { connection.write(words) }
            }
            for client in clients {
                try client.wait(forBytes: (clients.count + 2) * 30_000)
                let heard = client.log.value.bytes
                for speaker in 0..<clients.count {
                    let isSpeaker = clients[speaker] === client
                    #expect(heard.count { $0 == UInt8(speaker) } == (isSpeaker ? 3 : 1) * 30_000)
                }
            }
        }
    }

    // MARK: Refusals

    @Test func aClientRefusesAServerOfAnotherAuthority() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let stranger = try TestTLS(authorityName: "another root")
            let pair = try Pair()
            try pair.connect(stranger.server, tls.client)
            let failure = try TLSTests.failure(pair.client)
            #expect(failure.reason == "CERTIFICATE_VERIFY_FAILED")
            #expect(failure.verification != nil)
            #expect(failure.alertSent == 48, "unknown_ca")
            #expect(try TLSTests.failure(pair.server).alertReceived == 48)
            #expect(!pair.client.events.contains(.opened) && !pair.server.events.contains(.opened))
            try expectNothingOpen(pair.rig)
            #expect(try pair.rig.statistics.failedHandshakes == 2)
        }
    }

    @Test func aServerRefusesAClientOfAnotherAuthority() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let stranger = try TestAuthority("another root")
            let client = try TLSContext.client(
                identity: stranger.identity(), trustRoots: [tls.authority.rootDER], alpn: ["apus/1"])
            let pair = try Pair()
            try pair.connect(tls.server, client)
            let failure = try TLSTests.failure(pair.server)
            #expect(failure.reason == "CERTIFICATE_VERIFY_FAILED")
            #expect(failure.alertSent == 48)
            #expect(try TLSTests.failure(pair.client).alertReceived == 48)
            #expect(!pair.server.events.contains(.opened))
        }
    }

    @Test func aServerRefusesAClientWithoutACertificate() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let client = try TLSContext.client(identity: nil, trustRoots: [tls.authority.rootDER], alpn: ["apus/1"])
            let pair = try Pair()
            try pair.connect(tls.server, client)
            #expect(try TLSTests.failure(pair.server).reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE")
            #expect(try TLSTests.failure(pair.client).alertReceived == 116, "certificate_required")
        }
    }

    @Test func whereACertificateIsOptionalAWrongOneIsRefusedAndNoneIsNot() async throws {
        try await onOwnThread {
            let tls = try TestTLS(clientCertificate: .optional)
            let stranger = try TestAuthority("another root")
            let wrong = try TLSContext.client(
                identity: stranger.identity(), trustRoots: [tls.authority.rootDER], alpn: ["apus/1"])
            let none = try TLSContext.client(identity: nil, trustRoots: [tls.authority.rootDER], alpn: ["apus/1"])
            let refused = try Pair()
            try refused.connect(tls.server, wrong)
            #expect(try TLSTests.failure(refused.server).reason == "CERTIFICATE_VERIFY_FAILED")
            let welcome = try Pair()
            try welcome.connect(tls.server, none)
            try welcome.server.wait(for: .opened)
        }
    }

    @Test(arguments: [true, false]) func anExpiredCertificateIsRefused(onTheServer: Bool) async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let expired = try tls.authority.identity(validForSeconds: -60)
            let pair = try Pair()
            let roots = [tls.authority.rootDER]
            if onTheServer {
                try pair.connect(
                    .server(identity: expired, trustRoots: roots, clientCertificate: .required, alpn: ["apus/1"]),
                    tls.client)
            } else {
                try pair.connect(tls.server, .client(identity: expired, trustRoots: roots, alpn: ["apus/1"]))
            }
            let failure = try TLSTests.failure(onTheServer ? pair.client : pair.server)
            #expect(failure.reason == "CERTIFICATE_VERIFY_FAILED")
            #expect(failure.verification == "certificate has expired")
            #expect(failure.alertSent == 45, "certificate_expired")
            #expect(failure.description.contains("certificate has expired"))
        }
    }

    @Test(arguments: [["http/1.1"], []]) func aClientThatOffersNoProtocolOfTheServersIsRefused(
        _ offered: [String]
    ) async throws {
        try await onOwnThread {
            let tls = try TestTLS(alpn: ["apus/1"])
            let client = try TLSContext.client(
                identity: tls.authority.identity(), trustRoots: [tls.authority.rootDER], alpn: offered)
            let pair = try Pair()
            try pair.connect(tls.server, client)
            #expect(try TLSTests.failure(pair.server).alertSent == 120, "no_application_protocol")
            #expect(try TLSTests.failure(pair.client).alertReceived == 120)
        }
    }

    @Test func aServerThatPicksNoProtocolIsRefused() async throws {
        try await onOwnThread {
            let tls = try TestTLS(alpn: ["apus/1"])
            let server = try TLSContext.server(
                identity: tls.authority.identity(), trustRoots: [], clientCertificate: .none, alpn: [])
            let pair = try Pair()
            try pair.connect(server, tls.client)
            #expect(try TLSTests.failure(pair.client).reason.contains("apus/1"))
        }
    }

    @Test func wordsThatAreNoTLSAreRefused() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let rig = try LoopRig()
            let recorder = Recorder()
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder) { $0.startTLS(tls.server) })
            try peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try TLSTests.failure(recorder).reason == "HTTP_REQUEST")
            _ = try? peer.readToEnd()
            peer.close()
            try expectNothingOpen(rig)
        }
    }

    @Test func garbageIsRefusedWhateverItIs() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let rig = try LoopRig()
            var random = SplitMix(state: 7)
            for length in [1, 4, 5, 6, 100, 5000, 70_000] {
                for isRecord in [false, true] {
                    let recorder = Recorder()
                    let address = try rig.listen(for: recorder) { $0.startTLS(tls.server) }
                    let peer = try BlockingSocket.connected(to: address)
                    var bytes = (0..<length).map { _ in UInt8(truncatingIfNeeded: random.next()) }
                    if isRecord { bytes = [22, 3, 1] + bytes }
                    try? peer.write(bytes)
                    peer.finishWriting()
                    switch try recorder.waitUntilClosed() {
                    case .tls, .reset: break
                    case let other: Issue.record("closed because of \(other)")
                    }
                }
            }
            try expectNothingOpen(rig)
        }
    }

    @Test(arguments: [true, false]) func aPeerThatHangsInTheHandshakeTimesOut(asServer: Bool) async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let rig = try LoopRig()
            let recorder = Recorder()
            var keep: [BlockingSocket] = []
            if asServer {
                let address = try rig.listen(for: recorder) {
                    $0.startTLS(tls.server, handshakeTimeoutMilliseconds: 50)
                }
                let peer = try BlockingSocket.connected(to: address)
                try peer.write([22, 3, 1, 2])
                keep = [peer]
            } else {
                let (listener, address) = try BlockingSocket.listening()
                try rig.dial(
                    address, recorder, tls: (tls.client, serverName: nil), handshakeTimeoutMilliseconds: 50)
                keep = [listener]
            }
            let cause = try recorder.waitUntilClosed()
            #expect(cause == .handshakeTimeout)
            try expectNothingOpen(rig)
            withExtendedLifetime(keep) {}
        }
    }

    @Test func aStreamThatIsCutOffIsTruncated() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let rig = try LoopRig()
            let server = Recorder()
            server.onOpened = { $0.write("half of it") }
            let address = try rig.listen(for: server) { $0.startTLS(tls.server) }
            let (listener, middle) = try BlockingSocket.listening()
            let client = Recorder()
            try rig.dial(middle, client, tls: (tls.client, serverName: nil))
            let front = try listener.accepted()
            let back = try BlockingSocket.connected(to: address)
            let outward = Transfer((front, back))
            Task.detached {
                try await onOwnThread {
                    while case let some = try outward.value.0.readSome(), !some.isEmpty {
                        try outward.value.1.write(some)
                    }
                }
            }
            while !client.text.hasSuffix("half of it") {
                try front.write(back.readSome())
                for _ in 0..<3 { try rig.run {} }
            }
            front.finishWriting()
            #expect(try client.waitUntilClosed() == .truncated)
        }
    }

    @Test func aConnectionThatEndsDuringTheHandshakeSaysSo() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let rig = try LoopRig()
            let (listener, address) = try BlockingSocket.listening()
            let client = Recorder()
            try rig.dial(address, client, tls: (tls.client, serverName: nil))
            let peer = try listener.accepted()
            _ = try peer.readSome()
            peer.finishWriting()
            #expect(try TLSTests.failure(client).reason == "the peer closed the connection during the handshake")
        }
    }

    // MARK: Configuration

    @Test func whatCannotWorkIsRefusedWhenTheContextIsMade() throws {
        let authority = try TestAuthority()
        let identity = try authority.identity()
        func reason(_ body: () throws -> TLSContext) -> String {
            do {
                _ = try body()
                return "made"
            } catch {
                return "\(error)"
            }
        }
        let otherKey = try TLSContext.Identity(chain: identity.chain, privateKeyDER: authority.identity().privateKeyDER)
        #expect(
            reason { try .client(identity: otherKey, trustRoots: [authority.rootDER], alpn: []) }
                .contains("KEY_VALUES_MISMATCH"))
        let noKey = TLSContext.Identity(chain: identity.chain, privateKeyDER: [1, 2, 3])
        #expect(
            reason { try .client(identity: noKey, trustRoots: [authority.rootDER], alpn: []) }
                .contains("neither PKCS#8 nor SEC 1"))
        let noChain = TLSContext.Identity(chain: [], privateKeyDER: identity.privateKeyDER)
        #expect(
            reason { try .client(identity: noChain, trustRoots: [authority.rootDER], alpn: []) }
                .contains("no certificate"))
        #expect(
            reason { try .client(identity: nil, trustRoots: [authority.rootDER, [0, 1]], alpn: []) }
                .contains("trust root 2 of 2"))
        #expect(reason { try .client(identity: nil, trustRoots: [], alpn: []) }.contains("no trust root"))
        #expect(
            reason {
                try .server(identity: identity, trustRoots: [], clientCertificate: .required, alpn: [])
            }.contains("no trust root"))
        #expect(
            reason { try .client(identity: nil, trustRoots: [authority.rootDER], alpn: [""]) }
                .contains("1 to 255 bytes"))
    }
}
