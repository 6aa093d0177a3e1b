import Glibc

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

    /// By a connection of each family that the pod has a route for; there must be one. When a sidecar already listens, the
    /// rules are only listed.
    private static func verify(_ rules: CaptureRules) throws(Failure) {
        var isProved = false
        for target in CaptureVerification.targets {
            switch try CaptureVerification.dial(target, expectingAt: rules.outboundPort) {
            case .redirected:
                isProved = true
            case .noRoute:
                continue
            case .portTaken:
                return try nft(
                    ["list", "chain"] + CaptureRules.table.split(separator: " ").map(String.init) + ["outbound"],
                    input: "")
            }
        }
        guard isProved else {
            throw Failure(
                description: "cannot verify the redirection: the pod has a default route neither for IPv4 nor for IPv6")
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
