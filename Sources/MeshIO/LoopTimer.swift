/// What a timer tells when it is due.
package protocol TimerTarget: AnyObject {
    /// On the timer's loop; the timer is no longer armed and may be armed again.
    func timerFired(_ timer: LoopTimer)
}

/// A deadline on a loop, of one-millisecond resolution, never early by the loop's own time.
///
/// It does not keep its target alive: the target owns its timers, so that letting go of the target cancels them.
/// Arming an armed timer again moves it; moving to a later time costs a store.
package final class LoopTimer {
    private let loop: EventLoop
    private unowned let target: any TimerTarget
    private var entry: Int32 = -1
    /// Tells a target's timers apart.
    package let tag: Int

    package init(loop: EventLoop, target: any TimerTarget, tag: Int = 0) {
        assert(loop.isCurrent, "a timer is made on its loop")
        self.loop = loop
        self.target = target
        self.tag = tag
        entry = loop.timers.makeEntry(for: self)
    }

    deinit {
        assert(loop.isCurrent, "a timer is let go of on its loop")
        loop.timers.freeEntry(entry)
    }

    /// Fires once, `milliseconds` after `loop.now`. Zero or less means the next round.
    package func arm(afterMilliseconds milliseconds: Int) {
        assert(loop.isCurrent, "a timer is armed on its loop")
        let delay = min(max(milliseconds, 0), TimerWheel.longestDelayMilliseconds)
        let now = loop.now.nanoseconds
        let due = (now &+ Int64(delay) &* 1_000_000 &+ 999_999) / 1_000_000
        // Never in the present round, or a timer that is armed with zero each time it fires would end it never.
        loop.timers.arm(entry, deadline: max(due, now / 1_000_000 + 1))
    }

    package func cancel() {
        assert(loop.isCurrent, "a timer is cancelled on its loop")
        loop.timers.disarm(entry)
    }

    package var isArmed: Bool { loop.timers.isArmed(entry) }

    func fire() {
        target.timerFired(self)
    }
}
