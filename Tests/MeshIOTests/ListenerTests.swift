import Foundation
import MeshAddress
import MeshIO
import Testing

@Suite struct ListenerTests {
    @Test func theUnspecifiedAddressListensOnBothFamilies() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let accepted = Watched<[(peer: SocketAddress, local: SocketAddress)]>([])
            let listener = try rig.listen(SocketAddress(.any6, 0)) { socket, _ in
                accepted.change { $0.append((socket.peer, socket.local)) }
            }
            let port = listener.address.port
            #expect(port != 0)
            for ip in [IPAddress.loopback4, .loopback6] {
                let peer = try BlockingSocket.connected(to: SocketAddress(ip, port))
                try accepted.wait(for: "\(ip)", until: { $0.last?.peer.ip == ip })
                #expect(accepted.value.last?.local == SocketAddress(ip, port))
                // Nobody took the socket, so it closes itself.
                #expect(try peer.readSome().isEmpty)
            }
            #expect(try rig.statistics.acceptedConnections == 2)
        }
    }

    @Test func aConnectionThatWasNotRedirectedHasNoOriginalDestination() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let seen = Watched<[SocketAddress?]>([])
            let listener = try rig.listen { socket, _ in seen.change { $0.append(socket.originalDestination) } }
            let peer = try BlockingSocket.connected(to: listener.address)
            #expect(try seen.wait(for: "the connection", until: { $0.count == 1 }) == [nil])
            withExtendedLifetime(peer) {}
        }
    }

    @Test func anAddressInUseIsRefusedByName() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let first = try rig.listen { _, _ in }
            do {
                _ = try rig.listen(first.address) { _, _ in }
                Issue.record("two listeners on \(first.address)")
            } catch let error as SystemError {
                #expect(error.code == EADDRINUSE)
                #expect(error.description.contains("\(first.address)"))
            }
        }
    }

    @Test func aListenerMayBeSharedByPort() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let accepted = Watched(0)
            let count: (AcceptedSocket, EventLoop) -> Void = { _, _ in accepted.change { $0 += 1 } }
            try rig.run { [loop = rig.loop] in
                let first = try Listener(
                    loop: loop, address: SocketAddress(.loopback4, 0), reusePort: true,
                    delegate: AcceptBlock(loop, count))
                let second = try Listener(
                    loop: loop, address: first.address, reusePort: true, delegate: AcceptBlock(loop, count))
                for _ in 0..<20 { try BlockingSocket.connected(to: second.address).close() }
            }
            try accepted.wait(for: "all", until: { $0 == 20 })
        }
    }

    @Test func aStoppedListenerAcceptsNothingAndAClosedOneRefuses() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let accepted = Watched(0)
            let listener = Transfer(try rig.listen { _, _ in accepted.change { $0 += 1 } })
            try rig.run { listener.value.stopAccepting() }
            let waiting = try BlockingSocket.connected(to: listener.value.address)
            for _ in 0..<20 { try rig.run {} }
            #expect(accepted.value == 0)
            try rig.run { listener.value.close() }
            #expect(throws: RigFailure.self) { try waiting.readToEnd() }
            #expect(throws: RigFailure.self) { try BlockingSocket.connected(to: listener.value.address) }
        }
    }

    @Test func anAcceptedSocketCanBeHandedToAnotherLoop() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let other = try LoopRig()
            let recorder = Recorder()
            recorder.onReceived = { connection, bytes in
                #expect(connection.loop === other.loop && other.loop.isCurrent)
                connection.write(bytes)
                return bytes.count
            }
            let listener = try rig.listen { socket, _ in
                other.loop.submit { _ = Connection(accepting: socket, loop: other.loop, delegate: recorder) }
            }
            let peer = try BlockingSocket.connected(to: listener.address)
            try peer.write("across")
            #expect(try peer.readText(6) == "across")
        }
    }
}
