import Foundation

/// The rules that a machine's own firewall needs for the pods: a chain of somebody else's that drops by default would drop
/// their traffic too, because every table has its say.
struct HostFirewall: Sendable {
    let nft: SystemTool

    private struct Listing: Decodable {
        struct Entry: Decodable { var chain: Chain? }
        struct Chain: Decodable {
            var family: String
            var table: String
            var name: String
            var hook: String?
            var policy: String?
        }
        var nftables: [Entry]
    }

    /// Chains at the input and forward hooks whose policy is to drop.
    func droppingChains() async throws -> [(family: String, table: String, chain: String, hook: String)] {
        let text = try await nft.run(["-j", "list", "chains"])
        let listing = try JSONDecoder().decode(Listing.self, from: Data(text.utf8))
        return listing.nftables.compactMap(\.chain).compactMap { chain in
            guard chain.policy == "drop", let hook = chain.hook, hook == "input" || hook == "forward",
                ["ip", "inet"].contains(chain.family)
            else { return nil }
            return (chain.family, chain.table, chain.name, hook)
        }
    }

    /// Lets the bridge's traffic through every such chain; the rules are in the journal before they are made.
    func open(bridge: String, _ journal: PlatformJournal) async throws {
        let comment = "apus \(bridge)"
        for chain in try await droppingChains() {
            try journal.change { record in
                record.firewallRules.insert(
                    .init(family: chain.family, table: chain.table, chain: chain.chain, comment: comment))
            }
            let place = "\(chain.family) \(chain.table) \(chain.chain)"
            var script = "insert rule \(place) iifname \"\(bridge)\" counter accept comment \"\(comment)\"\n"
            if chain.hook == "forward" {
                script += "insert rule \(place) oifname \"\(bridge)\" counter accept comment \"\(comment)\"\n"
            }
            try await nft.run(["-f", "-"], input: script)
        }
    }

    /// Removes the rules with this comment; a chain that is gone took its rules with it.
    func close(_ rule: PlatformRecord.FirewallRule) throws {
        let listing = (try? nft.runAndWait(["-a", "list", "chain", rule.family, rule.table, rule.chain])) ?? ""
        for line in listing.split(separator: "\n") where line.contains("comment \"\(rule.comment)\"") {
            guard let mark = line.range(of: "# handle "),
                let handle = Int(line[mark.upperBound...].trimmingCharacters(in: .whitespaces))
            else { continue }
            try nft.runAndWait(["delete", "rule", rule.family, rule.table, rule.chain, "handle", "\(handle)"])
        }
    }
}
