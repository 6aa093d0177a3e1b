import Foundation
import MeshAddress
import MeshIO
import Testing

/// What concerns the whole process, each in a process of its own.
@Suite struct DescriptorTests {
    @Test func tenThousandConnectionsLeaveNothingBehind() async throws {
        await #expect(processExitsWith: .success) {
            try await onOwnThread {
                let tls = try TestTLS()
                let rig = try LoopRig()
                let listener = try rig.listen { socket, loop in
                    let echo = Recorder()
                    echo.keepsBytes = false
                    echo.onReceived = { connection, bytes in
                        connection.write(bytes)
                        return bytes.count
                    }
                    echo.onReadEnded = { $0.close() }
                    let connection = Connection(accepting: socket, loop: loop, delegate: echo)
                    if socket.peer.port % 8 == 0 { connection.startTLS(tls.server) }
                }
                func churn(_ count: Int) throws {
                    var done = 0
                    while done < count {
                        let peers = try (0..<50).map { _ in try BlockingSocket.connected(to: listener.address) }
                        for peer in peers { try? peer.write("GET / HTTP/1.1\r\n\r\n") }
                        for (index, peer) in peers.enumerated() where index % 3 != 0 { _ = try? peer.readSome() }
                        for (index, peer) in peers.enumerated() { index % 5 == 0 ? peer.reset() : peer.close() }
                        done += peers.count
                    }
                    try expectNothingOpen(rig)
                }
                try churn(1000)
                let descriptors = openDescriptors()
                let memory = residentKilobytes()
                try churn(10_000)
                #expect(openDescriptors() == descriptors)
                #expect(residentKilobytes() - memory < 2048)
            }
        }
    }

    /// Both ends of the connections are this process's, so that a dialling end may snatch the descriptor that the listener had just
    /// let go of to shed with: then the attempt shows nothing, and another is made.
    @Test func aProcessWithoutDescriptorsShedsConnectionsAndRecovers() async throws {
        await #expect(processExitsWith: .success) {
            try await onOwnThread {
                var shed = false
                for _ in 0..<5 where !shed { shed = try shedsAndRecovers() }
                #expect(shed)
            }
        }
    }
}

/// False when the connection over the limit was left waiting.
private func shedsAndRecovers() throws -> Bool {
    let rig = try LoopRig()
    let held = Watched<[AcceptedSocket]>([])
    let listener = try rig.listen { socket, _ in held.change { $0.append(socket) } }
    let (peerEnd, freeEnd) = try limitedDescriptors(spare: 8)
    var peers: [Int32] = []
    while let peer = dialNonBlocking(listener.address) { peers.append(peer) }
    #expect(peers.count >= 3)
    defer {
        for peer in peers { close(peer) }
        held.change { $0 = [] }
    }
    // One descriptor for another dialler, none for the accepting end.
    close(freeEnd)
    guard let late = try? BlockingSocket.connected(to: listener.address) else {
        close(peerEnd)
        return false
    }
    // Accepted with the reserve and closed at once rather than left waiting.
    let wasShed = (try? late.readSome().isEmpty) ?? false
    close(peerEnd)
    guard wasShed else {
        late.close()
        return false
    }
    let statistics = try rig.statistics
    #expect(statistics.descriptorsExhausted > 0 && statistics.acceptErrors > 0)
    for peer in peers { close(peer) }
    peers = []
    held.change { $0 = [] }
    let accepted = try rig.statistics.acceptedConnections
    for _ in 0..<(patienceSeconds * 10) where try rig.statistics.acceptedConnections == accepted {
        let again = try BlockingSocket.connected(to: listener.address)
        pauseBriefly()
        again.close()
    }
    #expect(try rig.statistics.acceptedConnections > accepted)
    return true
}

private func openDescriptors() -> Int {
    (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? -1
}

private func residentKilobytes() -> Int {
    let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? ""
    return line.split(separator: " ").compactMap { Int($0) }.first ?? -1
}

/// Lets the process have `spare` more descriptors and takes two of them, to be given back one by one.
private func limitedDescriptors(spare: Int) throws -> (Int32, Int32) {
    let first = open("/dev/null", O_RDONLY)
    let second = open("/dev/null", O_RDONLY)
    guard first >= 0, second >= 0 else { throw RigFailure("open: \(errno)") }
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = rlim_t(Int(max(first, second)) + 1 + spare)
    guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
        throw RigFailure("setrlimit: \(errno)")
    }
    return (first, second)
}

/// Nil when the process has no descriptor left.
private func dialNonBlocking(_ address: SocketAddress) -> Int32? {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    var value = sockaddr_in()
    value.sin_family = sa_family_t(AF_INET)
    value.sin_port = address.port.bigEndian
    value.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    _ = withUnsafePointer(to: &value) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, 16) }
    }
    return descriptor
}
