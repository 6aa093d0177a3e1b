import MeshTelemetry
import Testing

@Suite struct TraceContextTests {
    private func parse(_ text: String) -> TraceContext? {
        Array(text.utf8).withUnsafeBytes { TraceContext(parsing: $0) }
    }

    @Test("A valid parent is read and written back")
    func roundTrip() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        let context = parse(text)
        #expect(
            context
                == TraceContext(
                    traceHigh: 0x4bf9_2f35_77b3_4da6, traceLow: 0xa3ce_929d_0e0e_4736, span: 0x00f0_67aa_0ba9_02b7,
                    flags: 1))
        #expect(context?.description == text)
        #expect(context?.isSampled == true)
        #expect(context?.traceID == "4bf92f3577b34da6a3ce929d0e0e4736")
    }

    @Test(
        "What the recommendation tells to ignore is ignored",
        arguments: [
            "", "00", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
        ])
    func invalid(text: String) {
        #expect(parse(text) == nil)
    }

    @Test("A later version is read as far as it is known, and goes on as version 00")
    func laterVersion() {
        let context = parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-more")
        #expect(context?.child(random: 5).description == "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000005-01")
    }

    @Test("New IDs are never zero, whatever the random numbers")
    func neverZero() {
        let started = TraceContext.starting(random: (0, 0, 0), isSampled: false)
        #expect(parse(started.description) == started)
        #expect(!started.isSampled)
        #expect(parse(started.child(random: 0).description) != nil)
    }
}
