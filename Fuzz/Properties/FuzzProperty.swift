/// A property that an input violates, in words.
struct PropertyFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// One fuzz target: code that takes a peer's bytes, and what must hold for all of them.
///
/// The same function is run by libFuzzer (`Fuzz/run`) and, over the kept inputs, by `make test`. Not to trap is a property of all.
protocol FuzzProperty {
    /// The folder's name below `Corpus` and `Failures`.
    static var name: String { get }
    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure)
}

/// `condition` must hold.
func require(_ condition: Bool, _ what: @autoclosure () -> String) throws(PropertyFailure) {
    if !condition { throw PropertyFailure(what()) }
}

func text(_ bytes: some Sequence<UInt8>) -> String { String(decoding: Array(bytes), as: UTF8.self).debugDescription }

/// Where an input is cut into the pieces in which it arrives. A function of the input, so that a failure is found again.
enum Segmentation {
    /// Every byte by itself where that is cheap; else pieces of 1 to 97 bytes.
    static func ends(_ input: UnsafeRawBufferPointer) -> [Int] {
        if input.count <= 512 { return Array(1..<max(2, input.count + 1)).filter { $0 <= input.count } }
        var state: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in input.prefix(64) { state = (state ^ UInt64(byte)) &* 0x100_0000_01b3 }
        var ends: [Int] = []
        var at = 0
        while at < input.count {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            at = min(input.count, at + 1 + Int(state >> 33) % 97)
            ends.append(at)
        }
        return ends
    }
}

extension UnsafeRawBufferPointer {
    func part(_ from: Int, _ to: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: self[from..<to])
    }
}
