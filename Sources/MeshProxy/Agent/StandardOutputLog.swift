import Dispatch
import Glibc
import Synchronization

/// The access log on standard output, written by a thread of its own, because a reader that stops would otherwise stop the loops. What waits
/// for it is bounded; what exceeds that is not taken, and counted by the loop.
final class StandardOutputLog: AccessLogWriter {
    private static let waitingLimitBytes = 4 << 20
    private let waitingBytes = Atomic<Int>(0)
    private let queue = DispatchQueue(label: "access-log")

    func write(_ lines: [UInt8]) -> Bool {
        guard waitingBytes.load(ordering: .relaxed) + lines.count <= StandardOutputLog.waitingLimitBytes else {
            return false
        }
        waitingBytes.add(lines.count, ordering: .relaxed)
        queue.async {
            var rest = lines[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
                if count > 0 { rest = rest.dropFirst(count) } else if errno != EINTR { break }
            }
            self.waitingBytes.subtract(lines.count, ordering: .relaxed)
        }
        return true
    }
}
