package import MeshAddress

/// An IPv4 network in CIDR notation: `10.97.0.0/16`.
package struct IPv4Subnet: Hashable, Sendable, LosslessStringConvertible {
    package let network: UInt32
    package let prefixLength: Int

    /// From CIDR notation; nil for anything else, for host bits that are set, and for networks with less than four addresses.
    package init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let address = IPAddress(parts[0])?.v4, let length = Int(parts[1]),
            (8...30).contains(length)
        else { return nil }
        network = address
        prefixLength = length
        guard address & ~mask == 0 else { return nil }
    }

    package var mask: UInt32 { ~UInt32(0) << UInt32(32 - prefixLength) }
    package var addressCount: UInt32 { 1 << UInt32(32 - prefixLength) }
    /// The first host address: the bridge's, which is the gateway, the node and the DNS server of the pods.
    package var gateway: IPAddress { IPAddress(v4: network + 1) }

    package func contains(_ address: IPAddress) -> Bool {
        guard let value = address.v4 else { return false }
        return value & mask == network
    }

    package func overlaps(_ other: IPv4Subnet) -> Bool {
        let common = mask & other.mask
        return network & common == other.network & common
    }

    package var description: String { "\(IPAddress(v4: network))/\(prefixLength)" }
}

/// Which pod addresses are taken. The next address is the one after the last given, so that an address rests as long as
/// possible before somebody else gets it: a peer that still knows it fails instead of reaching a stranger.
package struct AddressPool {
    package let subnet: IPv4Subnet
    private var taken: Set<UInt32> = []
    private var last: UInt32

    package init(_ subnet: IPv4Subnet) {
        self.subnet = subnet
        last = subnet.network + 1
    }

    /// Nil when every address is taken.
    package mutating func take() -> IPAddress? {
        let first = subnet.network + 2
        // The last address is the broadcast address.
        let end = subnet.network + (subnet.addressCount - 2)
        guard first <= end, taken.count <= Int(end - first) else { return nil }
        var candidate = last
        repeat {
            candidate = candidate >= end || candidate < first ? first : candidate + 1
        } while taken.contains(candidate)
        taken.insert(candidate)
        last = candidate
        return IPAddress(v4: candidate)
    }

    package mutating func giveBack(_ address: IPAddress) {
        if let value = address.v4 { taken.remove(value) }
    }
}
