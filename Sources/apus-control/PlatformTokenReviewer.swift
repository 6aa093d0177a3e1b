import MeshControl
import MeshCore
import MeshKubernetes

/// Asks the platform's TokenReview who holds a token.
struct PlatformTokenReviewer: TokenReviewer {
    let api: any KubernetesAPI

    func review(token: String, audience: String) async throws -> TokenVerdict {
        let review = KubernetesObject([
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": ["token": .string(token), "audiences": [.string(audience)]],
        ])
        let status = try await api.create(.tokenReview, review).json["status"]
        guard status?["authenticated"]?.bool == true else {
            return .rejected(reason: status?["error"]?.string ?? "it is not authenticated")
        }
        // An answer that does not name the audience comes from a platform that did not check it.
        guard status?["audiences"]?.array?.contains(.string(audience)) == true else {
            return .rejected(reason: "it is not for the audience '\(audience)'")
        }
        guard let username = status?[path: "user", "username"]?.string else {
            return .rejected(reason: "the platform names no user for it")
        }
        let pod = status?[path: "user", "extra", "authentication.kubernetes.io/pod-name"]?[0]?.string
        let namespace = username.split(separator: ":").dropFirst(2).first.map(String.init)
        return .authenticated(
            username: username, pod: pod.flatMap { name in namespace.map { ObjectName(namespace: $0, name: name) } })
    }
}
