import Foundation
import MeshKubernetes

/// How `pods/NAME/exec` travels over a WebSocket: the first byte of every message names its channel
/// (Kubernetes' `v4.channel.k8s.io`; `v5.channel.k8s.io` adds the closing of one channel).
package enum ExecProtocol {
    static let names = ["v5.channel.k8s.io", "v4.channel.k8s.io"]

    enum Channel: UInt8 {
        case standardInput = 0
        case standardOutput = 1
        case standardError = 2
        /// One `Status` at the end.
        case status = 3
        case resize = 4
        /// The next byte names the channel that has ended.
        case close = 255
    }

    /// The largest message that is accepted.
    static let messageLimitBytes = 1 << 20
    /// Standard input that waits for the command.
    static let inputLimitBytes = 1 << 20

    /// The end of a command, as the status channel tells it.
    static func status(exitCode: Int) -> JSONValue {
        guard exitCode != 0 else { return ["metadata": [:], "status": "Success"] }
        return [
            "metadata": [:], "status": "Failure", "reason": "NonZeroExitCode",
            "message": .string("command terminated with non-zero exit code: exit status \(exitCode)"),
            "details": ["causes": [["reason": "ExitCode", "message": .string(String(exitCode))]]],
        ]
    }

    /// The exit code in a status, or the failure that it tells.
    static func exitCode(_ status: JSONValue) throws -> Int {
        if status["status"] == "Success" { return 0 }
        let causes = status[path: "details", "causes"]?.array ?? []
        if let code = causes.first(where: { $0["reason"] == "ExitCode" })?["message"]?.string.flatMap({ Int($0) }) {
            return code
        }
        throw StatusError(
            code: status["code"]?.int ?? 500, reason: status["reason"]?.string ?? "InternalError",
            message: status["message"]?.string ?? "the command could not be run", details: status["details"])
    }
}
