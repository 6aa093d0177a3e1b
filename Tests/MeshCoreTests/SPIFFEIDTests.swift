import MeshCore
import Testing

@Suite struct SPIFFEIDTests {
    @Test func namesAServiceAccount() throws {
        let id = try SPIFFEID(parsing: "spiffe://cluster.local/ns/shop/sa/catalog")
        #expect(id == SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: "catalog"))
        #expect(id.serviceAccount?.namespace == "shop")
        #expect(id.serviceAccount?.name == "catalog")
        #expect(id.description == "spiffe://cluster.local/ns/shop/sa/catalog")
    }

    @Test(arguments: ["spiffe://td", "spiffe://td/a", "spiffe://a_b-c.9/A.b_c-1/x"])
    func acceptsOtherPaths(text: String) throws {
        #expect(try SPIFFEID(parsing: text).serviceAccount == nil)
        #expect(try SPIFFEID(parsing: text).description == text)
    }

    @Test(arguments: [
        "", "http://td/a", "spiffe:/td/a", "spiffe://", "spiffe:///a", "spiffe://TD/a", "spiffe://td/",
        "spiffe://td//a", "spiffe://td/a/",
        "spiffe://td/./a", "spiffe://td/a/..", "spiffe://td:80/a", "spiffe://user@td/a", "spiffe://td/a?b",
        "spiffe://td/a#b", "spiffe://td/ä",
        "spiffe://td/a%20b", "SPIFFE://td/a",
    ])
    func refusesWhatTheStandardForbids(text: String) {
        #expect(throws: SPIFFEID.ParseError.self) { try SPIFFEID(parsing: text) }
    }

    @Test func refusesWhatIsTooLong() {
        #expect(throws: SPIFFEID.ParseError.self) {
            try SPIFFEID(parsing: "spiffe://" + String(repeating: "a", count: 256) + "/b")
        }
        #expect(throws: SPIFFEID.ParseError.self) {
            try SPIFFEID(parsing: "spiffe://td/" + String(repeating: "a", count: 2048))
        }
    }
}
