import MeshCore
import Testing

@Suite("Timestamp")
struct TimestampTests {
    @Test(
        "Text and milliseconds mean the same moment",
        arguments: [
            ("1970-01-01T00:00:00.000Z", 0), ("2000-02-29T12:30:45.678Z", 951_827_445_678),
            ("2026-11-22T15:10:12.034Z", 1_795_360_212_034), ("1969-12-31T23:59:59.999Z", -1),
            ("2100-03-01T00:00:00.000Z", 4_107_542_400_000), ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] as [(String, Int64)])
    func roundTrip(text: String, milliseconds: Int64) {
        #expect(Timestamp(unixMilliseconds: milliseconds).description == text)
        #expect(Timestamp(text)?.unixMilliseconds == milliseconds)
    }

    @Test("Offsets and fractions of any length are read")
    func offsets() {
        #expect(Timestamp("1970-01-01T02:00:00+02:00")?.unixMilliseconds == 0)
        #expect(Timestamp("1969-12-31T22:30:00.5-01:30")?.unixMilliseconds == 500)
        #expect(Timestamp("1970-01-01T00:00:00.123456789Z")?.unixMilliseconds == 123)
    }

    @Test(
        "What is not a time of RFC 3339 is refused",
        arguments: [
            "", "2026-11-22", "2026-11-22T15:10:12", "2026-13-22T15:10:12Z", "2026-02-29T15:10:12Z",
            "2026-11-22T24:10:12Z",
            "2026-11-22T15:10:12.Z", "2026-11-22T15:10:12+0200", "2026-11-22T15:10:12Zx", "2026-11-22 15:10:12Z",
        ])
    func refused(text: String) {
        #expect(Timestamp(text) == nil)
    }

    @Test("Every day of four centuries comes back")
    func everyDay() {
        for day in Int64(-141_427)..<(146_097 - 141_427) {
            let moment = Timestamp(unixSeconds: day * 86_400 + 1)
            #expect(Timestamp(moment.description) == moment)
        }
    }

    @Test("Arithmetic saturates instead of trapping")
    func saturation() {
        #expect(Timestamp(unixSeconds: .max).unixMilliseconds == .max)
        #expect(Timestamp(unixSeconds: .min).advanced(bySeconds: .min).unixMilliseconds == .min)
        #expect(Timestamp(unixSeconds: .max).milliseconds(since: Timestamp(unixSeconds: .min)) == .max)
    }
}
