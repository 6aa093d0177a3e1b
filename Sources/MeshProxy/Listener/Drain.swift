import MeshIO

/// Waits on one loop until nothing is in flight, or for as long as it is given.
///
/// From its beginning inbound connections end with their next response, and idle ones at once, so that callers move to other
/// endpoints. New connections are served all the same: the application is still there.
final class Drain: TimerTarget {
    private static let pollMilliseconds = 20

    private let loop: ProxyLoop
    private let deadline: Int64
    private let completion: @Sendable (_ leftInFlight: Int) -> Void
    private var timer: LoopTimer!

    init(loop: ProxyLoop, deadlineMilliseconds: Int, completion: @escaping @Sendable (Int) -> Void) {
        self.loop = loop
        deadline = loop.now &+ Int64(max(0, deadlineMilliseconds)) &* 1_000_000
        self.completion = completion
        timer = LoopTimer(loop: loop.eventLoop, target: self)
        loop.beginDrain()
        timer.arm(afterMilliseconds: 0)
    }

    func timerFired(_ timer: LoopTimer) {
        let inFlight = loop.inFlight
        if inFlight == 0 || loop.now >= deadline {
            loop.drain = nil
            completion(inFlight)
        } else {
            timer.arm(afterMilliseconds: Drain.pollMilliseconds)
        }
    }
}
