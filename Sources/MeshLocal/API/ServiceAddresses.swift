package import MeshAddress
import MeshKubernetes
import Synchronization

/// Hands out the addresses of Services. An address is taken before its Service is kept and given back when the Service is
/// gone or was not kept.
package final class ServiceAddresses: Sendable {
    private struct State {
        var taken: Set<UInt32> = []
        var next: UInt32
    }

    private let first: UInt32
    /// Network and broadcast address are not handed out.
    private let count: UInt32
    private let state: Mutex<State>
    /// The first addresses are for the platform's own Services, so that `kubernetes` never finds its address taken.
    private static let reserved: UInt32 = 10

    /// From an IPv4 subnet of /8 to /28 in CIDR notation.
    package init(subnet: String) throws {
        let parts = subnet.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let base = IPAddress(parts[0])?.v4, let length = UInt32(parts[1]),
            (8...28).contains(length)
        else {
            throw StatusError.badRequest(
                "service subnet '\(subnet)': expected an IPv4 subnet from /8 to /28, such as 10.96.0.0/16")
        }
        let size = UInt32(1) << (32 - length)
        first = base & ~(size - 1)
        count = size
        state = Mutex(State(next: Self.reserved + 1))
    }

    /// The address of the `kubernetes` Service.
    package var platform: IPAddress { IPAddress(v4: first + 1) }

    func contains(_ address: IPAddress) -> Bool {
        guard let value = address.v4 else { return false }
        return value > first && value - first < count - 1
    }

    /// Nil when all are taken.
    package func allocate() -> IPAddress? {
        state.withLock { state in
            let usable = count - 2 - Self.reserved
            for _ in 0..<usable {
                let offset = state.next
                state.next = offset >= count - 2 ? Self.reserved + 1 : offset + 1
                if state.taken.insert(first + offset).inserted { return IPAddress(v4: first + offset) }
            }
            return nil
        }
    }

    /// False when another Service has it, or it is outside the pool.
    func reserve(_ address: IPAddress) -> Bool {
        guard contains(address), let value = address.v4 else { return false }
        return state.withLock { $0.taken.insert(value).inserted }
    }

    package func release(_ address: IPAddress) {
        guard let value = address.v4 else { return }
        state.withLock { _ = $0.taken.remove(value) }
    }
}
