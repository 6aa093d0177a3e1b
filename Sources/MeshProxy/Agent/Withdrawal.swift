import MeshIO

/// Lets the callers of a pod that is about to be stopped go elsewhere, before its application is told to stop: the platform calls a
/// hook, and waits for its answer.
///
/// Whoever can reach the health port can call the hook, so it only believes it when the control plane says too that the pod is being
/// deleted (or cannot be asked). Then the sidecar tells those who are connected (GOAWAY, `Connection: close`), discovery tells the rest, and
/// when nothing new has come for a while the hook is answered.
final class Withdrawal: TimerTarget {
    private static let pollMilliseconds = 20
    /// What the control plane is waited for.
    private static let confirmationMilliseconds: Int64 = 1_000
    /// Silence after which callers are taken to have left, and the longest that is waited for it.
    private static let quietMilliseconds: Int64 = 300
    private static let limitMilliseconds: Int64 = 3_000

    private let loop: EventLoop
    private let plane: DataPlane
    private let isConfirmed: () -> Bool
    private let completion: () -> Void
    private let started: Int64
    private var drainingSince: Int64?
    private var arrivals: UInt64 = 0
    private var quietSince: Int64 = 0
    private var timer: LoopTimer!
    /// It keeps itself until it is over.
    private var itself: Withdrawal?

    static func run(
        loop: EventLoop, plane: DataPlane, isConfirmed: @escaping () -> Bool, completion: @escaping () -> Void
    ) {
        let withdrawal = Withdrawal(loop, plane, isConfirmed, completion)
        withdrawal.itself = withdrawal
        withdrawal.timer.arm(afterMilliseconds: 0)
    }

    private init(
        _ loop: EventLoop, _ plane: DataPlane, _ isConfirmed: @escaping () -> Bool, _ completion: @escaping () -> Void
    ) {
        self.loop = loop
        self.plane = plane
        self.isConfirmed = isConfirmed
        self.completion = completion
        started = loop.now.nanoseconds / 1_000_000
        timer = LoopTimer(loop: loop, target: self)
    }

    private var now: Int64 { loop.now.nanoseconds / 1_000_000 }

    func timerFired(_ timer: LoopTimer) {
        guard let drainingSince else {
            if isConfirmed() {
                plane.beginDrain()
                drainingSince = now
                quietSince = now
                observe()
            } else if now - started >= Withdrawal.confirmationMilliseconds {
                finish()
            } else {
                timer.arm(afterMilliseconds: Withdrawal.pollMilliseconds)
            }
            return
        }
        if now - quietSince >= Withdrawal.quietMilliseconds || now - drainingSince >= Withdrawal.limitMilliseconds {
            finish()
        } else {
            observe()
        }
    }

    private func observe() {
        let bound = LoopBound(self, loop: loop)
        plane.report { [loop] reports in
            let arrivals = reports.reduce(0) { $0 &+ $1.counters.arrivals }
            loop.submit { bound.value.observed(arrivals) }
        }
    }

    private func observed(_ arrivals: UInt64) {
        if arrivals != self.arrivals {
            self.arrivals = arrivals
            quietSince = now
        }
        timer.arm(afterMilliseconds: Withdrawal.pollMilliseconds)
    }

    private func finish() {
        itself = nil
        completion()
    }
}
