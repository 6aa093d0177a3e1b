import MeshHTTP
import Testing

@Suite struct GRPCPureTests {
    private static func frame(_ message: [UInt8], flag: UInt8 = 0) -> [UInt8] {
        let count = UInt32(message.count)
        return [flag] + (0..<4).map { UInt8(truncatingIfNeeded: count >> UInt32(24 - 8 * $0)) } + message
    }

    private static func deframe(_ pieces: [[UInt8]], limit: Int = 1000) throws(GRPCDeframer.Failure) -> [[UInt8]] {
        var deframer = GRPCDeframer(limit: limit)
        var messages: [[UInt8]] = []
        for piece in pieces {
            let result = piece.withUnsafeBytes { bytes in
                Result { () throws(GRPCDeframer.Failure) in
                    try deframer.append(bytes) { messages.append([UInt8]($0)) }
                }
            }
            try result.get()
        }
        try deframer.finish()
        return messages
    }

    @Test func messagesAreTheSameWhereverTheBytesAreCut() throws {
        let messages: [[UInt8]] = [[], [1], Array(repeating: 7, count: 300), [], [2, 3]]
        let bytes = messages.flatMap { GRPCPureTests.frame($0) }
        for first in 0...bytes.count {
            for second in stride(from: first, through: bytes.count, by: 13) {
                let pieces = [Array(bytes[..<first]), Array(bytes[first..<second]), Array(bytes[second...])]
                #expect(try GRPCPureTests.deframe(pieces) == messages)
            }
        }
        #expect(try GRPCPureTests.deframe(bytes.map { [$0] }) == messages)
    }

    @Test func whatIsNotAMessageIsRefused() {
        let cases: [([UInt8], GRPCDeframer.Failure)] = [
            (GRPCPureTests.frame([1], flag: 1), .compressed),
            (GRPCPureTests.frame([UInt8](repeating: 0, count: 1001)), .tooLong(1001)),
            ([0, 0xff, 0xff, 0xff, 0xff], .tooLong(4_294_967_295)),
            ([0, 0, 0], .truncated),
            ([0, 0, 0, 0, 5, 1, 2], .truncated),
        ]
        for (bytes, failure) in cases {
            #expect(throws: failure) { try GRPCPureTests.deframe([bytes]) }
            #expect(throws: failure) { try GRPCPureTests.deframe(bytes.map { [$0] }) }
        }
    }

    @Test(arguments: [
        ("plain", "plain"), ("100 %", "100 %25"), ("ü", "%C3%BC"), ("a\nb", "a%0Ab"), ("", ""), ("%41", "%2541"),
    ])
    func aStatusMessageTravelsPercentEncoded(message: String, encoded: String) {
        #expect(GRPCStatus.encodeMessage(message) == encoded)
        #expect(GRPCStatus.decodeMessage(encoded.utf8) == message)
    }

    @Test(arguments: [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%e4%", "\u{fffd}%"), ("a%20b", "a b")])
    func aBrokenEscapeStandsForItself(encoded: String, message: String) {
        #expect(GRPCStatus.decodeMessage(encoded.utf8) == message)
    }

    @Test(
        arguments: [
            ("1S", 1000), ("2M", 120_000), ("1H", 3_600_000), ("250m", 250), ("1500u", 2), ("1n", 1),
            ("99999999m", 99_999_999),
            ("", nil), ("5", nil), ("m", nil), ("-1m", nil), ("1x", nil), ("123456789m", nil), ("1 m", nil),
        ] as [(String, Int?)])
    func aTimeoutIsReadInAnyUnit(text: String, milliseconds: Int?) {
        #expect(GRPCTimeout.parse(text.utf8) == milliseconds)
    }

    @Test(arguments: [
        (0, "1m"), (250, "250m"), (99_999_999, "99999999m"), (100_000_000, "100000S"), (Int.max, "99999999S"),
    ])
    func aTimeoutIsWrittenInEightDigits(milliseconds: Int, text: String) {
        #expect(GRPCTimeout.text(milliseconds: milliseconds) == text)
    }

    @Test func aFloodGuardAdmitsABurstAndThenARate() {
        var guardian = FloodGuard(burst: 10, perSecond: 5, nowNanoseconds: 0)
        #expect((0..<20).filter { _ in guardian.admit(nowNanoseconds: 0) }.count == 10)
        #expect((0..<20).filter { _ in guardian.admit(nowNanoseconds: 1_000_000_000) }.count == 5)
        #expect((0..<20).filter { _ in guardian.admit(nowNanoseconds: 3_600_000_000_000) }.count == 10)
        #expect(
            (0..<20).filter { _ in guardian.admit(nowNanoseconds: 0) }.count == 0,
            "a clock that goes back gives nothing")
    }
}
