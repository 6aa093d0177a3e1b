package import MeshCore

/// Chooses among the endpoints of one service port. It sees them as numbers below `count`: whether they are usable and what
/// they carry is the caller's to say, so that the choice is a function of its arguments and one cursor.
package struct Balancer: Sendable, Equatable {
    package var policy: LoadBalancing
    private var cursor = 0

    package init(policy: LoadBalancing) {
        self.policy = policy
    }

    /// Picks one of `count` candidates that `isExcluded` does not name, or nil when it names all of them.
    ///
    /// `load` is asked twice at most (power of two choices), so that a choice costs the same among three endpoints and three
    /// thousand. `passedOver` is told which endpoint lost against which by its load.
    @inline(__always)
    package mutating func pick(
        count: Int, random: inout some RandomNumberGenerator, isExcluded: (Int) -> Bool, load: (Int) -> Double,
        passedOver: (_ loser: Int, _ winner: Int) -> Void = { _, _ in }
    ) -> Int? {
        guard count > 0 else { return nil }
        if count == 1 { return isExcluded(0) ? nil : 0 }
        switch policy {
        case .roundRobin:
            for step in 0..<count {
                let index = (cursor &+ step) % count
                if !isExcluded(index) {
                    cursor = (index &+ 1) % count
                    return index
                }
            }
            return nil
        case .random:
            return Balancer.draw(count: count, random: &random, isExcluded: isExcluded)
        case .peakEWMA:
            guard let first = Balancer.draw(count: count, random: &random, isExcluded: isExcluded) else { return nil }
            guard
                let second = Balancer.draw(
                    count: count, random: &random, isExcluded: { $0 == first || isExcluded($0) })
            else { return first }
            // A tie goes to the first, which is as random as the second.
            let (winner, loser) = load(second) < load(first) ? (second, first) : (first, second)
            passedOver(loser, winner)
            return winner
        }
    }

    /// A uniform choice among those not excluded. Two free draws succeed almost always; the walk after them makes certain.
    @inline(__always)
    private static func draw(
        count: Int, random: inout some RandomNumberGenerator, isExcluded: (Int) -> Bool
    ) -> Int? {
        let bound = UInt64(truncatingIfNeeded: count)
        for _ in 0..<2 {
            let index = Int(truncatingIfNeeded: random.next().multipliedFullWidth(by: bound).high)
            if !isExcluded(index) { return index }
        }
        let start = Int(truncatingIfNeeded: random.next().multipliedFullWidth(by: bound).high)
        for step in 0..<count {
            let index = (start &+ step) % count
            if !isExcluded(index) { return index }
        }
        return nil
    }
}

/// A small fast generator for choices that nobody can gain by guessing (which of two replicas, which span ID).
/// xoshiro256++ (Blackman and Vigna, 2019).
package struct LoopRandom: RandomNumberGenerator, Sendable {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    package init(seed: UInt64) {
        var mix = seed
        func next() -> UInt64 {
            mix &+= 0x9e37_79b9_7f4a_7c15
            var word = mix
            word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
            word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
            return word ^ (word >> 31)
        }
        state = (next(), next(), next(), next())
    }

    @inline(__always)
    package mutating func next() -> UInt64 {
        let sum = state.0 &+ state.3
        let result = ((sum << 23) | (sum >> 41)) &+ state.0
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = (state.3 << 45) | (state.3 >> 19)
        return result
    }
}
