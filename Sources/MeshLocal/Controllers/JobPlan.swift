/// What a Job's next round does: pure.
package struct JobPlan: Hashable, Sendable {
    package enum Ending: Hashable, Sendable {
        case complete
        case failed(reason: String, message: String)
    }

    /// Pods to make, once `waitMilliseconds` are over.
    package var create = 0
    /// Active pods that are too many.
    package var delete = 0
    package var ending: Ending?
    /// When to look again though nothing changes.
    package var waitMilliseconds: Int?

    package struct Input: Hashable, Sendable {
        package var parallelism = 1
        /// Nil: one success is enough, and every pod may go on to its own end.
        package var completions: Int? = 1
        package var backoffLimit = 6
        package var activeDeadlineSeconds: Int?
        package var isSuspended = false
        package var restartsInPlace = false
        package var active = 0
        package var succeeded = 0
        package var failed = 0
        /// Restarts of the containers of active pods, when they restart in place.
        package var restarts = 0
        package var secondsSinceStart: Int64 = 0
        package var millisecondsSinceFailure: Int64?
        package var backoffMilliseconds: Int64 = 10_000

        package init() {}
    }

    private static let backoffLimitMilliseconds: Int64 = 360_000

    package init(_ input: Input) {
        if input.failed > input.backoffLimit
            || (input.restartsInPlace && input.restarts > 0
                && input.restarts + input.failed >= max(input.backoffLimit, 1))
        {
            ending = .failed(reason: "BackoffLimitExceeded", message: "Job has reached the specified backoff limit")
        } else if let deadline = input.activeDeadlineSeconds, !input.isSuspended,
            input.secondsSinceStart >= Int64(deadline)
        {
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
            let delay = min(
                input.backoffMilliseconds << Int64(min(input.failed - 1, 10)), Self.backoffLimitMilliseconds)
            if since < delay {
                waitMilliseconds = min(waitMilliseconds ?? .max, Int(delay - since))
                return
            }
        }
        create = wanted - input.active
    }
}
