import Foundation
import Synchronization

/// A process by its id and the moment it started, in clock ticks since boot, so that a later process with the same id is
/// never taken for it.
struct RecordedProcess: Codable, Hashable, Sendable {
    var id: Int32
    var startTicks: UInt64

    init(id: Int32, startTicks: UInt64) {
        self.id = id
        self.startTicks = startTicks
    }

    /// The running process of this id; nil when there is none.
    init?(id: Int32) {
        guard let startTicks = RecordedProcess.startTicks(of: id) else { return nil }
        self.init(id: id, startTicks: startTicks)
    }

    var isRunning: Bool { RecordedProcess.startTicks(of: id) == startTicks }

    /// Field 22 of `/proc/<id>/stat`; the second field, the program's name, may contain anything, so counting starts after
    /// its last parenthesis. A zombie counts as ended.
    private static func startTicks(of id: Int32) -> UInt64? {
        guard let text = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8),
            let end = text.lastIndex(of: ")")
        else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    }
}

/// What the platform has made or changed on the machine, written before it is made, so that `apus down` removes exactly
/// that, also when the platform was killed.
struct PlatformRecord: Codable, Sendable, Equatable {
    struct Setting: Codable, Hashable, Sendable {
        /// Under `/proc/sys`.
        var path: String
        var formerValue: String
    }

    /// A rule that was added to a chain which is not ours.
    struct FirewallRule: Codable, Hashable, Sendable {
        var family: String
        var table: String
        var chain: String
        /// The rule's comment, by which it is found again.
        var comment: String
    }

    var platform: RecordedProcess?
    var spawner: RecordedProcess?
    /// The inode of the network namespace in which the links and tables are.
    var networkNamespace: UInt64 = 0
    var bridge: String?
    var table: String?
    /// Names of network namespaces, and of the host's ends of their links.
    var sandboxes: Set<String> = []
    var settings: [Setting] = []
    var firewallRules: Set<FirewallRule> = []
    var mounts: Set<String> = []
}

/// The record on disk.
final class PlatformJournal: Sendable {
    let file: String
    private let record: Mutex<PlatformRecord>

    static func path(dataDirectory: String) -> String { dataDirectory + "/platform.json" }

    /// Goes on with what is on disk, if anything is.
    init(dataDirectory: String) throws {
        file = PlatformJournal.path(dataDirectory: dataDirectory)
        record = Mutex(try PlatformJournal.read(file) ?? PlatformRecord())
    }

    static func read(_ file: String) throws -> PlatformRecord? {
        guard let data = FileManager.default.contents(atPath: file) else { return nil }
        do {
            return try JSONDecoder().decode(PlatformRecord.self, from: data)
        } catch {
            throw PlatformError(
                "\(file) is not readable as the platform's record (\(error)); expected the JSON that `apus up` wrote. Remove it "
                    + "if no platform runs on this data directory.")
        }
    }

    var value: PlatformRecord { record.withLock { $0 } }

    /// Changes the record and writes it. The file is replaced as a whole; after a crash of the machine nothing of what it
    /// names exists any more, so it need not be forced to the disk.
    func change(_ body: (inout PlatformRecord) -> Void) throws {
        try record.withLock { record in
            var changed = record
            body(&changed)
            guard changed != record else { return }
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
            try writeFile(file, encoder.encode(changed), mode: 0o600)
            record = changed
        }
    }

    func remove() {
        record.withLock { record in
            record = PlatformRecord()
            unlink(file)
        }
    }
}

/// Why the platform cannot start or go on, with the remedy.
package struct PlatformError: Error, Sendable, CustomStringConvertible {
    package var description: String

    package init(_ description: String) { self.description = description }
}

/// Writes a file under another name and renames it, so that a reader sees the old or the new one as a whole.
func writeFile(_ path: String, _ data: some Collection<UInt8>, mode: mode_t) throws {
    let temporary = path + ".new"
    unlink(temporary)
    let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
    guard file >= 0 else { throw PlatformError("cannot write \(path): \(lastError())") }
    let bytes = Array(data)
    var done = 0
    while done < bytes.count {
        let count = bytes.withUnsafeBytes { write(file, $0.baseAddress! + done, bytes.count - done) }
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else {
            let problem = lastError()
            close(file)
            unlink(temporary)
            throw PlatformError("cannot write \(path): \(problem)")
        }
        done += count
    }
    // The mode of open(2) is cut by the umask.
    fchmod(file, mode)
    close(file)
    guard rename(temporary, path) == 0 else { throw PlatformError("cannot write \(path): \(lastError())") }
}

func makeDirectory(_ path: String, mode: mode_t = 0o755) throws {
    var made = ""
    for part in path.split(separator: "/") {
        made += "/\(part)"
        guard mkdir(made, made == path ? mode : 0o755) == 0 || errno == EEXIST else {
            throw PlatformError("cannot make the directory \(made): \(lastError())")
        }
    }
}

/// Removes a directory with everything in it, without following links and without leaving its file system.
func removeTree(_ path: String) {
    try? FileManager.default.removeItem(atPath: path)
}

/// The names in a directory; none when it cannot be read.
func directoryEntries(_ path: String) -> [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
}
