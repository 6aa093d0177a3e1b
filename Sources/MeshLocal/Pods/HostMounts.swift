import CApus
import Foundation

/// The file systems of the host that a container shall see: a line of `/proc/self/mountinfo` each (proc(5)).
package struct HostMount: Hashable, Sendable {
    package var path: String
    package var type: String
    package var isDirectory: Bool
}

package enum HostMounts {
    /// What a container gets anew, or has no business with.
    private static let hiddenTypes: Set<String> = [
        "proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "mqueue", "debugfs", "tracefs", "securityfs", "bpf",
        "pstore",
        "autofs", "binfmt_misc", "configfs", "fusectl", "nsfs", "hugetlbfs", "efivarfs", "rpc_pipefs", "selinuxfs",
    ]
    private static let hiddenRoots = ["/proc", "/sys", "/dev", "/run/netns", "/run/user", "/var/run/netns"]
    /// The host's own versions of what every container gets written for it.
    private static let replaced: Set<String> = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]

    /// The limit keeps a machine with thousands of mounts from making every container slow; what is beyond it is seen as
    /// an empty directory.
    package static let limit = 64

    /// The mounts below the root that a container gets, parents before children.
    package static func visible(hiding: [String]) -> [HostMount] {
        let text = (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? ""
        return parse(text, hiding: hiding).prefix(limit).map { mount in
            var mount = mount
            mount.isDirectory = apus_is_directory(mount.path) == 1
            return mount
        }
    }

    /// Pure; every mount counts as a directory.
    package static func parse(_ text: String, hiding: [String]) -> [HostMount] {
        var mounts: [String: HostMount] = [:]
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count > 6, let separator = fields.firstIndex(of: "-"), separator + 1 < fields.count else {
                continue
            }
            let path = unescaped(fields[4])
            let type = String(fields[separator + 1])
            // Characters that separate an overlay's options.
            guard path != "/", !path.contains(where: { ":,\\\n".contains($0) }) else { continue }
            let isHidden =
                hiddenTypes.contains(type) || (hiddenRoots + hiding).contains { path == $0 || path.hasPrefix($0 + "/") }
            // A later mount on the same path covers the earlier one, whatever it is.
            mounts[path] =
                isHidden || replaced.contains(path) ? nil : HostMount(path: path, type: type, isDirectory: true)
        }
        return mounts.values.sorted { $0.path < $1.path }
    }

    /// Spaces and the like are written as `\040`.
    private static func unescaped(_ field: Substring) -> String {
        var result: [UInt8] = []
        var rest = Array(field.utf8)[...]
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3,
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
            {
                result.append(value)
                rest = rest.dropFirst(3)
            } else {
                result.append(byte)
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}
