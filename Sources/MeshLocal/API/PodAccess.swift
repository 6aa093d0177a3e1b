package import MeshAddress

/// One pod, not merely its name: a pod of the same name that was made later has another uid.
package struct PodReference: Hashable, Sendable {
    package var namespace: String
    package var name: String
    package var uid: String

    package init(namespace: String, name: String, uid: String) {
        self.namespace = namespace
        self.name = name
        self.uid = uid
    }
}

/// The query of `pods/NAME/log`.
package struct PodLogRequest: Hashable, Sendable {
    package var container: String
    /// Goes on with what is written from now on, until the container has ended or the reader goes away.
    package var follow: Bool
    /// The log of the container's run before the current one.
    package var previous: Bool
    /// Each line begins with its time in RFC 3339.
    package var timestamps: Bool
    /// Only the last lines; nil is all that is kept.
    package var tailLines: Int?
    package var sinceSeconds: Int?

    package init(
        container: String, follow: Bool = false, previous: Bool = false, timestamps: Bool = false,
        tailLines: Int? = nil,
        sinceSeconds: Int? = nil
    ) {
        self.container = container
        self.follow = follow
        self.previous = previous
        self.timestamps = timestamps
        self.tailLines = tailLines
        self.sinceSeconds = sinceSeconds
    }
}

/// A command to run in a container.
package struct PodExecRequest: Hashable, Sendable {
    package var container: String
    package var command: [String]
    /// Whether `standardInput` will carry bytes; otherwise the command reads end-of-file at once.
    package var hasStandardInput: Bool
    /// Whether the command gets a pseudo-terminal, whose output arrives as standard output.
    package var hasTerminal: Bool

    package init(container: String, command: [String], hasStandardInput: Bool = false, hasTerminal: Bool = false) {
        self.container = container
        self.command = command
        self.hasStandardInput = hasStandardInput
        self.hasTerminal = hasTerminal
    }
}

package enum PodExecOutput: Hashable, Sendable {
    case standardOutput([UInt8])
    case standardError([UInt8])
}

/// What the API server asks of whoever runs the pods. Failures are `StatusError`s: 404 for a pod or container that is not
/// there, 400 for one that is not in a state to answer.
package protocol PodAccess: Sendable {
    /// The log in pieces of any size. The stream ends with the log, or with the container when following.
    func logs(of pod: PodReference, _ request: PodLogRequest) async throws -> AsyncThrowingStream<[UInt8], any Error>

    /// Runs the command and returns its exit code (128 + signal when a signal ended it). `standardInput` finishing is the
    /// command's end-of-file. `output` suspends while the reader is slow. Cancelling the calling task kills the command.
    func exec(
        in pod: PodReference, _ request: PodExecRequest, standardInput: AsyncStream<[UInt8]>,
        output: @escaping @Sendable (PodExecOutput) async throws -> Void
    ) async throws -> Int

    /// Where the API server reaches the pod, for `pods/NAME/proxy`; nil before it has an address.
    func address(of pod: PodReference) async throws -> IPAddress?
}
