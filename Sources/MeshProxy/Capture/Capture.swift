import CApus
import Glibc
import MeshAddress

/// Applies, verifies and removes the redirection in the network namespace of the calling process.
package enum Capture {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    /// Replaces the rules in one transaction and proves that a connection really arrives at the outbound port.
    package static func install(_ rules: CaptureRules) throws(Failure) {
        try nft(["-f", "-"], input: rules.script)
        try verify(rules)
    }

    /// Leaves nothing behind; harmless when nothing is there.
    package static func remove() throws(Failure) {
        try nft(["-f", "-"], input: CaptureRules.removal)
    }

    /// Dials an address that no host has (TEST-NET-1, RFC 5737) and expects to be answered by ourselves, with that address
    /// as the original destination. Nothing leaves the namespace: the redirection turns the SYN inward, and when it does not,
    /// the attempt fails within a second. When a sidecar already listens, it is left alone and the rules are only listed.
    private static func verify(_ rules: CaptureRules) throws(Failure) {
        let listener = socket(
            AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard listener >= 0 else {
            throw Failure(description: "cannot make a socket to verify the redirection: \(lastError())")
        }
        defer { Glibc.close(listener) }
        var one: Int32 = 1
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
        guard withSocketAddress(.loopback4, rules.outboundPort, { bind(listener, $0, $1) }) == 0,
            listen(listener, 8) == 0
        else {
            guard errno == EADDRINUSE else {
                throw Failure(
                    description: "cannot listen on port \(rules.outboundPort) to verify the redirection: \(lastError())"
                )
            }
            return try nft(
                ["list", "chain"] + CaptureRules.table.split(separator: " ").map(String.init) + ["outbound"], input: "")
        }
        let target = SocketAddress(IPAddress(v4: 0xc000_0201), 1)
        let dialler = socket(
            AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard dialler >= 0 else {
            throw Failure(description: "cannot make a socket to verify the redirection: \(lastError())")
        }
        defer { Glibc.close(dialler) }
        let result = withSocketAddress(target.ip, target.port) { connect(dialler, $0, $1) }
        guard result == 0 || errno == EINPROGRESS else {
            throw Failure(
                description:
                    "cannot dial \(target) to verify the redirection: \(lastError()); the pod needs a default route")
        }
        var waiting = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
        guard poll(&waiting, 1, 1000) == 1 else {
            throw Failure(
                description:
                    "the rules are in place, but a connection to \(target) did not arrive at port \(rules.outboundPort) "
                    + "within a second; another table may accept or drop it first: see 'nft list ruleset'")
        }
        let accepted = accept(listener, nil, nil)
        guard accepted >= 0 else {
            throw Failure(description: "cannot accept the verifying connection: \(lastError())")
        }
        defer { Glibc.close(accepted) }
        var original = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let originalDestination: Int32 = 80  // SO_ORIGINAL_DST of linux/netfilter_ipv4.h
        guard getsockopt(accepted, Int32(IPPROTO_IP), originalDestination, &original, &length) == 0 else {
            throw Failure(
                description: "the kernel does not tell the original destination (SO_ORIGINAL_DST): \(lastError())")
        }
        let told = SocketAddress(
            IPAddress(v4: UInt32(bigEndian: original.sin_addr.s_addr)), UInt16(bigEndian: original.sin_port))
        guard told == target else {
            throw Failure(description: "the original destination of a connection to \(target) reads \(told)")
        }
    }

    private static func withSocketAddress(
        _ ip: IPAddress, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = (ip.v4 ?? 0).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    private static func lastError() -> String { String(cString: strerror(errno)) }

    /// Runs `nft` with `input` on its standard input and throws with what it printed when it fails.
    private static func nft(_ arguments: [String], input: String) throws(Failure) {
        signal(SIGPIPE, SIG_IGN)
        var inward: [Int32] = [0, 0]
        var outward: [Int32] = [0, 0]
        guard pipe(&inward) == 0, pipe(&outward) == 0 else {
            throw Failure(description: "cannot make a pipe: \(lastError())")
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, inward[0], 0)
        posix_spawn_file_actions_adddup2(&actions, outward[1], 1)
        posix_spawn_file_actions_adddup2(&actions, outward[1], 2)
        for descriptor in inward + outward { posix_spawn_file_actions_addclose(&actions, descriptor) }
        var words: [UnsafeMutablePointer<CChar>?] = (["nft"] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        // A pod's PATH may lack the sbin folders where Debian keeps nft.
        var environment: [UnsafeMutablePointer<CChar>?] = [strdup("PATH=/usr/sbin:/sbin:/usr/bin:/bin"), nil]
        defer { free(environment[0]) }
        var process: pid_t = 0
        let candidates: [String] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"]
        let path = candidates.first { access($0, X_OK) == 0 } ?? candidates[0]
        let spawned = posix_spawn(&process, path, &actions, nil, &words, &environment)
        Glibc.close(inward[0])
        Glibc.close(outward[1])
        defer { Glibc.close(outward[0]) }
        guard spawned == 0 else {
            Glibc.close(inward[1])
            throw Failure(
                description:
                    "cannot run nft (\(String(cString: strerror(spawned)))): install the package nftables in the image")
        }
        // A script is far below a pipe's 64 KiB, so one write takes it whole.
        let bytes = Array(input.utf8)
        let written = bytes.withUnsafeBytes { Glibc.write(inward[1], $0.baseAddress, $0.count) }
        Glibc.close(inward[1])
        var output: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = Glibc.read(outward[0], &chunk, chunk.count)
            if count > 0 {
                output += chunk[..<count].prefix(max(0, 65536 - output.count))
            } else if count == 0 || errno != EINTR {
                break
            }
        }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        guard written == bytes.count, status == 0 else {
            let text = String(decoding: output, as: UTF8.self).split(separator: "\n").prefix(3).joined(separator: "; ")
            throw Failure(
                description:
                    "nft refused the rules: \(text.isEmpty ? "status \(status)" : text); this needs root or CAP_NET_ADMIN "
                    + "in the pod's network namespace")
        }
    }
}
