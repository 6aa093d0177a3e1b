import Foundation
import MeshAddress
import MeshIO
import Testing

@Suite struct ConnectTests {
    static let families: [IPAddress] = [.loopback4, .loopback6]

    @Test(arguments: families) func whatIsWrittenBeforeTheConnectionStandsArrivesFirst(_ ip: IPAddress) async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let (listener, address) = try BlockingSocket.listening(on: ip)
            let recorder = Recorder()
            recorder.onOpened = { $0.write("second") }
            let connection = try rig.dial(address, recorder) { $0.write("first") }
            let peer = try listener.accepted()
            #expect(try peer.readText(11) == "firstsecond")
            let (local, remote) = try rig.run { (connection.local, connection.peer) }
            #expect(local.ip == ip && local.port != 0)
            #expect(remote == address)
        }
    }

    @Test(arguments: families) func aRefusedConnectionIsTold(_ ip: IPAddress) async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let (holder, address) = try BlockingSocket.bound(to: ip)
            let recorder = Recorder()
            try rig.dial(address, recorder) { $0.write("dropped") }
            let cause = try recorder.waitUntilClosed()
            #expect(cause == .connectFailed(SystemError(code: ECONNREFUSED, operation: "connect")))
            #expect(recorder.events.count == 1)
            try expectNothingOpen(rig)
            withExtendedLifetime(holder) {}
        }
    }

    @Test func anAddressWithoutARouteIsToldAfterInit() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let isToldInside = try rig.run { [loop = rig.loop] in
                _ = Connection(
                    connectingTo: SocketAddress(.any4, 0), loop: loop, connectTimeoutMilliseconds: 1000,
                    sourceAddress: SocketAddress(IPAddress(v4: 0x0102_0304), 0), delegate: recorder)
                return !recorder.events.isEmpty
            }
            #expect(!isToldInside)
            guard case .connectFailed(let error) = try recorder.waitUntilClosed() else {
                throw RigFailure("not failed")
            }
            #expect(error.code == EADDRNOTAVAIL)
            #expect(error.description.contains("bind 1.2.3.4:0"))
        }
    }

    @Test(arguments: families) func aConnectionThatNobodyAnswersTimesOut(_ ip: IPAddress) async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            // The kernel answers no more of a listener's peers once its queue is full.
            let (listener, address) = try BlockingSocket.listening(on: ip, backlog: 0)
            var fillers: [Recorder] = []
            let timedOut = Watched(0)
            for _ in 0..<8 {
                let filler = Recorder()
                filler.onClosed = { _ in timedOut.change { $0 += 1 } }
                fillers.append(filler)
                try rig.dial(address, filler, connectTimeoutMilliseconds: 200)
            }
            try timedOut.wait(for: "a timeout", until: { $0 > 0 })
            let causes = fillers.compactMap(\.log.value.cause)
            #expect(causes.allSatisfy { $0 == .connectTimeout })
            withExtendedLifetime(listener) {}
        }
    }

    @Test func theSourceAddressIsTheOneAskedFor() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let peers = Watched<[SocketAddress]>([])
            let listener = try rig.listen { socket, _ in peers.change { $0.append(socket.peer) } }
            let source = IPAddress(v4: 0x7f00_0006)
            try rig.run { [loop = rig.loop] in
                _ = Connection(
                    connectingTo: listener.address, loop: loop, connectTimeoutMilliseconds: 20_000,
                    sourceAddress: SocketAddress(source, 0), delegate: recorder)
            }
            #expect(try peers.wait(for: "the connection", until: { !$0.isEmpty }).first?.ip == source)
        }
    }

    @Test func closingBeforeTheConnectionStandsIsQuiet() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let (listener, address) = try BlockingSocket.listening()
            let recorder = Recorder()
            try rig.dial(address, recorder) {
                $0.write("dropped")
                $0.close()
            }
            #expect(try recorder.waitUntilClosed() == .local)
            #expect(recorder.events == [.closed(.local)])
            try expectNothingOpen(rig)
            withExtendedLifetime(listener) {}
        }
    }
}
