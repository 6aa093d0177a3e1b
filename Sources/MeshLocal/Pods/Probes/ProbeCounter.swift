package import MeshKubernetes

/// What a row of probe results means. Pure.
package struct ProbeCounter: Sendable {
    package enum Kind: String, Sendable {
        case startup, liveness, readiness

        package var title: String {
            switch self {
            case .startup: "Startup"
            case .liveness: "Liveness"
            case .readiness: "Readiness"
            }
        }
    }

    package let successThreshold: Int
    package let failureThreshold: Int
    private var successes = 0
    private var failures = 0

    package init(_ probe: Kubernetes.Probe) {
        successThreshold = max(1, probe.successThreshold ?? 1)
        failureThreshold = max(1, probe.failureThreshold ?? 3)
    }

    /// True once enough results in a row were successes, false once enough were failures, nil in between.
    package mutating func record(isSuccess: Bool) -> Bool? {
        if isSuccess {
            (successes, failures) = (successes + 1, 0)
            return successes >= successThreshold ? true : nil
        }
        (successes, failures) = (0, failures + 1)
        return failures >= failureThreshold ? false : nil
    }
}

/// When a probe is made, in milliseconds. Pure.
package struct ProbeSchedule: Sendable {
    package let initialDelayMilliseconds: Int
    package let periodMilliseconds: Int
    package let timeoutMilliseconds: Int

    package init(_ probe: Kubernetes.Probe) {
        func milliseconds(_ seconds: Int?, _ standard: Int, atLeast minimum: Int) -> Int {
            min(max(seconds ?? standard, minimum), 86_400) * 1000
        }
        initialDelayMilliseconds = milliseconds(probe.initialDelaySeconds, 0, atLeast: 0)
        periodMilliseconds = milliseconds(probe.periodSeconds, 10, atLeast: 1)
        timeoutMilliseconds = milliseconds(probe.timeoutSeconds, 1, atLeast: 1)
    }

    /// Between a container's start and its first success a failure within the first period is expected: the program is not
    /// listening yet. So that a pod need not wait out a whole period for it, these pauses are tried in between, and their
    /// failures do not count.
    package var earlyPausesMilliseconds: [Int] {
        var pauses: [Int] = []
        var pause = 20
        var total = 0
        while total + pause < periodMilliseconds {
            pauses.append(pause)
            total += pause
            pause = min(pause * 2, 500)
        }
        return pauses
    }
}
