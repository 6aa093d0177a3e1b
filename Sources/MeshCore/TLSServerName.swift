/// The server that a TLS client wants, as its first message says in the clear (SNI, RFC 6066 §3). A claim of the client:
/// it names, and decides nothing.
package enum TLSServerName: Sendable, Hashable {
    /// The client names none: it dials an address, or hides the name.
    case absent
    /// Not a host name.
    case invalid
    /// In lower case.
    case name(String)

    /// The longest host name (RFC 1035 §2.3.4).
    package static let longest = 253

    /// From the bytes on the wire: letters, digits, hyphens, underscores and dots make a name, everything else is invalid.
    package init(_ bytes: some Collection<UInt8>) {
        guard (1...TLSServerName.longest).contains(bytes.count) else {
            self = .invalid
            return
        }
        var lowercased: [UInt8] = []
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"),
                UInt8(ascii: "_"), UInt8(ascii: "."):
                lowercased.append(byte)
            case UInt8(ascii: "A")...UInt8(ascii: "Z"):
                lowercased.append(byte | 0x20)
            default:
                self = .invalid
                return
            }
        }
        self = .name(String(decoding: lowercased, as: UTF8.self))
    }

    /// For labels: what is no name is in parentheses, which no name has.
    package var label: String {
        switch self {
        case .absent: "(none)"
        case .invalid: "(invalid)"
        case .name(let name): name
        }
    }
}
