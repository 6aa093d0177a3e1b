import Foundation
package import MeshAddress

/// The machine's own name servers (resolv.conf(5)).
package struct HostResolvers: Sendable, Hashable {
    package var path = "/etc/resolv.conf"

    package func read() -> (servers: [IPAddress], searches: [String]) {
        HostResolvers.parse((try? String(contentsOfFile: path, encoding: .utf8)) ?? "")
    }

    /// At most three servers, as the resolver has it. Pure.
    package static func parse(_ text: String) -> (servers: [IPAddress], searches: [String]) {
        var servers: [IPAddress] = []
        var searches: [String] = []
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.split(whereSeparator: \.isWhitespace)
            guard let first = words.first, words.count > 1 else { continue }
            switch first {
            case "nameserver":
                // A link-local address may carry a zone, which names an interface of the host.
                if servers.count < 3, let address = IPAddress(words[1].prefix { $0 != "%" }) { servers.append(address) }
            case "search", "domain": searches = words.dropFirst().prefix(6).map(String.init)
            default: break
            }
        }
        return (servers, searches)
    }
}
