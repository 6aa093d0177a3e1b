/// What a container's process may do beyond its user's rights (capabilities(7)), as a mask by capability number.
package enum LinuxCapabilities {
    private static let names = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG",
        "MKNOD", "LEASE",
        "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON", "BPF", "CHECKPOINT_RESTORE",
    ]

    package static let all: UInt64 = (1 << 41) - 1

    /// What container runtimes give by default.
    package static let standard = mask([
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    ])

    /// The mask of names with or without `CAP_`; nil names the one that is none.
    private static func bit(_ name: String) -> UInt64? {
        let upper = name.uppercased()
        let short = upper.hasPrefix("CAP_") ? String(upper.dropFirst(4)) : upper
        return names.firstIndex(of: short).map { 1 << UInt64($0) }
    }

    private static func mask(_ names: [String]) -> UInt64 { names.reduce(0) { $0 | (bit($1) ?? 0) } }

    package struct UnknownName: Error, CustomStringConvertible {
        package var name: String
        package var description: String {
            "capability '\(name)' is unknown; expected a name of capabilities(7) such as NET_ADMIN, or ALL"
        }
    }

    /// The standard set with what is dropped and added; what is named in both stays.
    package static func effective(add: [String], drop: [String]) throws(UnknownName) -> UInt64 {
        func values(_ list: [String]) throws(UnknownName) -> UInt64 {
            var mask: UInt64 = 0
            for name in list where name.uppercased() != "ALL" {
                guard let bit = bit(name) else { throw UnknownName(name: name) }
                mask |= bit
            }
            return mask
        }
        let (added, dropped) = (try values(add), try values(drop))
        let dropsAll = drop.contains { $0.uppercased() == "ALL" }
        let addsAll = add.contains { $0.uppercased() == "ALL" }
        let base = addsAll ? all : dropsAll ? 0 : standard
        return base & ~dropped | added
    }
}
