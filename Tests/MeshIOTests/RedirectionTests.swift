import Foundation
import MeshAddress
import MeshIO
import Testing

private let canRedirect =
    geteuid() == 0 && ["/usr/sbin/nft", "/usr/sbin/ip"].allSatisfy { FileManager.default.isExecutableFile(atPath: $0) }

/// Redirection as capture does it, in a network namespace that only the test's own thread is in and that goes with it.
@Suite(.enabled(if: canRedirect, "needs root, nft and ip"))
struct RedirectionTests {
    @Test(arguments: [IPAddress("10.99.0.7"), IPAddress("fd99::7")].compactMap { $0 })
    func aRedirectedConnectionTellsItsOriginalDestination(_ ip: IPAddress) async throws {
        try await onOwnThread {
            try enterNewNetworkNamespace()
            try command("/usr/sbin/ip", ["link", "set", "lo", "up"])
            try command("/usr/sbin/ip", ["route", "add", "local", ip.isV4 ? "10.99.0.0/16" : "fd99::/16", "dev", "lo"])
            let loop = try EventLoop(name: "namespace")
            let seen = Watched<[(SocketAddress?, SocketAddress)]>([])
            let listener = try Listener(
                loop: loop, address: SocketAddress(.any6, 0),
                delegate: AcceptBlock(loop) { socket, loop in
                    seen.change { $0.append((socket.originalDestination, socket.local)) }
                    if seen.value.count == 2 { loop.stop() }
                })
            let port = listener.address.port
            let family = ip.isV4 ? "ip" : "ip6"
            try command(
                "/usr/sbin/nft",
                [
                    "add table \(family) t; add chain \(family) t c { type nat hook output priority -100; };"
                        + "add rule \(family) t c tcp dport 80 redirect to :\(port)"
                ])
            let redirected = try BlockingSocket.connected(to: SocketAddress(ip, 80))
            let direct = try BlockingSocket.connected(to: SocketAddress(ip, port))
            loop.run()
            #expect(seen.value.map(\.0) == [SocketAddress(ip, 80), nil])
            #expect(seen.value.first?.1.port == port)
            withExtendedLifetime((redirected, direct)) {}
        }
    }

    /// unshare(2), which Swift's Glibc module does not show.
    private func enterNewNetworkNamespace() throws {
        guard let symbol = dlsym(nil, "unshare") else { throw RigFailure("no unshare") }
        let unshare = unsafeBitCast(symbol, to: (@convention(c) (Int32) -> Int32).self)
        let newNetwork: Int32 = 0x4000_0000
        guard unshare(newNetwork) == 0 else { throw RigFailure("unshare: \(errno)") }
    }

    /// The child is in the namespace of the thread that starts it.
    private func command(_ path: String, _ arguments: [String]) throws {
        var process = pid_t()
        var list = ([path] + arguments).map { strdup($0) } + [nil]
        defer { for argument in list { free(argument) } }
        guard posix_spawn(&process, path, nil, nil, &list, environ) == 0 else { throw RigFailure("\(path): \(errno)") }
        var status: Int32 = 0
        waitpid(process, &status, 0)
        guard status == 0 else { throw RigFailure("\(path) \(arguments.joined(separator: " ")): status \(status)") }
    }
}
