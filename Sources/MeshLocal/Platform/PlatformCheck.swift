import Foundation

/// What the machine must have, asked before anything is made. Each problem is one line with its remedy.
enum PlatformCheck {
    static func problems(programDirectory: String) async -> [String] {
        guard geteuid() == 0 else { return ["apus up makes network namespaces and needs root; run it with sudo"] }
        var problems: [String] = []
        for (tool, package) in [("ip", "iproute2"), ("nft", "nftables")] where SystemTool.find(tool) == nil {
            problems.append("the program '\(tool)' is missing; install it with: apt-get install \(package)")
        }
        for kind in ["net", "pid", "mnt", "uts", "ipc"] where access("/proc/self/ns/\(kind)", F_OK) != 0 {
            problems.append("the kernel has no \(kind) namespaces; boot one with CONFIG_NAMESPACES")
        }
        let systems = (try? String(contentsOfFile: "/proc/filesystems", encoding: .utf8)) ?? ""
        if !systems.split(whereSeparator: \.isWhitespace).contains("overlay") {
            if let modprobe = SystemTool.find("modprobe") { _ = try? await modprobe.run(["overlay"]) }
            let now = (try? String(contentsOfFile: "/proc/filesystems", encoding: .utf8)) ?? ""
            if !now.split(whereSeparator: \.isWhitespace).contains("overlay") {
                problems.append("the kernel has no overlay file system; load it with: modprobe overlay")
            }
        }
        if let nft = SystemTool.find("nft") {
            do {
                try await nft.run(["list", "tables"])
            } catch {
                problems.append(
                    "nftables does not work here (\(error)); run apus up as real root, not in an unprivileged container"
                )
            }
        }
        if access("/proc/sys/net/ipv4/ip_forward", W_OK) != 0 {
            problems.append("/proc/sys/net is read-only; run apus up as real root, not in an unprivileged container")
        }
        return problems
    }
}
