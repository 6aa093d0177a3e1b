import MeshCore
import MeshProxy
import Testing

/// Peak EWMA over simulated replicas: who gets how many requests. Time and chance are of the simulation's own, so that a seed gives the same run
/// everywhere.
@Suite struct SpreadTests {
    /// What one sidecar sends to the replicas of one service.
    private struct Simulation {
        struct Replica {
            var latency = PeakEWMA(now: 0)
            var pending = 0
            var requests = 0
            /// What its answers take, times those of its fellows.
            var factor = 1.0
        }

        static let answerNanoseconds = 2e6
        var replicas: [Replica]
        var requestsPerSecond: Double
        var random: LoopRandom
        /// Whether losing against a peer forgives, or only time does.
        var forgives = true

        init(factors: [Double], requestsPerSecond: Double, seed: UInt64) {
            replicas = factors.map { Replica(factor: $0) }
            self.requestsPerSecond = requestsPerSecond
            random = LoopRandom(seed: seed)
        }

        private mutating func unit() -> Double { Double.random(in: 0..<1, using: &random) }

        /// Half to one and a half times the usual; a cold start of 20 to 150 ms, and a pause of 20 to 100 ms in one of 500.
        private mutating func answerNanoseconds(_ index: Int) -> Int64 {
            var time = Simulation.answerNanoseconds * replicas[index].factor * (0.5 + unit())
            if replicas[index].requests == 1 {
                time += 20e6 + 130e6 * unit()
            } else if unit() < 0.002 {
                time += 20e6 + 80e6 * unit()
            }
            return Int64(time)
        }

        /// Each replica's share of the requests of so many seconds.
        mutating func shares(seconds: Int) -> [Double] {
            var balancer = Balancer(policy: .peakEWMA)
            var underWay: [(end: Int64, index: Int, time: Int64)] = []
            var now: Int64 = 0
            let count = Int(requestsPerSecond * Double(seconds))
            for _ in 0..<count {
                now += Int64(2e9 / requestsPerSecond * unit())
                for done in underWay.filter({ $0.end <= now }).sorted(by: { $0.end < $1.end }) {
                    replicas[done.index].pending -= 1
                    replicas[done.index].latency.observe(nanoseconds: done.time, now: done.end)
                }
                underWay.removeAll { $0.end <= now }
                var lost: (loser: Int, winner: Int)?
                let index =
                    balancer.pick(
                        count: replicas.count, random: &random, isExcluded: { _ in false },
                        load: { replicas[$0].latency.load(pending: replicas[$0].pending, now: now) },
                        passedOver: { lost = ($0, $1) }) ?? 0
                if forgives, let lost { replicas[lost.loser].latency.passOver(for: replicas[lost.winner].latency) }
                replicas[index].requests += 1
                replicas[index].pending += 1
                let time = answerNanoseconds(index)
                underWay.append((now + time, index, time))
            }
            return replicas.map { Double($0.requests) / Double(count) }
        }
    }

    @Test(
        "Replicas that are equally fast all take their part within seconds, whatever their first answers took",
        arguments: [(2, 20.0, 0.15), (2, 200, 0.35), (3, 40, 0.15), (3, 400, 0.25), (5, 100, 0.10)])
    func equals(count: Int, requestsPerSecond: Double, least: Double) {
        for seed in 1...40 as ClosedRange<UInt64> {
            var simulation = Simulation(
                factors: Array(repeating: 1, count: count), requestsPerSecond: requestsPerSecond, seed: seed)
            let shares = simulation.shares(seconds: 15)
            #expect(shares.allSatisfy { $0 >= least }, "seed \(seed): \(shares)")
        }
    }

    /// The fault that `passOver` mends; without it the test above would prove nothing.
    @Test("Were peaks forgiven by time alone, a replica would be left out for a cold start")
    func timeAlone() {
        let starved = (1...40 as ClosedRange<UInt64>).count { seed in
            var simulation = Simulation(factors: [1, 1, 1], requestsPerSecond: 40, seed: seed)
            simulation.forgives = false
            return simulation.shares(seconds: 15).contains { $0 < 0.05 }
        }
        #expect(starved > 20)
    }

    @Test(
        "A replica that is ten times as slow gets little",
        arguments: [(2, 40.0), (3, 40), (3, 400), (10, 400)])
    func slow(count: Int, requestsPerSecond: Double) {
        for seed in 1...20 as ClosedRange<UInt64> {
            var simulation = Simulation(
                factors: Array(repeating: 1, count: count - 1) + [10], requestsPerSecond: requestsPerSecond, seed: seed)
            let shares = simulation.shares(seconds: 60)
            #expect(shares[count - 1] < 0.35 / Double(count), "seed \(seed): \(shares)")
        }
    }
}
