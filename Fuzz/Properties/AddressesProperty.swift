import MeshAddress
import MeshCore

/// Addresses and identities as text, which settings, certificates and the API bring.
///
/// Properties: what is read is written in one way, and read again as the same; an identity has no character and no segment that the
/// standard forbids, so that no two texts are one identity.
enum AddressesProperty: FuzzProperty {
    static let name = "addresses"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let text = String(decoding: input, as: UTF8.self)
        if let ip = IPAddress(text) {
            try require(IPAddress(ip.description) == ip, "\(text.debugDescription) is \(ip)")
            try require(IPAddress(bytes: ip.bytes) == ip, "\(ip) by its bytes is another")
            try require(text.utf8.allSatisfy { $0 > 32 && $0 < 127 }, "an address of \(text.debugDescription)")
        }
        if let address = SocketAddress(text) {
            try require(SocketAddress(address.description) == address, "\(text.debugDescription) is \(address)")
        }
        let whole = Array(input)
        if let ip = IPAddress(bytes: whole) {
            try require(IPAddress(ip.description) == ip, "\(whole) is \(ip)")
        }
        guard let identity = try? SPIFFEID(parsing: text) else { return }
        try require(identity.description == text, "\(text.debugDescription) is \(identity)")
        let segments = identity.path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        try require(
            text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "%") }
                && !segments.contains { $0.isEmpty || $0 == "." || $0 == ".." },
            "the identity \(text.debugDescription)")
        if let account = identity.serviceAccount {
            let issued = SPIFFEID(
                trustDomain: identity.trustDomain, namespace: account.namespace, serviceAccount: account.name)
            try require(issued == identity, "\(identity) is issued as \(issued)")
        }
    }
}
