import MeshAddress
import MeshLocal
import Testing

struct DNSMessageTests {
    private func query(_ name: String, type: UInt16 = 1, flags: UInt16 = 0x0100) -> [UInt8] {
        var bytes: [UInt8] = [0x12, 0x34, UInt8(flags >> 8), UInt8(truncatingIfNeeded: flags), 0, 1, 0, 0, 0, 0, 0, 0]
        for label in name.split(separator: ".") { bytes += [UInt8(label.utf8.count)] + Array(label.utf8) }
        return bytes + [0, UInt8(type >> 8), UInt8(truncatingIfNeeded: type), 0, 1]
    }

    @Test func aQueryIsRead() throws {
        let parsed = try DNSQuery(query("Web.Shop.svc.cluster.local", type: 33))
        #expect(parsed.id == 0x1234)
        #expect(parsed.name.description == "Web.Shop.svc.cluster.local.")
        #expect(parsed.name.folded == DNSName("web.shop.svc.cluster.local"))
        #expect(parsed.type == 33)
        #expect(parsed.isRecursionDesired)
        #expect(parsed.payloadLimit == nil)
    }

    @Test func theSizeThatAClientTakesIsRead() throws {
        var bytes = query("a.b")
        bytes[11] = 1
        bytes += [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]
        #expect(try DNSQuery(bytes).payloadLimit == 4096)
    }

    @Test func answersAndShortMessagesGetNoReply() {
        #expect(throws: DNSQuery.Failure.ignored) { try DNSQuery(query("a.b", flags: 0x8180)) }
        #expect(throws: DNSQuery.Failure.ignored) { try DNSQuery([UInt8]([1, 2, 3])) }
        #expect(throws: DNSQuery.Failure.malformed(id: 0x1234)) { try DNSQuery(Array(query("a.b").dropLast(3))) }
    }

    @Test func aPointerThatLeadsForwardOrInACircleIsRefused() {
        let head: [UInt8] = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
        for name in [[0xc0, 12], [0xc0, 14, 0, 0], [1, 97, 0xc0, 14], [0xff, 0xff], [0x40, 0], [63]] as [[UInt8]] {
            #expect(throws: DNSQuery.Failure.malformed(id: 1)) { try DNSQuery(head + name + [0, 1, 0, 1]) }
        }
    }

    @Test func bytesOfAnySortNeverTrap() {
        var random = SystemRandomNumberGenerator()
        let sample = query("catalog.shop.svc.cluster.local")
        for _ in 0..<20_000 {
            var bytes = sample
            for _ in 0..<Int.random(in: 0...8, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: .min ... .max, using: &random)
            }
            let cut = Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &random)))
            if let parsed = try? DNSQuery(cut) { #expect(parsed.name.labels.allSatisfy { $0.count <= 63 }) }
        }
    }

    @Test(arguments: [
        "", "a..b", String(repeating: "a", count: 64), Array(repeating: "abcdefg", count: 40).joined(separator: "."),
    ])
    func namesHaveTheirLimits(_ text: String) {
        #expect((DNSName(text) == nil) == !text.isEmpty)
    }

    @Test func theHostsResolversAreRead() {
        let text =
            "# comment\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a.example b.example\noptions edns0\nnameserver nonsense\n"
        let parsed = HostResolvers.parse(text)
        #expect(parsed.servers.map(\.description) == ["192.0.2.1", "fe80::1"])
        #expect(parsed.searches == ["a.example", "b.example"])
    }
}
