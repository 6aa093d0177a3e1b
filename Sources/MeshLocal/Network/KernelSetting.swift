import Foundation
import Glibc

/// A value under `/proc/sys`.
enum KernelSetting {
    static func read(_ path: String) -> String? {
        (try? String(contentsOfFile: "/proc/sys/" + path, encoding: .utf8))?.trimmingCharacters(
            in: .whitespacesAndNewlines)
    }

    static func write(_ path: String, _ value: String) -> Bool {
        let file = open("/proc/sys/" + path, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { return false }
        defer { close(file) }
        let bytes = Array(value.utf8)
        return Glibc.write(file, bytes, bytes.count) == bytes.count
    }

    /// Sets a value and remembers the former one; nothing happens when it is set already.
    static func set(_ path: String, _ value: String, _ journal: PlatformJournal) throws {
        guard let former = read(path) else { throw PlatformError("the kernel has no /proc/sys/\(path)") }
        guard former != value else { return }
        try journal.change { record in
            // The first value counts: a resumed platform would otherwise take its own for the machine's.
            if !record.settings.contains(where: { $0.path == path }) {
                record.settings.append(.init(path: path, formerValue: former))
            }
        }
        guard write(path, value) else { throw PlatformError("cannot set /proc/sys/\(path) to \(value)") }
    }
}
