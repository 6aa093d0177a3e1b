import MeshKubernetes

/// Who makes a request, as authentication found and admission is told.
struct RequestUser: Hashable, Sendable {
    var name: String
    var uid: String = ""
    var groups: [String] = []
    var extra: [String: [String]] = [:]

    /// The platform itself: controllers and the pod runner.
    static let platform = RequestUser(name: "system:apus", groups: ["system:masters", "system:authenticated"])
    static let administrator = RequestUser(name: "admin", groups: ["system:masters", "system:authenticated"])
    static let anonymous = RequestUser(name: "system:anonymous", groups: ["system:unauthenticated"])

    var json: JSONValue {
        var json: JSONValue = ["username": .string(name), "groups": .array(groups.map { .string($0) })]
        if !uid.isEmpty { json["uid"] = .string(uid) }
        if !extra.isEmpty { json["extra"] = .object(extra.mapValues { .array($0.map { .string($0) }) }) }
        return json
    }
}

/// How a write is to be made.
struct WriteOptions: Sendable {
    var user: RequestUser
    /// Everything but the keeping.
    var isDryRun = false

    static let platform = WriteOptions(user: .platform)
}

/// An object after a write, and what admission had to say about it.
struct WriteResult: Sendable {
    var object: KubernetesObject
    var warnings: [String] = []
}

/// The body of a DELETE.
struct DeleteOptions: Sendable {
    enum Propagation: String, Sendable {
        case background = "Background"
        case foreground = "Foreground"
        case orphan = "Orphan"
    }

    /// Nil leaves the object's own.
    var gracePeriodSeconds: Int?
    var uid: String?
    var resourceVersion: String?
    var propagation = Propagation.background
    var isDryRun = false

    /// Finalizers that the garbage collector answers for.
    static let foregroundFinalizer = "foregroundDeletion"
    static let orphanFinalizer = "orphan"
}
