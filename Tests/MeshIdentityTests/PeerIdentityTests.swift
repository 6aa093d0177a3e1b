import MeshCore
import MeshIdentity
import Testing

@Suite("Who a peer is")
struct PeerIdentityTests {
    static let cart = SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: "cart")
    static let till = SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: "till")
    static let whole = "spiffe://cluster.local/ns/shop/sa/cart"

    @Test("Exactly one SPIFFE ID of an allowed trust domain is accepted")
    func accepted() throws {
        #expect(try PeerIdentity.check(uriSANs: [Self.whole], allowedTrustDomains: ["cluster.local"]) == Self.cart)
        #expect(
            try PeerIdentity.check(uriSANs: [Self.whole], allowedTrustDomains: ["cluster.local"], expected: Self.cart)
                == Self.cart)
    }

    @Test(
        "Anything else is refused for its own reason",
        arguments: [
            ([], nil, "no URI name"), ([whole, whole], nil, "2 URI names"), (["https://shop"], nil, "not a SPIFFE ID"),
            (["spiffe://other/ns/shop/sa/cart"], nil, "not trusted"),
            (["spiffe://cluster.local"], nil, "names a trust domain"),
            ([whole], till, "expected spiffe://cluster.local/ns/shop/sa/till"),
            (["spiffe://cluster.local/ns/shop/sa/cart/"], nil, "empty"),
        ] as [([String], SPIFFEID?, String)])
    func refused(names: [String], expected: SPIFFEID?, reason: String) {
        do throws(PeerIdentity.Failure) {
            _ = try PeerIdentity.check(uriSANs: names, allowedTrustDomains: ["cluster.local"], expected: expected)
            Issue.record("accepted")
        } catch {
            #expect(error.description.contains(reason))
        }
    }
}
