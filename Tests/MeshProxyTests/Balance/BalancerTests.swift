import MeshCore
import MeshProxy
import Testing

@Suite struct BalancerTests {
    private func picks(
        _ policy: LoadBalancing, count: Int, rounds: Int, excluded: Set<Int> = [], loads: [Double] = []
    ) -> [Int: Int] {
        var balancer = Balancer(policy: policy)
        var random = LoopRandom(seed: 7)
        var result: [Int: Int] = [:]
        for _ in 0..<rounds {
            let index = balancer.pick(
                count: count, random: &random, isExcluded: { excluded.contains($0) },
                load: { loads.isEmpty ? 1 : loads[$0] })
            if let index { result[index, default: 0] += 1 }
        }
        return result
    }

    @Test func roundRobinGivesEachItsTurn() {
        #expect(picks(.roundRobin, count: 3, rounds: 9) == [0: 3, 1: 3, 2: 3])
        #expect(picks(.roundRobin, count: 3, rounds: 6, excluded: [1]) == [0: 3, 2: 3])
    }

    @Test func randomReachesEveryoneAboutEqually() {
        let result = picks(.random, count: 4, rounds: 4000)
        #expect(result.count == 4)
        #expect(result.values.allSatisfy { (800...1200).contains($0) })
    }

    @Test func theLighterOfTwoIsChosen() {
        // Two draws of three different endpoints: the heaviest never wins, the lightest wins whenever it is drawn.
        let result = picks(.peakEWMA, count: 3, rounds: 3000, loads: [1, 2, 3])
        #expect(result[2] == nil)
        #expect((1800...2200).contains(result[0] ?? 0))
    }

    @Test(arguments: [LoadBalancing.peakEWMA, .roundRobin, .random])
    func whoIsExcludedIsNeverChosen(_ policy: LoadBalancing) {
        for count in 1...6 {
            for mask in 0..<(1 << count) {
                let excluded = Set((0..<count).filter { mask & (1 << $0) != 0 })
                let result = picks(policy, count: count, rounds: 20, excluded: excluded)
                #expect(Set(result.keys).isDisjoint(with: excluded))
                #expect(result.values.reduce(0, +) == (excluded.count == count ? 0 : 20))
            }
        }
    }

    @Test func nobodyIsChosenAmongNone() {
        #expect(picks(.peakEWMA, count: 0, rounds: 1).isEmpty)
    }
}

@Suite struct PeakEWMATests {
    private static let millisecond: Int64 = 1_000_000

    @Test func aSlowAnswerCountsAtOnceAndIsForgottenSlowly() {
        var latency = PeakEWMA(now: 0)
        latency.observe(nanoseconds: 100 * Self.millisecond, now: 1)
        #expect(latency.nanoseconds == 100e6)
        latency.observe(nanoseconds: Self.millisecond, now: 1_000_000_000)
        #expect(latency.nanoseconds > 85e6 && latency.nanoseconds < 95e6)
        for second in 2...100 { latency.observe(nanoseconds: Self.millisecond, now: Int64(second) * 1_000_000_000) }
        #expect(latency.nanoseconds < 1.1e6)
    }

    @Test func loadGrowsWithWhatIsPendingAndShrinksWithIdleTime() {
        var latency = PeakEWMA(now: 0)
        latency.observe(nanoseconds: 10 * Self.millisecond, now: 0)
        #expect(latency.load(pending: 1, now: 0) == 2 * latency.load(pending: 0, now: 0))
        #expect(latency.load(pending: 0, now: 30_000_000_000) < latency.load(pending: 0, now: 0) / 10)
    }

    @Test func timeThatRunsBackwardsDoesNoHarm() {
        var latency = PeakEWMA(now: 1000)
        latency.observe(nanoseconds: -5, now: 0)
        #expect(latency.load(pending: 0, now: -1_000_000_000).isFinite)
        #expect(latency.load(pending: 0, now: .max).isFinite)
    }
}

@Suite struct RetryBudgetTests {
    private static let second: Int64 = 1_000_000_000

    @Test func aQuietServiceMayRetryThreeTimesASecondOverTheWindow() {
        var budget = RetryBudget()
        var granted = 0
        for _ in 0..<100 where budget.withdraw(now: 0) { granted += 1 }
        #expect(granted == 30)
        let atNine = budget.withdraw(now: 9 * Self.second)
        let atTen = budget.withdraw(now: 10 * Self.second)
        #expect(!atNine)
        #expect(atTen, "what was spent ten seconds ago is no longer counted")
    }

    @Test func requestsEarnAFifthOfARetry() {
        var budget = RetryBudget()
        for _ in 0..<1000 { budget.countRequest(now: Self.second) }
        var granted = 0
        for _ in 0..<1000 where budget.withdraw(now: 2 * Self.second) { granted += 1 }
        #expect(granted == 230)
    }

    @Test func requestsOfLongAgoEarnNothing() {
        var budget = RetryBudget()
        for _ in 0..<1000 { budget.countRequest(now: 0) }
        var granted = 0
        for _ in 0..<1000 where budget.withdraw(now: 100 * Self.second) { granted += 1 }
        #expect(granted == 30)
    }
}

@Suite struct OutlierDetectorTests {
    private static let second: Int64 = 1_000_000_000

    private func fail(_ health: inout EndpointHealth, times: Int, others: Int = 0, count: Int = 4, now: Int64 = 0)
        -> [OutlierDetector.Verdict]
    {
        (0..<times).map { _ in OutlierDetector.failed(&health, othersEjected: others, count: count, now: now) }
    }

    @Test func fiveFailuresInARowEject() {
        var health = EndpointHealth()
        let verdicts = fail(&health, times: 5)
        #expect(verdicts == [.unchanged, .unchanged, .unchanged, .unchanged, .ejected(.consecutiveFailures)])
        #expect(health.state == .ejected(until: 30 * Self.second))
    }

    @Test func aSuccessInBetweenStartsTheCountAgain() {
        var health = EndpointHealth()
        _ = fail(&health, times: 4)
        _ = OutlierDetector.succeeded(&health)
        _ = fail(&health, times: 4)
        #expect(!health.isEjected)
    }

    @Test(arguments: [(1, 0, false), (2, 0, true), (2, 1, false), (3, 1, false), (4, 1, true), (4, 2, false)])
    func halfOfTheEndpointsAtMostAreOut(_ count: Int, _ others: Int, _ isEjected: Bool) {
        var health = EndpointHealth()
        _ = fail(&health, times: 10, others: others, count: count)
        #expect(health.isEjected == isEjected)
    }

    @Test func oneRequestProbesWhenTheTimeIsOverAndDecides() {
        var health = EndpointHealth()
        _ = fail(&health, times: 5)
        #expect(!OutlierDetector.admits(&health, now: 29 * Self.second))
        #expect(OutlierDetector.admits(&health, now: 30 * Self.second))
        #expect(!OutlierDetector.admits(&health, now: 30 * Self.second), "only one at a time")
        OutlierDetector.abandoned(&health)
        #expect(OutlierDetector.admits(&health, now: 31 * Self.second), "an abandoned probe is repeated")
        #expect(OutlierDetector.succeeded(&health) == .readmitted)
        #expect(health.state == .healthy)
    }

    @Test func eachEjectionIsLongerUpToFiveMinutes() {
        var health = EndpointHealth()
        var now: Int64 = 0
        _ = fail(&health, times: 5, now: now)
        var lengths: [Int64] = []
        for _ in 0..<12 {
            guard case .ejected(let until) = health.state else { break }
            lengths.append((until - now) / Self.second)
            now = until
            _ = OutlierDetector.admits(&health, now: now)
            #expect(OutlierDetector.failed(&health, othersEjected: 0, count: 4, now: now) == .ejected(.probeFailed))
        }
        #expect(lengths == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300])
    }

    private func interval(_ answers: [(successes: Int, failures: Int)]) -> [Int] {
        var healths = answers.map { answer in
            var health = EndpointHealth()
            for _ in 0..<answer.failures {
                _ = OutlierDetector.failed(&health, othersEjected: 0, count: 0, now: 0)
            }
            for _ in 0..<answer.successes { _ = OutlierDetector.succeeded(&health) }
            return health
        }
        return OutlierDetector.endInterval(&healths, now: 0)
    }

    @Test func anEndpointFarBelowItsPeersIsEjected() {
        #expect(interval([(100, 0), (50, 50)]) == [1])
        #expect(interval([(100, 0), (100, 1), (60, 40), (100, 0)]) == [2])
    }

    @Test func anEndpointThatIsNoWorseThanItsPeersStays() {
        #expect(interval([(50, 50), (48, 52)]).isEmpty, "all are bad: the service is, not the endpoint")
        #expect(interval([(100, 0), (97, 3)]).isEmpty, "a small gap may be chance")
        #expect(interval([(100, 0), (2, 3)]).isEmpty, "five answers say nothing")
        #expect(interval([(0, 100)]).isEmpty, "it has no peers")
        #expect(interval([]).isEmpty)
    }

    @Test func theWorstAreEjectedUpToTheLimit() {
        #expect(interval([(1000, 0), (1000, 0), (300, 700), (100, 900), (200, 800)]) == [3, 4])
    }
}
