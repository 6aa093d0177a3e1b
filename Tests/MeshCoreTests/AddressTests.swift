import MeshAddress
import Testing

@Suite struct AddressTests {
    @Test(arguments: [
        ("10.0.0.1", "10.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("255.255.255.255", "255.255.255.255"), ("::", "::"),
        ("::1", "::1"),
        ("fd00:0:0:0:0:0:0:1", "fd00::1"), ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"), ("1::8", "1::8"), ("fe80::", "fe80::"),
        ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
    ])
    func readsAndWritesTheCanonicalForm(text: String, canonical: String) throws {
        let address = try #require(IPAddress(text))
        #expect(address.description == canonical)
        #expect(IPAddress(address.description) == address)
        #expect(IPAddress(bytes: address.bytes) == address)
    }

    @Test(arguments: [
        "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.-4", "1.2.3.+4", ":", ":::", "1::2::3",
        "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
        "g::1", "12345::", "1:2:3:4:5:6:7::8:9", "::1.2.3", "1.2.3.4::", "fe80::1%eth0", "[::1]", " 1.2.3.4", "::+1",
        "::-1",
    ])
    func refusesWhatIsNoAddress(text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test(arguments: ["10.0.0.1:80", "[fd00::1]:8080", "0.0.0.0:0", "[::]:65535"])
    func socketAddressesKeepTheirForm(text: String) {
        #expect(SocketAddress(text)?.description == text)
    }

    @Test(arguments: [
        "10.0.0.1", "10.0.0.1:", "10.0.0.1:65536", "10.0.0.1:-1", "10.0.0.1:+1", "fd00::1:80", "[10.0.0.1]:80", ":80",
        "[::1]",
    ])
    func refusesWhatIsNoSocketAddress(text: String) {
        #expect(SocketAddress(text) == nil)
    }

    @Test func aMappedAddressEqualsItsIPv4Form() {
        #expect(IPAddress("::ffff:127.0.0.1") == .loopback4)
        #expect(IPAddress("::ffff:127.0.0.1")?.isLoopback == true)
        #expect(IPAddress("::1")?.isV4 == false)
    }
}
