import MeshCore
import Testing

@Suite struct ProtocolMemoryTests {
    private static let cases: [([LearnedProtocol], LearnedProtocol?, Int)] = [
        ([], nil, 0),
        ([.http1], .http1, 0),
        ([.http1, .http1, .http1], .http1, 0),
        // A client that was faster than the greeting proves nothing against it.
        ([.serverFirst, .opaque], .serverFirst, 0),
        ([.opaque, .serverFirst], .serverFirst, 0),
        ([.serverFirst, .http1], .http1, 1),
        ([.http1, .serverFirst], .serverFirst, 1),
        ([.http1, .opaque, .http1], .http1, 2),
        ([.tls, .http2], .http2, 1),
    ]

    @Test(arguments: cases)
    func whatIsContradictedIsForgotten(_ seen: [LearnedProtocol], _ learned: LearnedProtocol?, _ contradictions: Int) {
        var memory = ProtocolMemory()
        for value in seen { memory.observe(value) }
        #expect(memory.learned == learned)
        #expect(memory.contradictions == contradictions)
    }

    @Test func aPortOfSeveralKindsIsRememberedAsNone() {
        var memory = ProtocolMemory()
        for index in 0..<100 { memory.observe(index % 2 == 0 ? .http1 : .opaque) }
        #expect(memory.isMixed)
        #expect(memory.learned == nil)
        #expect(memory.expectation(hint: .http1) == nil, "what others say is no better")
    }

    @Test func whatWasSeenHereGoesBeforeWhatOthersSay() {
        var memory = ProtocolMemory()
        #expect(memory.expectation(hint: .serverFirst) == .serverFirst)
        memory.observe(.http1)
        #expect(memory.expectation(hint: .serverFirst) == .http1)
    }
}

@Suite struct TLSServerNameTests {
    @Test(arguments: [
        ("api.example.org", "api.example.org"), ("API.Example.ORG", "api.example.org"), ("a_b-1", "a_b-1"),
        ("", "(invalid)"), ("a b", "(invalid)"), ("a\"b", "(invalid)"), ("a\nb", "(invalid)"), ("ü", "(invalid)"),
        ("(none)", "(invalid)"), ("{}", "(invalid)"), (String(repeating: "a", count: 254), "(invalid)"),
    ])
    func onlyHostNamesAreNames(_ text: String, _ label: String) {
        #expect(TLSServerName(Array(text.utf8)).label == label)
    }
}
