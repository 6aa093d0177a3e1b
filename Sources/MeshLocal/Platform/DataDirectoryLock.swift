import CApus
import Foundation

/// Makes sure that one platform uses a data directory at a time. The kernel releases the lock when its process ends,
/// whichever way.
final class DataDirectoryLock: Sendable {
    private let descriptor: Int32

    static func path(dataDirectory: String) -> String { dataDirectory + "/lock" }

    /// Fails when another process has it, naming that process.
    init(dataDirectory: String) throws {
        try makeDirectory(dataDirectory, mode: 0o700)
        let path = DataDirectoryLock.path(dataDirectory: dataDirectory)
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw PlatformError("cannot open \(path): \(lastError())") }
        guard apus_lock_file(descriptor) == 0 else {
            close(descriptor)
            let holder = DataDirectoryLock.holder(dataDirectory: dataDirectory).map { " (process \($0))" } ?? ""
            throw PlatformError(
                "another apus up\(holder) uses \(dataDirectory); stop it with: apus down --data-dir \(dataDirectory), "
                    + "or choose another --data-dir")
        }
        let text = Array("\(getpid())\n".utf8)
        ftruncate(descriptor, 0)
        _ = pwrite(descriptor, text, text.count, 0)
    }

    deinit { close(descriptor) }

    /// Who wrote the lock last.
    static func holder(dataDirectory: String) -> Int32? {
        let text = try? String(contentsOfFile: path(dataDirectory: dataDirectory), encoding: .utf8)
        return text.flatMap { Int32($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
    }
}
