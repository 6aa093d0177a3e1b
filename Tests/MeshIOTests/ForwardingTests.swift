import Foundation
import MeshAddress
import MeshIO
import Testing

@Suite struct ForwardingTests {
    /// A client's socket and a server's, and between them two connections that forward into each other.
    final class Relay: @unchecked Sendable {
        let rig: LoopRig
        let front = Recorder()
        let back = Recorder()
        let client: BlockingSocket
        let server: BlockingSocket

        init(clientReceiveBuffer: Int32? = nil, serverReceiveBuffer: Int32? = nil) throws {
            rig = try LoopRig()
            let (listener, serverAddress) = try BlockingSocket.listening()
            let (front, back) = (front, back)
            let address = try rig.listen(for: front) { $0.pauseReading() }
            client = try BlockingSocket.connected(to: address, receiveBuffer: clientReceiveBuffer)
            let frontConnection = try front.waitForConnection()
            front.onReadEnded = { _ in back.log.value.connection?.finishWriting() }
            back.onReadEnded = { _ in front.log.value.connection?.finishWriting() }
            front.onClosed = { _ in back.log.value.connection?.close() }
            back.onClosed = { _ in front.log.value.connection?.close() }
            let isForwarding = Watched<Bool?>(nil)
            back.onOpened = { backConnection in
                let result =
                    frontConnection.forward(into: backConnection) && backConnection.forward(into: frontConnection)
                frontConnection.resumeReading()
                isForwarding.change { $0 = result }
            }
            try rig.dial(serverAddress, back)
            server = try listener.accepted()
            if var size = serverReceiveBuffer {
                setsockopt(server.descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
            }
            guard try isForwarding.wait(for: "forwarding", until: { $0 != nil }) == true else {
                throw RigFailure("forwarding was refused")
            }
        }
    }

    @Test func bytesAndEndsPassInBothDirections() async throws {
        try await onOwnThread {
            let relay = try Relay()
            try relay.client.write("question")
            #expect(try relay.server.readText(8) == "question")
            try relay.server.write("answer")
            #expect(try relay.client.readText(6) == "answer")
            relay.client.finishWriting()
            #expect(try relay.server.readSome().isEmpty)
            try relay.server.write("late answer")
            relay.server.finishWriting()
            #expect(String(decoding: try relay.client.readToEnd(), as: UTF8.self) == "late answer")
            #expect(try relay.front.waitUntilClosed() == .peer)
            #expect(try relay.back.waitUntilClosed() == .peer)
            #expect(relay.front.log.value.deliveries == 0 && relay.back.log.value.deliveries == 0)
            try expectNothingOpen(relay.rig)
        }
    }

    @Test func forwardedBytesAreCounted() async throws {
        try await onOwnThread {
            let relay = try Relay()
            let front = try relay.front.waitForConnection()
            let back = try relay.back.waitForConnection()
            try relay.client.write([UInt8](repeating: 1, count: 100_000))
            _ = try relay.server.read(100_000)
            try relay.server.write("ok")
            _ = try relay.client.read(2)
            let counts = try relay.rig.run {
                [front.bytesReceived, back.bytesSent, back.bytesReceived, front.bytesSent]
            }
            #expect(counts == [100_000, 100_000, 2, 2])
        }
    }

    @Test func aSlowReaderGetsEveryByteInOrder() async throws {
        try await onOwnThread {
            let relay = try Relay(clientReceiveBuffer: 65_536, serverReceiveBuffer: 65_536)
            let total = 16 << 20
            let bytes = (0..<total).map { UInt8(truncatingIfNeeded: $0 ^ ($0 >> 9)) }
            for (from, to) in [(relay.client, relay.server), (relay.server, relay.client)] {
                let writer = Transfer(from)
                Task.detached {
                    try await onOwnThread {
                        try writer.value.write(bytes)
                        writer.value.finishWriting()
                    }
                }
                #expect(try to.readToEnd() == bytes)
            }
            #expect(try relay.front.waitUntilClosed() == .peer)
            try expectNothingOpen(relay.rig)
        }
    }

    @Test func whatWasRetainedBeforeIsDeliveredFirst() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let (listener, serverAddress) = try BlockingSocket.listening()
            let front = Recorder()
            let back = Recorder()
            let mayConsume = Watched(false)
            front.onReceived = { _, bytes in
                guard mayConsume.value else { return 0 }
                back.log.value.connection?.write(bytes)
                return bytes.count
            }
            let client = try BlockingSocket.connected(to: rig.listen(for: front))
            try client.write("first ")
            try front.log.wait(for: "the first bytes", until: { $0.deliveries > 0 })
            let source = try front.waitForConnection()
            back.onOpened = { target in
                mayConsume.change { $0 = true }
                #expect(source.forward(into: target))
                source.deliverRetained()
            }
            try rig.dial(serverAddress, back)
            let server = try listener.accepted()
            #expect(try server.readText(6) == "first ")
            try client.write("second")
            #expect(try server.readText(6) == "second")
            #expect(front.text == "first ")
        }
    }

    @Test func aTargetThatResetsEndsBothSides() async throws {
        try await onOwnThread {
            let relay = try Relay()
            try relay.client.write([UInt8](repeating: 1, count: 4 << 10))
            _ = try relay.server.read(100)
            relay.server.reset()
            _ = try? relay.client.write([UInt8](repeating: 1, count: 4 << 20))
            #expect(try relay.back.waitUntilClosed() == .reset)
            try relay.front.waitUntilClosed()
            relay.client.close()
            try expectNothingOpen(relay.rig)
        }
    }

    @Test func oneSideOnTLSCannotForward() async throws {
        try await onOwnThread {
            let tls = try TestTLS()
            let rig = try LoopRig()
            let server = Recorder()
            let client = Recorder()
            let address = try rig.listen(for: server) { $0.startTLS(tls.server) }
            try rig.dial(address, client, tls: (tls.client, serverName: nil))
            try server.wait(for: .opened)
            try client.wait(for: .opened)
            let ends = (try server.waitForConnection(), try client.waitForConnection())
            let isForwarding = try rig.run { ends.0.forward(into: ends.1) || ends.1.forward(into: ends.0) }
            #expect(!isForwarding)
        }
    }
}
