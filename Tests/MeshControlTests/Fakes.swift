import MeshControl
import MeshCore
import Synchronization

/// Storage in memory with the platform's rule: a write names the version that it replaces.
final class MemoryStorage: AuthorityStorage {
    struct Unreachable: Error {}

    struct State {
        var stored: StoredAuthority?
        var bundles: [String] = []
        var isReachable = true
        var writes = 0
    }

    let state = Mutex(State())

    func load() async throws -> StoredAuthority? {
        try state.withLock { state in
            guard state.isReachable else { throw Unreachable() }
            return state.stored
        }
    }

    func store(_ document: [UInt8], replacing version: String?) async throws -> Bool {
        try state.withLock { state in
            guard state.isReachable else { throw Unreachable() }
            guard state.stored?.version == version else { return false }
            state.writes += 1
            state.stored = StoredAuthority(document: document, version: "\(state.writes)")
            return true
        }
    }

    func publish(bundle: String) async throws {
        state.withLock { $0.bundles.append(bundle) }
    }
}

/// Tokens are their holders' user names, `rejected:<why>` or `away`.
struct FakeReviewer: TokenReviewer {
    struct Away: Error {}

    func review(token: String, audience: String) async throws -> TokenVerdict {
        if token == "away" { throw Away() }
        if token.hasPrefix("rejected:") { return .rejected(reason: String(token.dropFirst(9))) }
        return .authenticated(username: token, pod: nil)
    }
}

/// A wall clock that tests move.
final class TestClock: Sendable {
    private let moment: Mutex<Timestamp>

    init(_ start: Timestamp = Timestamp(unixSeconds: 1_800_000_000)) { moment = Mutex(start) }

    var now: Timestamp { moment.withLock { $0 } }

    func advance(seconds: Int64) { moment.withLock { $0 = $0.advanced(bySeconds: seconds) } }
}
