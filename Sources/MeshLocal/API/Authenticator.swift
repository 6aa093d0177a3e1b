import Crypto
import Foundation
import MeshKubernetes

/// Finds out who sends a request: the administrator by the token in the kubeconfig, a pod by its service account's token.
///
/// There is no authorization beyond that: roles are kept but not enforced, so every service account may do everything.
struct Authenticator: Sendable {
    let administratorToken: String
    private let tokens: TokenAuthority

    init(store: ObjectStore, tokens: TokenAuthority) throws {
        let key = try store.setting("administrator-token") { SymmetricKey(size: .bits256).withUnsafeBytes { Data($0) } }
        administratorToken = Array(key).base64URL
        self.tokens = tokens
    }

    /// From the `Authorization` header; without one it is nobody in particular.
    func user(authorization: String?) throws -> RequestUser {
        guard let authorization else { return .anonymous }
        let parts = authorization.split(separator: " ", maxSplits: 1)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { throw Self.unauthorized }
        let token = String(parts[1])
        // The digests are compared, so that the time taken says nothing of the token.
        if SHA256.hash(data: Data(token.utf8)) == SHA256.hash(data: Data(administratorToken.utf8)) {
            return .administrator
        }
        guard let user = try? tokens.verify(token, audiences: [tokens.issuer], now: .now).user else {
            throw Self.unauthorized
        }
        return user
    }

    static let unauthorized = StatusError(code: 401, reason: "Unauthorized", message: "Unauthorized")

    /// Refuses those who have not said who they are, but for what says nothing about the platform.
    static func authorize(_ user: RequestUser, _ target: RequestTarget, path: String, verb: String) throws {
        guard user == .anonymous else { return }
        switch target {
        case .health, .version: return
        default:
            throw StatusError(
                code: 403, reason: "Forbidden",
                message:
                    "forbidden: User \"\(user.name)\" cannot \(verb) path \"\(path)\"; send the token of the kubeconfig"
            )
        }
    }
}
