import MeshCore
import MeshIdentity
import Testing

@Suite("When a certificate is renewed")
struct RenewalScheduleTests {
    let start = Timestamp(unixSeconds: 1_800_000_000)

    func schedule(hours: Int64 = 24, random: Double = 0.5) -> RenewalSchedule {
        RenewalSchedule(notBefore: start, notAfter: start.advanced(bySeconds: hours * 3600), random: random)
    }

    /// The first second at which the schedule says to renew, asking as often as it wants to be asked.
    func renewal(of schedule: RenewalSchedule, from begin: Timestamp) -> Timestamp {
        var now = begin
        while case .wait(let milliseconds) = schedule.decide(now: now) {
            #expect((1...60_000).contains(milliseconds))
            now = now.advanced(byMilliseconds: Int64(milliseconds))
        }
        return now
    }

    @Test("At half the life, a tenth of it earlier or later", arguments: [(0.0, 34_560), (0.5, 43_200), (1.0, 51_840)])
    func half(random: Double, seconds: Int64) {
        #expect(renewal(of: schedule(random: random), from: start) == start.advanced(bySeconds: seconds))
    }

    @Test("Random numbers out of range, and lives of no length, do no harm")
    func extremes() {
        #expect(renewal(of: schedule(random: 7), from: start).seconds(since: start) == 51_840)
        #expect(renewal(of: schedule(random: -7), from: start).seconds(since: start) == 34_560)
        #expect(RenewalSchedule(notBefore: start, notAfter: start, random: 0.5).decide(now: start) == .renewNow)
        #expect(
            RenewalSchedule(notBefore: start, notAfter: start.advanced(bySeconds: -5), random: 0.5).decide(now: start)
                == .renewNow)
    }

    @Test(
        "A clock that jumps forward over the moment renews at the next waking; one that jumps before the beginning, at once"
    )
    func jumps() {
        let schedule = schedule()
        #expect(schedule.decide(now: start.advanced(bySeconds: 23 * 3600)) == .renewNow)
        #expect(schedule.decide(now: start.advanced(bySeconds: 10 * 86_400)) == .renewNow)
        #expect(schedule.decide(now: start.advanced(bySeconds: -86_400)) == .renewNow)
        #expect(schedule.isExpired(at: start.advanced(bySeconds: 86_400)))
        #expect(!schedule.isExpired(at: start.advanced(bySeconds: 86_399)))
    }

    @Test("Failures are retried with growing pauses, often enough before the end, and for ever after it")
    func retries() {
        var schedule = schedule(hours: 1)
        var now = renewal(of: schedule, from: start)
        var pauses: [Int64] = []
        for _ in 0..<200 {
            schedule.failed(now: now, random: 1)
            #expect(schedule.isRetrying)
            let next = renewal(of: schedule, from: now)
            pauses.append(next.milliseconds(since: now))
            now = next
        }
        #expect(pauses.prefix(8) == [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000])
        #expect(pauses.allSatisfy { $0 <= 300_000 })
        #expect(pauses.last == 300_000)
        let end = start.advanced(bySeconds: 3600)
        #expect(now > end)
        #expect(schedule.decide(now: now) == .renewNow)
    }

    @Test("The pause after a failure is at least half of what it may be")
    func jitter() {
        var schedule = schedule()
        let due = renewal(of: schedule, from: start)
        schedule.failed(now: due, random: 0)
        #expect(renewal(of: schedule, from: due).milliseconds(since: due) == 500)
    }

    @Test("A clock set back during a pause does not stretch the pause")
    func setBack() {
        var schedule = schedule()
        let due = renewal(of: schedule, from: start)
        schedule.failed(now: due, random: 1)
        #expect(schedule.decide(now: start.advanced(bySeconds: -7200)) == .renewNow)
    }
}
