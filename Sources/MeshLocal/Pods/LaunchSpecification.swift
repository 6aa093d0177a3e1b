import Glibc

/// What the spawner shall make: steps in their order, then the process. The records are described in `apus_spawn.h`.
struct LaunchSpecification: Sendable {
    private(set) var bytes: [UInt8] = []

    private mutating func record(_ tag: Character, _ strings: [String]) {
        var payload: [UInt8] = []
        for string in strings {
            // A NUL would end the string for the kernel too.
            payload += string.utf8.prefix { $0 != 0 }
            payload.append(0)
        }
        let count = UInt32(clamping: payload.count)
        bytes.append(tag.asciiValue ?? 0)
        bytes += (0..<4).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) }
        bytes += payload
    }

    mutating func append(_ other: LaunchSpecification) { bytes += other.bytes }

    // MARK: Steps

    mutating func mount(_ source: String, on target: String, type: String = "", data: String = "", flags: UInt = 0) {
        record("m", [source, target, type, data, "\(flags)"])
    }

    /// A mount without which the container still works.
    mutating func mountIfPossible(
        _ source: String, on target: String, type: String = "", data: String = "", flags: UInt = 0
    ) {
        record("M", [source, target, type, data, "\(flags)"])
    }

    mutating func bind(_ source: String, on target: String, isReadOnly: Bool = false) {
        mount(source, on: target, flags: UInt(MS_BIND) | UInt(MS_REC))
        if isReadOnly { mount("", on: target, flags: UInt(MS_REMOUNT) | UInt(MS_BIND) | UInt(MS_RDONLY)) }
    }

    mutating func overlay(_ lower: String, upper: String, work: String, on target: String) {
        record("o", [lower, upper, work, target])
    }

    mutating func makeDirectory(_ path: String, mode: Int = 0o755) { record("d", [path, String(mode, radix: 8)]) }
    /// An empty file, if there is none; its directories too.
    mutating func makeFile(_ path: String) { record("f", [path]) }
    /// An empty regular file in place of whatever else is there, such as a link.
    mutating func makeRegularFile(_ path: String) { record("F", [path]) }
    mutating func link(_ path: String, to target: String) { record("l", [target, path]) }
    mutating func pivot(to root: String, keepingOldAt old: String) { record("p", [root, old]) }
    /// Unmounts and removes the directory.
    mutating func unmount(_ path: String) { record("u", [path]) }
    /// Writes to a file such as a kernel setting; what the kernel does not have is skipped.
    mutating func write(_ text: String, to path: String) { record("s", [path, text]) }
    mutating func setHostname(_ name: String) { record("h", [name]) }
    mutating func nameNetworkNamespace(_ path: String) { record("b", [path]) }

    // MARK: The process

    mutating func process(arguments: [String], environment: [(name: String, value: String)], directory: String) {
        record("a", arguments)
        record("e", environment.map { "\($0.name)=\($0.value)" })
        record("w", [directory])
    }

    mutating func user(_ user: UInt32, group: UInt32, supplementary: [UInt32]) {
        record("U", (["\(user)", "\(group)"] + supplementary.prefix(64).map { "\($0)" }))
    }

    mutating func capabilities(_ mask: UInt64) { record("C", ["\(mask)"]) }
    mutating func forbidNewPrivileges() { record("n", []) }
    mutating func takeTerminal() { record("t", []) }
}
