/// An IP address and a port.
package struct SocketAddress: Hashable, Sendable {
    package var ip: IPAddress
    package var port: UInt16

    package init(_ ip: IPAddress, _ port: UInt16) {
        self.ip = ip
        self.port = port
    }
}

extension SocketAddress: LosslessStringConvertible {
    /// From `10.0.0.1:80` or `[fd00::1]:80`; nil for anything else, a missing port included.
    package init?(_ text: some StringProtocol) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[text.index(after: colon)...]
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (48...57).contains($0) }), let port = UInt16(digits) else {
            return nil
        }
        let host = text[..<colon]
        let ip: IPAddress?
        if host.first == "[" && host.last == "]" {
            ip = IPAddress(host.dropFirst().dropLast())
            guard ip?.isV4 == false else { return nil }
        } else {
            guard !host.contains(":") else { return nil }
            ip = IPAddress(host)
        }
        guard let ip else { return nil }
        self.init(ip, port)
    }

    package var description: String {
        ip.isV4 ? "\(ip):\(port)" : "[\(ip)]:\(port)"
    }
}
