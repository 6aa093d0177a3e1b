import CSimulatedKernel

/// SplitMix64: a schedule is a function of its seed.
struct ScheduleRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
        return word ^ (word >> 31)
    }

    mutating func below(_ bound: Int) -> Int { bound <= 1 ? 0 : Int(next() % UInt64(bound)) }
    mutating func within(_ range: ClosedRange<Int>) -> Int { range.lowerBound + below(range.count) }
    mutating func one(in count: Int) -> Bool { below(count) == 0 }
    mutating func milliseconds(_ range: ClosedRange<Int>) -> Int64 { Int64(within(range)) * 1_000_000 }
}

/// Somebody on the other side of the simulated network. It does one small thing at a time, when the schedule lets it.
protocol SimulatedPeer: AnyObject {
    /// The earliest time at which it may do something by itself; nil when it waits for others.
    func due() -> Int64?
    /// It will never do anything again.
    var isOver: Bool { get }
    func step(_ simulation: Simulation)
}

/// The bytes of one end of a simulated connection.
struct SimulatedSocket {
    let number: Int32
    private(set) var unsent: [UInt8] = []
    private(set) var received: [UInt8] = []

    init(_ number: Int32) { self.number = number }

    var hasUnsent: Bool { !unsent.isEmpty }
    var readable: Int { apus_sim_readable(number) }
    var end: Int32 { apus_sim_end(number) }

    mutating func queue(_ bytes: [UInt8]) { unsent += bytes }

    /// Puts some of what is queued on its way. False when there was no room.
    @discardableResult
    mutating func send(_ count: Int) -> Bool {
        let piece = Array(unsent.prefix(count))
        let taken = piece.withUnsafeBytes { apus_sim_write(number, $0.baseAddress, $0.count) }
        unsent.removeFirst(taken)
        return taken > 0
    }

    @discardableResult
    mutating func receive(_ count: Int) -> Int {
        var buffer = [UInt8](repeating: 0, count: count)
        let taken = buffer.withUnsafeMutableBytes { apus_sim_read(number, $0.baseAddress, $0.count) }
        received += buffer[..<taken]
        return taken
    }

    mutating func consume(_ count: Int) { received.removeFirst(count) }
    mutating func drop() { unsent.removeAll() }
}

/// A head of HTTP/1, for peers that speak it properly.
struct PlainHead {
    var startLine: String
    var fields: [String: String]
    var length: Int

    init?(_ bytes: [UInt8]) {
        guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
        var lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).split(separator: "\r\n")
        startLine = lines.isEmpty ? "" : String(lines.removeFirst())
        fields = [:]
        for line in lines {
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 {
                fields[parts[0].lowercased()] = parts[1].trimmingPrefix(" ").description
            }
        }
        length = end.upperBound
    }

    var contentLength: Int { fields["content-length"].flatMap { Int($0) } ?? 0 }
}

extension [UInt8] {
    func firstRange(of pattern: [UInt8]) -> Range<Int>? {
        guard count >= pattern.count else { return nil }
        for start in 0...(count - pattern.count) where self[start] == pattern[0] {
            if self[start..<(start + pattern.count)].elementsEqual(pattern) { return start..<(start + pattern.count) }
        }
        return nil
    }
}

/// What the answer to a request carries, so that another's answer is recognised.
func answerBody(_ request: Int, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: 97 + (request &* 7 &+ $0) % 26) }
}
