import Foundation
import MeshAddress
import MeshIO
import Testing

@Suite struct EventLoopTests {
    @Test func jobsOfOneThreadRunInTheOrderOfTheirSubmission() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let seen = Watched<[Int]>([])
            for index in 0..<10_000 { rig.loop.submit { seen.change { $0.append(index) } } }
            #expect(try seen.wait(for: "all jobs", until: { $0.count == 10_000 }) == Array(0..<10_000))
        }
    }

    @Test func jobsBeyondTheLimitAreRefusedAndCounted() async throws {
        try await onOwnThread {
            let loop = try EventLoop(name: "held")
            let ran = Watched(0)
            for _ in 0..<EventLoop.jobLimit { #expect(loop.submit { ran.change { $0 += 1 } }) }
            #expect(!loop.submit { ran.change { $0 += 1 } })
            #expect(loop.statistics.rejectedJobs == 1)
            loop.submit {}
            loop.stop()
            loop.run()
            #expect(ran.value == EventLoop.jobLimit)
        }
    }

    @Test func aLoopThatHasEndedTakesNoJobs() async throws {
        try await onOwnThread {
            let loop = try EventLoop(name: "ended")
            loop.stop()
            loop.run()
            #expect(!loop.submit {})
            #expect(loop.statistics.rejectedJobs == 1)
        }
    }

    @Test func aLoopIsCurrentOnItsThreadAlone() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let isCurrent = try rig.run { [loop = rig.loop] in loop.isCurrent }
            #expect(isCurrent)
            #expect(!rig.loop.isCurrent)
        }
    }

    @Test func stoppingClosesWhatIsOpen() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let address = try rig.listen(for: recorder)
            let peer = try BlockingSocket.connected(to: address)
            _ = try recorder.waitForConnection()
            rig.loop.stop()
            #expect(try recorder.waitUntilClosed() == .local)
            _ = try? peer.readToEnd()
            for _ in 0..<(patienceSeconds * 100) {
                guard let late = try? BlockingSocket.connected(to: address) else { return }
                late.close()
                pauseBriefly()
            }
            Issue.record("the listener of a stopped loop still accepts")
        }
    }

    // MARK: End of the round

    final class RoundCounter: EndOfRoundTarget {
        var count = 0
        var asksAgain = 0
        private let loop: EventLoop

        init(_ loop: EventLoop) { self.loop = loop }

        func endOfRound() {
            count += 1
            if asksAgain > 0 {
                asksAgain -= 1
                loop.atEndOfRound(self)
            }
        }
    }

    @Test func aTargetIsToldOncePerRoundHoweverOftenItAsks() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let targets = Transfer(try rig.run { [loop = rig.loop] in (0..<3).map { _ in RoundCounter(loop) } })
            try rig.run { [loop = rig.loop] in
                for _ in 0..<5 { for target in targets.value { loop.atEndOfRound(target) } }
                #expect(targets.value.map(\.count) == [0, 0, 0], "not before the end of the round")
            }
            #expect(try rig.run { targets.value.map(\.count) } == [1, 1, 1])
            try rig.run { [loop = rig.loop] in
                targets.value[0].asksAgain = 4
                loop.atEndOfRound(targets.value[0])
            }
            for _ in 0..<10 { try rig.run {} }
            #expect(try rig.run { targets.value.map(\.count) } == [6, 1, 1])
        }
    }

    // MARK: Timers

    final class TimerRecorder: TimerTarget, @unchecked Sendable {
        let fired = Watched<[(tag: Int, at: MonotonicTime)]>([])
        var timers: [LoopTimer] = []
        var onFire: (LoopTimer) -> Void = { _ in }

        func timerFired(_ timer: LoopTimer) {
            fired.change { $0.append((timer.tag, .now())) }
            onFire(timer)
        }
    }

    @Test func timersFireInTheOrderOfTheirDeadlinesAndNeverEarly() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = TimerRecorder()
            let count = 5000
            let delays = try rig.run { [loop = rig.loop] in
                var random = SplitMix(state: 3)
                var delays: [Int] = []
                for tag in 0..<count {
                    let delay = Int.random(in: 0...700, using: &random)
                    let timer = LoopTimer(loop: loop, target: recorder, tag: tag)
                    timer.arm(afterMilliseconds: Int.random(in: 0...2000, using: &random))
                    timer.arm(afterMilliseconds: delay)
                    recorder.timers.append(timer)
                    delays.append(delay)
                }
                return (loop.now, delays)
            }
            let fired = try recorder.fired.wait(for: "all timers", until: { $0.count == count })
            #expect(Set(fired.map(\.tag)).count == count)
            let inOrder = fired.map { delays.1[$0.tag] }
            #expect(zip(inOrder, inOrder.dropFirst()).allSatisfy { $0 <= $1 })
            for (tag, at) in fired { #expect(at.nanoseconds(since: delays.0) >= Int64(delays.1[tag]) * 1_000_000) }
            #expect(try rig.statistics.armedTimers == 0)
            try rig.run { recorder.timers = [] }
        }
    }

    @Test func aCancelledOrForgottenTimerDoesNotFire() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = TimerRecorder()
            try rig.run { [loop = rig.loop] in
                let timers = (0..<4).map { LoopTimer(loop: loop, target: recorder, tag: $0) }
                for timer in timers { timer.arm(afterMilliseconds: 10 + timer.tag) }
                timers[0].cancel()
                #expect(!timers[0].isArmed && timers[1].isArmed)
                timers[1].arm(afterMilliseconds: 100_000_000)
                // The third is let go of with the end of this job.
                recorder.timers = [timers[0], timers[1], timers[3]]
            }
            try recorder.fired.wait(for: "the last timer", until: { $0.contains { $0.tag == 3 } })
            #expect(recorder.fired.value.map(\.tag) == [3])
            #expect(try rig.statistics.armedTimers == 1)
            try rig.run { recorder.timers = [] }
            #expect(try rig.statistics.armedTimers == 0)
        }
    }

    @Test func aTimerMayBeArmedAgainFromItsOwnFiring() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = TimerRecorder()
            recorder.onFire = { [unowned recorder] timer in
                if recorder.fired.value.count < 20 { timer.arm(afterMilliseconds: 0) }
            }
            try rig.run { [loop = rig.loop] in
                let timer = LoopTimer(loop: loop, target: recorder)
                timer.arm(afterMilliseconds: -5)
                recorder.timers = [timer]
            }
            try recorder.fired.wait(for: "twenty firings", until: { $0.count == 20 })
            try rig.run { recorder.timers = [] }
        }
    }

    @Test func aTimerCancelledByAnotherThatFiresWithItStaysSilent() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = TimerRecorder()
            recorder.onFire = { [unowned recorder] timer in
                for other in recorder.timers where other.tag != timer.tag { other.cancel() }
            }
            try rig.run { [loop = rig.loop] in
                recorder.timers = (0..<8).map { LoopTimer(loop: loop, target: recorder, tag: $0) }
                for timer in recorder.timers { timer.arm(afterMilliseconds: 20) }
            }
            try recorder.fired.wait(for: "a timer", until: { !$0.isEmpty })
            for _ in 0..<20 { try rig.run {} }
            #expect(recorder.fired.value.count == 1)
            #expect(try rig.statistics.armedTimers == 0)
            try rig.run { recorder.timers = [] }
        }
    }
}
