import Crypto
import Foundation
import MeshKubernetes

/// Signs and verifies the tokens of service accounts: JSON Web Tokens (RFC 7519) with ES256, bound to the service account's
/// and the pod's uid, so that a token ends with either.
final class TokenAuthority: Sendable {
    private let key: P256.Signing.PrivateKey
    private let store: ObjectStore
    /// Both the issuer and the audience of tokens for the API itself.
    let issuer: String
    static let secondsRange = 600...86_400

    init(store: ObjectStore, clusterDomain: String) throws {
        self.store = store
        issuer = "https://kubernetes.default.svc.\(clusterDomain)"
        key = try P256.Signing.PrivateKey(
            rawRepresentation: store.setting("token-key") { P256.Signing.PrivateKey().rawRepresentation })
    }

    struct Request: Sendable {
        var namespace: String
        var serviceAccount: String
        var serviceAccountUID: String
        var audiences: [String]
        var seconds: Int
        var pod: (name: String, uid: String)?
    }

    func sign(_ request: Request, now: KubernetesTime) throws -> (token: String, expires: KubernetesTime) {
        let expires = KubernetesTime(seconds: now.seconds + Int64(request.seconds))
        var bound: JSONValue = [
            "namespace": .string(request.namespace),
            "serviceaccount": ["name": .string(request.serviceAccount), "uid": .string(request.serviceAccountUID)],
        ]
        if let pod = request.pod { bound["pod"] = ["name": .string(pod.name), "uid": .string(pod.uid)] }
        let claims: JSONValue = [
            "iss": .string(issuer),
            "sub": .string("system:serviceaccount:\(request.namespace):\(request.serviceAccount)"),
            "aud": .array(request.audiences.map { .string($0) }), "iat": .int(now.seconds), "nbf": .int(now.seconds),
            "exp": .int(expires.seconds), "jti": .string(UUID().uuidString.lowercased()), "kubernetes.io": bound,
        ]
        let header: JSONValue = ["alg": "ES256", "typ": "JWT"]
        let signed = Array(header.data()).base64URL + "." + Array(claims.data()).base64URL
        let signature = try key.signature(for: Data(signed.utf8))
        return (signed + "." + Array(signature.rawRepresentation).base64URL, expires)
    }

    /// Why a token is not accepted, for the one who presented it.
    struct Refusal: Error, CustomStringConvertible {
        var description: String
    }

    /// Whose token it is and for which of the audiences. Signature, times, service account and pod are all checked.
    func verify(
        _ token: String, audiences: [String], now: KubernetesTime
    ) throws(Refusal) -> (user: RequestUser, audiences: [String]) {
        let parts = token.split(separator: ".", omittingEmptySubsequences: false)
        guard token.utf8.count <= 16_384, parts.count == 3, let signature = [UInt8](base64URL: parts[2]),
            let payload = [UInt8](base64URL: parts[1]), let header = [UInt8](base64URL: parts[0]),
            let algorithm = try? JSONValue(parsing: Data(header))["alg"], algorithm == "ES256",
            let parsed = try? P256.Signing.ECDSASignature(rawRepresentation: Data(signature)),
            key.publicKey.isValidSignature(parsed, for: Data("\(parts[0]).\(parts[1])".utf8)),
            let claims = try? JSONValue(parsing: Data(payload))
        else { throw Refusal(description: "the token was not signed by this platform") }
        guard let expires = claims["exp"]?.int, now.seconds < expires else {
            throw Refusal(description: "the token has expired")
        }
        let intended = claims["aud"]?.array?.compactMap(\.string) ?? []
        let matching = audiences.filter(intended.contains)
        guard !matching.isEmpty else {
            throw Refusal(description: "the token is for \(intended), not for \(audiences)")
        }
        let bound = claims["kubernetes.io"]
        guard let namespace = bound?["namespace"]?.string, let account = bound?[path: "serviceaccount", "name"]?.string,
            let uid = bound?[path: "serviceaccount", "uid"]?.string
        else { throw Refusal(description: "the token names no service account") }
        guard stored(.serviceAccount, namespace, account)?.uid == uid else {
            throw Refusal(description: "service account \(namespace)/\(account) no longer exists")
        }
        var user = RequestUser(
            name: "system:serviceaccount:\(namespace):\(account)", uid: uid,
            groups: ["system:serviceaccounts", "system:serviceaccounts:\(namespace)", "system:authenticated"])
        if let id = claims["jti"]?.string { user.extra["authentication.kubernetes.io/credential-id"] = ["JTI=\(id)"] }
        if let pod = bound?["pod"] {
            guard let name = pod["name"]?.string, let podUID = pod["uid"]?.string,
                stored(.pod, namespace, name)?.uid == podUID
            else {
                throw Refusal(description: "the pod that the token is bound to no longer exists")
            }
            user.extra["authentication.kubernetes.io/pod-name"] = [name]
            user.extra["authentication.kubernetes.io/pod-uid"] = [podUID]
            if let node = stored(.pod, namespace, name)?.json[path: "spec", "nodeName"]?.string {
                user.extra["authentication.kubernetes.io/node-name"] = [node]
            }
        }
        return (user, matching)
    }

    private func stored(_ kind: ResourceKind, _ namespace: String, _ name: String) -> KubernetesObject? {
        store.object(ObjectKey(kind, namespace: namespace, name: name))?.object
    }
}
