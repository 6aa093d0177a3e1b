package import MeshAddress
package import MeshCore

/// A resource that some sidecar is subscribed to, as it is now.
package final class TrackedResource {
    /// Never reused, so that what a subscriber was sent can be kept by number.
    package let serial: UInt64
    package let type: ResourceType
    package let name: String
    /// Nil when there is no such resource (any more).
    package var encoded: EncodedResource?
    /// Counts its changes.
    package var generation: UInt32 = 0
    /// Subscribers that have still to be told of the last change.
    package var pending = 0

    package init(serial: UInt64, type: ResourceType, name: String, encoded: EncodedResource?) {
        self.serial = serial
        self.type = type
        self.name = name
        self.encoded = encoded
    }
}

/// Resources that are subscribed to together.
package final class Topic {
    package enum Key: Hashable {
        case destination(SocketAddress)
        /// A service with all its endpoints.
        case service(ObjectName)
        case sidecar(ObjectName)
        case trustBundles
    }

    package let key: Key
    /// By name; one that is gone stays until everybody was told.
    package var resources: [String: TrackedResource] = [:]
    package var subscribers: ContiguousArray<Subscriber> = []
    /// Of a destination: the service that it leads to.
    package var service: ObjectName?

    package init(_ key: Key) {
        self.key = key
    }

    static func service(of destination: Destination) -> ObjectName? {
        guard case .service(let name, _) = destination else { return nil }
        return name
    }
}

/// One change (or several that arrived within the same 2 ms) on its way to those who subscribed.
package final class Change {
    /// The first of them, in monotonic nanoseconds.
    package var arrivedNanoseconds: UInt64
    package var subscribers = 0
    package var remaining = 0
    package var isSealed = false

    package init(arrivedNanoseconds: UInt64) {
        self.arrivedNanoseconds = arrivedNanoseconds
    }
}

/// One sidecar's stream: what it wants, what it was sent, what it acknowledged. Never a queue of messages: a change
/// marks its resource, and the message is written from what the resource is when the stream can take it.
package final class Subscriber {
    package struct Membership {
        let topic: Topic
        /// In `topic.subscribers`.
        var index: Int
        /// Destinations that lead to it; 1 for a topic of its own.
        var references: Int
    }

    package struct Outstanding {
        package let nonce: UInt64
        package let type: ResourceType
        package let sentNanoseconds: Int64
        package var changes: [Change]
    }

    /// Responses that may be unacknowledged before the rest waits.
    package static let outstandingLimit = 32
    package static let refusalLimit = 16
    package static let changeLimit = 64

    package let id: UInt64
    package let pod: ObjectName
    package var memberships: [ObjectIdentifier: Membership] = [:]
    package var destinations: Set<SocketAddress> = []
    /// Serial → generation.
    package var sent: [UInt64: UInt32] = [:]
    /// By type; an entry counts only while its serial is in `dirtySerials`.
    package var dirty = [[TrackedResource]](repeating: [], count: ResourceType.allCases.count)
    package var dirtySerials: Set<UInt64> = []
    /// By type: what the sidecar held when it connected, name → version.
    package var claimed = [[String: String]](repeating: [:], count: ResourceType.allCases.count)
    package var claimedCount = 0
    package var mayClaim = true
    /// By type: names to say «removed» of.
    package var removals = [[String]](repeating: [], count: ResourceType.allCases.count)
    /// Services whose endpoints the sidecar must forget before it takes those that follow.
    package var freshServices: [ObjectName] = []
    package var outstanding: [Outstanding] = []
    package var nextNonce: UInt64 = 1
    package var changes: [Change] = []
    package var refusals: [ResourceRefusal] = []
    /// In the list of those to be flushed.
    package var isScheduled = false

    package init(id: UInt64, pod: ObjectName) {
        self.id = id
        self.pod = pod
    }

    package var hasWork: Bool {
        !dirtySerials.isEmpty || !freshServices.isEmpty || removals.contains { !$0.isEmpty }
    }

    package var isCurrent: Bool { !hasWork && outstanding.isEmpty && refusals.isEmpty }

    package func mark(_ resource: TrackedResource) {
        guard dirtySerials.insert(resource.serial).inserted else { return }
        dirty[Int(resource.type.rawValue)].append(resource)
        resource.pending += 1
    }

    /// It came back before its end was told.
    func withdrawRemoval(_ resource: TrackedResource) {
        let index = Int(resource.type.rawValue)
        if !removals[index].isEmpty { removals[index].removeAll { $0 == resource.name } }
    }

    package func unmark(_ resource: TrackedResource) {
        guard dirtySerials.remove(resource.serial) != nil else { return }
        resource.pending -= 1
    }
}
