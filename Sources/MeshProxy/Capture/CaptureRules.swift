/// What `apus-proxy capture` redirects, and the nftables rules that do it.
///
/// The rules are a pure function of these values, so that each case of docs/LIFE_OF_A_REQUEST.md has a golden test.
package struct CaptureRules: Sendable, Equatable {
    /// The table is ours alone, in the pod's own network namespace: replacing or removing it touches nobody else's rules.
    package static let table = "inet apus_capture"

    package var proxyUserID: UInt32
    package var outboundPort: UInt16
    package var inboundPort: UInt16
    /// Ports of the sidecar itself that others may dial without passing through its inbound listener.
    package var ownPorts: [UInt16]
    package var skippedInboundPorts: [UInt16]
    package var skippedOutboundPorts: [UInt16]

    package init(
        proxyUserID: UInt32 = 1337, outboundPort: UInt16 = 15001, inboundPort: UInt16 = 15006,
        ownPorts: [UInt16] = [15020, 15021], skippedInboundPorts: [UInt16] = [], skippedOutboundPorts: [UInt16] = []
    ) {
        self.proxyUserID = proxyUserID
        self.outboundPort = outboundPort
        self.inboundPort = inboundPort
        self.ownPorts = ownPorts
        self.skippedInboundPorts = skippedInboundPorts
        self.skippedOutboundPorts = skippedOutboundPorts
    }

    /// A script for `nft -f -`: one transaction that replaces whatever an earlier run left.
    ///
    /// A connection that the sidecar opens (its user ID) always leaves as it is, also to the pod's own address, which is
    /// how it reaches the application. What the application dials on 127.0.0.0/8 or ::1 stays local; its own pod's address
    /// does not, so that calling oneself through a Service passes the sidecar like any other call. Packets that conntrack
    /// calls INVALID are dropped: passed on un-translated they make the peer reset a healthy connection
    /// (kubernetes/kubernetes#74839).
    package var script: String {
        var lines = [
            "table \(Self.table)",
            "delete table \(Self.table)",
            "table \(Self.table) {",
            "    chain outbound {",
            "        type nat hook output priority -100; policy accept;",
            "        meta skuid \(proxyUserID) return",
            "        ip daddr 127.0.0.0/8 return",
            "        ip6 daddr ::1 return",
        ]
        lines += Self.skipLine(skippedOutboundPorts)
        lines += [
            "        meta l4proto tcp redirect to :\(outboundPort)",
            "    }",
            "    chain inbound {",
            "        type nat hook prerouting priority dstnat; policy accept;",
            "        iifname \"lo\" return",
        ]
        lines += Self.skipLine(ownPorts + skippedInboundPorts)
        lines += [
            "        meta l4proto tcp redirect to :\(inboundPort)",
            "    }",
            "    chain invalid {",
            "        type filter hook input priority filter; policy accept;",
            "        iifname != \"lo\" meta l4proto tcp ct state invalid counter drop",
            "    }",
            "}",
        ]
        return lines.joined(separator: "\n") + "\n"
    }

    /// A script that removes the table whether or not it exists.
    package static let removal = "table \(table)\ndelete table \(table)\n"

    private static func skipLine(_ ports: [UInt16]) -> [String] {
        let list = Set(ports).sorted()
        guard !list.isEmpty else { return [] }
        return ["        tcp dport { \(list.map(String.init).joined(separator: ", ")) } return"]
    }
}

/// Why a list of ports cannot be used.
package struct PortListError: Error, Equatable, CustomStringConvertible {
    package let setting: String
    package let value: String
    package var description: String {
        "\(setting): '\(value)' is not a port: give numbers from 1 to 65535, separated by commas"
    }
}

/// Reads `8080,9090`; spaces are allowed, an empty text is an empty list.
package func parsePortList(_ text: String, setting: String) throws(PortListError) -> [UInt16] {
    var ports: [UInt16] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
        let word = part.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed()
        if word.isEmpty && text.allSatisfy({ $0 == " " }) { return [] }
        guard word.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(String(word)), port > 0 else {
            throw PortListError(setting: setting, value: String(word))
        }
        ports.append(port)
    }
    return ports
}
