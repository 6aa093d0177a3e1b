import NIOCore
import Synchronization

/// The bearer token of an access, read again from its file once a minute and whenever the server refuses it.
final class TokenCache: Sendable {
    static let maximumAgeNanoseconds: UInt64 = 60_000_000_000

    private struct Cached {
        var token: String
        var readNanoseconds: UInt64
    }

    private let source: ClusterAccess.Token
    private let cached = Mutex<Cached?>(nil)

    init(_ source: ClusterAccess.Token) { self.source = source }

    var canChange: Bool { if case .file = source { true } else { false } }

    func forget() { cached.withLock { $0 = nil } }

    /// Nil when the access has none.
    func token() throws(ClusterAccessError) -> String? {
        switch source {
        case .none: return nil
        case .fixed(let token): return token
        case .file(let path):
            let now = NIODeadline.now().uptimeNanoseconds
            let last = cached.withLock { $0 }
            if let last, now &- last.readNanoseconds < TokenCache.maximumAgeNanoseconds { return last.token }
            do {
                let bytes = try ClusterAccess.read(path, purpose: "the service account's token")
                let token = String(decoding: bytes.filter { $0 > 0x20 && $0 < 0x7f }, as: UTF8.self)
                cached.withLock { $0 = Cached(token: token, readNanoseconds: now) }
                return token
            } catch {
                // While the platform exchanges the file, the token from before is still good.
                if let last { return last.token }
                throw error
            }
        }
    }
}
