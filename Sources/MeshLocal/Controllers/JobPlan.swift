import MeshKubernetes

/// What a Job's next round does: pure.
struct JobPlan: Hashable, Sendable {
    enum Ending: Hashable, Sendable {
        case complete
        case failed(reason: String, message: String)
    }

    /// Pods to make, once `waitMilliseconds` are over.
    var create = 0
    /// Active pods that are too many.
    var delete = 0
    var ending: Ending?
    /// When to look again though nothing changes.
    var waitMilliseconds: Int?

    struct Input: Hashable, Sendable {
        var parallelism = 1
        /// Nil: one success is enough, and every pod may go on to its own end.
        var completions: Int? = 1
        var backoffLimit = 6
        var activeDeadlineSeconds: Int?
        var isSuspended = false
        var restartsInPlace = false
        var active = 0
        var succeeded = 0
        var failed = 0
        /// Restarts of the containers of active pods, when they restart in place.
        var restarts = 0
        var secondsSinceStart: Int64 = 0
        var millisecondsSinceFailure: Int64?
        var backoffMilliseconds: Int64 = 10_000
    }

    private static let backoffLimitMilliseconds: Int64 = 360_000

    init(_ input: Input) {
        if input.failed > input.backoffLimit
            || (input.restartsInPlace && input.restarts > 0 && input.restarts + input.failed >= max(input.backoffLimit, 1))
        {
            ending = .failed(reason: "BackoffLimitExceeded", message: "Job has reached the specified backoff limit")
        } else if let deadline = input.activeDeadlineSeconds, !input.isSuspended, input.secondsSinceStart >= Int64(deadline) {
            ending = .failed(reason: "DeadlineExceeded", message: "Job was active longer than specified deadline")
        } else if let completions = input.completions, input.succeeded >= completions {
            ending = .complete
        } else if input.completions == nil, input.succeeded > 0, input.active == 0 {
            ending = .complete
        }
        guard ending == nil else {
            delete = input.active
            return
        }
        if let deadline = input.activeDeadlineSeconds, !input.isSuspended {
            waitMilliseconds = Int(max(Int64(deadline) - input.secondsSinceStart, 1)) * 1_000
        }
        guard !input.isSuspended else {
            delete = input.active
            return
        }
        let wanted: Int
        if let completions = input.completions {
            wanted = min(input.parallelism, completions - input.succeeded)
        } else {
            // After the first success no new ones are made.
            wanted = input.succeeded > 0 ? min(input.active, input.parallelism) : input.parallelism
        }
        if input.active > wanted { delete = input.active - wanted }
        guard input.active < wanted else { return }
        if input.failed > 0, let since = input.millisecondsSinceFailure {
            let delay = min(input.backoffMilliseconds << Int64(min(input.failed - 1, 10)), Self.backoffLimitMilliseconds)
            if since < delay {
                waitMilliseconds = min(waitMilliseconds ?? .max, Int(delay - since))
                return
            }
        }
        create = wanted - input.active
    }
}
