internal import MeshAddress
internal import MeshCore

/// A resource that some sidecar is subscribed to, as it is now.
final class TrackedResource {
    /// Never reused, so that what a subscriber was sent can be kept by number.
    let serial: UInt64
    let type: ResourceType
    let name: String
    /// Nil when there is no such resource (any more).
    var encoded: EncodedResource?
    /// Counts its changes.
    var generation: UInt32 = 0
    /// Subscribers that have still to be told of the last change.
    var pending = 0

    init(serial: UInt64, type: ResourceType, name: String, encoded: EncodedResource?) {
        self.serial = serial
        self.type = type
        self.name = name
        self.encoded = encoded
    }
}

/// Resources that are subscribed to together.
final class Topic {
    enum Key: Hashable {
        case destination(SocketAddress)
        /// A service with all its endpoints.
        case service(ObjectName)
        case sidecar(ObjectName)
        case trustBundles
    }

    let key: Key
    /// By name; one that is gone stays until everybody was told.
    var resources: [String: TrackedResource] = [:]
    var subscribers: ContiguousArray<Subscriber> = []
    /// Of a destination: the service that it leads to.
    var service: ObjectName?

    init(_ key: Key) {
        self.key = key
    }
}

/// One change (or several that arrived within the same 2 ms) on its way to those who subscribed.
final class Change {
    /// The first of them, in monotonic nanoseconds.
    var arrivedNanoseconds: UInt64
    var subscribers = 0
    var remaining = 0
    var isSealed = false

    init(arrivedNanoseconds: UInt64) {
        self.arrivedNanoseconds = arrivedNanoseconds
    }
}

/// One sidecar's stream: what it wants, what it was sent, what it acknowledged. Never a queue of messages: a change marks its
/// resource, and the message is written from what the resource is when the stream can take it.
final class Subscriber {
    struct Membership {
        let topic: Topic
        /// In `topic.subscribers`.
        var index: Int
        /// Destinations that lead to it; 1 for a topic of its own.
        var references: Int
    }

    struct Outstanding {
        let nonce: UInt64
        let type: ResourceType
        let sentNanoseconds: Int64
        var changes: [Change]
    }

    /// Responses that may be unacknowledged before the rest waits.
    static let outstandingLimit = 32
    static let refusalLimit = 16
    static let changeLimit = 64

    let id: UInt64
    let pod: ObjectName
    var memberships: [ObjectIdentifier: Membership] = [:]
    var destinations: Set<SocketAddress> = []
    /// Serial → generation.
    var sent: [UInt64: UInt32] = [:]
    /// By type; an entry counts only while its serial is in `dirtySerials`.
    var dirty = [[TrackedResource]](repeating: [], count: ResourceType.allCases.count)
    var dirtySerials: Set<UInt64> = []
    /// By type: what the sidecar held when it connected, name → version.
    var claimed = [[String: String]](repeating: [:], count: ResourceType.allCases.count)
    var claimedCount = 0
    var mayClaim = true
    /// By type: names to say «removed» of.
    var removals = [[String]](repeating: [], count: ResourceType.allCases.count)
    /// Services whose endpoints the sidecar must forget before it takes those that follow.
    var freshServices: [ObjectName] = []
    var outstanding: [Outstanding] = []
    var nextNonce: UInt64 = 1
    var changes: [Change] = []
    var refusals: [ResourceRefusal] = []
    /// In the list of those to be flushed.
    var isScheduled = false

    init(id: UInt64, pod: ObjectName) {
        self.id = id
        self.pod = pod
    }

    var hasWork: Bool {
        !dirtySerials.isEmpty || !freshServices.isEmpty || removals.contains { !$0.isEmpty }
    }

    var isCurrent: Bool { !hasWork && outstanding.isEmpty && refusals.isEmpty }

    func mark(_ resource: TrackedResource) {
        guard dirtySerials.insert(resource.serial).inserted else { return }
        dirty[Int(resource.type.rawValue)].append(resource)
        resource.pending += 1
    }

    func unmark(_ resource: TrackedResource) {
        guard dirtySerials.remove(resource.serial) != nil else { return }
        resource.pending -= 1
    }
}
