package import MeshAddress
package import MeshCore

/// Everything that a discovery server knows, without a socket or a clock: topics, subscribers, and what each has still
/// to be told.
///
/// Subscriptions and changes come in, `takeResponse` gives what a stream should be sent next. A topic exists only while
/// somebody subscribes to it, and reads its resources from the source when it begins.
package struct DiscoveryTable {
    package weak var source: (any DiscoverySource)?
    private var topics: [Topic.Key: Topic] = [:]
    /// Ports of the destinations that are subscribed to.
    private var destinationPorts: [IPAddress: Set<UInt16>] = [:]
    private var nextSerial: UInt64 = 1
    private var writer = ProtobufWriter()
    /// Counts changes: `system_version_info`.
    package private(set) var version: UInt64 = 0
    package private(set) var statistics = DiscoveryServer.Statistics()
    /// Subscribers that have something to be sent since the last `takeScheduled`.
    private var scheduled: [Subscriber] = []
    /// Changes that everybody acknowledged since the last `takeConverged`.
    private var converged: [Change] = []

    package init(source: any DiscoverySource) {
        self.source = source
    }

    package mutating func takeScheduled() -> [Subscriber] {
        defer { scheduled.removeAll(keepingCapacity: true) }
        for subscriber in scheduled { subscriber.isScheduled = false }
        return scheduled
    }

    package mutating func takeConverged() -> [Change] {
        defer { converged.removeAll(keepingCapacity: true) }
        return converged
    }

    private mutating func schedule(_ subscriber: Subscriber) {
        guard !subscriber.isScheduled else { return }
        subscriber.isScheduled = true
        scheduled.append(subscriber)
    }

    // MARK: Subscribing

    /// What the sidecar held when it connected, so that it is sent only what differs.
    package mutating func claim(_ type: ResourceType, _ versions: [String: String], _ subscriber: Subscriber) {
        guard subscriber.mayClaim, subscriber.claimedCount + versions.count <= 100_000 else { return }
        subscriber.claimedCount += versions.count
        subscriber.claimed[Int(type.rawValue)].merge(versions) { $1 }
    }

    package mutating func subscribeToTrustBundles(_ subscriber: Subscriber) {
        let topic = topic(.trustBundles)
        guard subscriber.memberships[ObjectIdentifier(topic)] == nil else { return }
        join(subscriber, topic, honouringClaims: true)
        removeClaimed(.trustBundle, subscriber)
    }

    package mutating func subscribeToSelf(_ subscriber: Subscriber) {
        let topic = topic(.sidecar(subscriber.pod))
        guard subscriber.memberships[ObjectIdentifier(topic)] == nil else { return }
        join(subscriber, topic, honouringClaims: true)
    }

    /// False when the subscriber has as many as it may.
    package mutating func subscribe(to name: String, _ subscriber: Subscriber) -> Bool {
        guard let address = SocketAddress(name), address.description == name else {
            // Not the name of a destination, so there is none.
            subscriber.removals[Int(ResourceType.destination.rawValue)].append(name)
            schedule(subscriber)
            return true
        }
        let topic = topic(.destination(address))
        if !subscriber.destinations.insert(address).inserted {
            // Asked for again: it is answered again, for the sidecar may have dropped it.
            for resource in topic.resources.values {
                subscriber.sent[resource.serial] = nil
                subscriber.mark(resource)
            }
            schedule(subscriber)
            return true
        }
        guard subscriber.destinations.count <= DiscoveryLimits.subscriptions else { return false }
        join(subscriber, topic, honouringClaims: true)
        if let service = topic.service { join(subscriber, service: service) }
        return true
    }

    package mutating func unsubscribe(from name: String, _ subscriber: Subscriber) {
        guard let address = SocketAddress(name), subscriber.destinations.remove(address) != nil,
            let topic = topics[.destination(address)]
        else { return }
        if let service = topic.service { leave(subscriber, service: service) }
        leave(subscriber, topic)
    }

    /// After the first request for destinations: what the sidecar held and nothing leads to any more is gone.
    package mutating func endClaims(_ subscriber: Subscriber) {
        guard subscriber.mayClaim else { return }
        subscriber.mayClaim = false
        removeClaimed(.service, subscriber)
        removeClaimed(.endpoint, subscriber)
        for type in ResourceType.allCases { subscriber.claimed[Int(type.rawValue)] = [:] }
    }

    private mutating func removeClaimed(_ type: ResourceType, _ subscriber: Subscriber) {
        let names = subscriber.claimed[Int(type.rawValue)].keys
        guard !names.isEmpty else { return }
        subscriber.removals[Int(type.rawValue)].append(contentsOf: names.sorted())
        subscriber.claimed[Int(type.rawValue)] = [:]
        schedule(subscriber)
    }

    package mutating func close(_ subscriber: Subscriber) {
        for membership in Array(subscriber.memberships.values) {
            subscriber.memberships[ObjectIdentifier(membership.topic)]?.references = 1
            leave(subscriber, membership.topic)
        }
        for entry in subscriber.outstanding { complete(entry.changes) }
        complete(subscriber.changes)
        subscriber.outstanding = []
        subscriber.changes = []
        subscriber.destinations = []
    }

    private mutating func topic(_ key: Topic.Key) -> Topic {
        if let topic = topics[key] { return topic }
        let topic = Topic(key)
        topics[key] = topic
        switch key {
        case .destination(let address):
            destinationPorts[address.ip, default: []].insert(address.port)
            let destination = source?.destination(for: address) ?? .unknown
            topic.service = Topic.service(of: destination)
            track(EncodedResource.make(destination, address), .destination, address.description, topic)
        case .service(let name):
            track(source?.service(name).map { EncodedResource.make($0) }, .service, name.description, topic)
            loadEndpoints(name, topic)
        case .sidecar(let pod):
            track(
                source?.configuration(of: pod).map { EncodedResource.make($0, pod) }, .sidecar, pod.description, topic)
        case .trustBundles:
            for bundle in source?.trustBundles() ?? [] {
                track(EncodedResource.make(bundle), .trustBundle, bundle.trustDomain, topic)
            }
        }
        return topic
    }

    private mutating func loadEndpoints(_ service: ObjectName, _ topic: Topic) {
        for endpoint in source?.endpoints(of: service) ?? [] {
            let encoded = EncodedResource.make(endpoint)
            track(encoded, .endpoint, encoded.name, topic)
        }
    }

    @discardableResult
    private mutating func track(
        _ encoded: EncodedResource?, _ type: ResourceType, _ name: String, _ topic: Topic
    ) -> TrackedResource {
        if let known = topic.resources[name] { return known }
        let resource = TrackedResource(serial: nextSerial, type: type, name: name, encoded: encoded)
        nextSerial += 1
        topic.resources[name] = resource
        return resource
    }

    private mutating func join(_ subscriber: Subscriber, _ topic: Topic, honouringClaims: Bool) {
        subscriber.memberships[ObjectIdentifier(topic)] = Subscriber.Membership(
            topic: topic, index: topic.subscribers.count, references: 1)
        topic.subscribers.append(subscriber)
        for resource in topic.resources.values {
            let claimed = subscriber.claimed[Int(resource.type.rawValue)].removeValue(forKey: resource.name)
            if honouringClaims, let claimed {
                if let encoded = resource.encoded, encoded.version == claimed {
                    subscriber.sent[resource.serial] = resource.generation
                    continue
                }
                // The sidecar holds another version: if the resource is gone, it must be told so.
                subscriber.sent[resource.serial] = resource.generation &- 1
            }
            if resource.encoded != nil { subscriber.withdrawRemoval(resource) }
            subscriber.mark(resource)
        }
        schedule(subscriber)
    }

    private mutating func join(_ subscriber: Subscriber, service name: ObjectName) {
        let topic = topic(.service(name))
        if subscriber.memberships[ObjectIdentifier(topic)] != nil {
            subscriber.memberships[ObjectIdentifier(topic)]?.references += 1
            return
        }
        let isKnown = subscriber.claimed[Int(ResourceType.service.rawValue)][name.description] != nil
        join(subscriber, topic, honouringClaims: isKnown)
        if !isKnown { subscriber.freshServices.append(name) }
    }

    private mutating func leave(_ subscriber: Subscriber, service name: ObjectName) {
        guard let topic = topics[.service(name)] else { return }
        leave(subscriber, topic)
    }

    private mutating func leave(_ subscriber: Subscriber, _ topic: Topic) {
        let key = ObjectIdentifier(topic)
        guard let membership = subscriber.memberships[key] else { return }
        if membership.references > 1 {
            subscriber.memberships[key]?.references -= 1
            return
        }
        subscriber.memberships[key] = nil
        let last = topic.subscribers.count - 1
        if membership.index < last {
            let moved = topic.subscribers[last]
            topic.subscribers[membership.index] = moved
            moved.memberships[key]?.index = membership.index
        }
        topic.subscribers.removeLast()
        for resource in topic.resources.values {
            subscriber.unmark(resource)
            subscriber.sent[resource.serial] = nil
            forgetIfGone(resource, topic)
        }
        if case .service(let name) = topic.key { subscriber.freshServices.removeAll { $0 == name } }
        if topic.subscribers.isEmpty { drop(topic) }
    }

    private mutating func drop(_ topic: Topic) {
        topics[topic.key] = nil
        guard case .destination(let address) = topic.key else { return }
        destinationPorts[address.ip]?.remove(address.port)
        if destinationPorts[address.ip]?.isEmpty == true { destinationPorts[address.ip] = nil }
    }

    private func forgetIfGone(_ resource: TrackedResource, _ topic: Topic) {
        if resource.encoded == nil, resource.pending == 0, resource.type == .endpoint || resource.type == .trustBundle {
            topic.resources[resource.name] = nil
        }
    }

    // MARK: Changes

    package mutating func destinationsChanged(at ip: IPAddress, _ change: Change) -> Bool {
        var isChanged = false
        for port in destinationPorts[ip] ?? [] {
            let address = SocketAddress(ip, port)
            guard let topic = topics[.destination(address)] else { continue }
            let destination = source?.destination(for: address) ?? .unknown
            let service = Topic.service(of: destination)
            let resource = track(nil, .destination, address.description, topic)
            if update(resource, EncodedResource.make(destination, address), topic, change) { isChanged = true }
            guard service != topic.service else { continue }
            let old = topic.service
            topic.service = service
            for subscriber in topic.subscribers {
                if let service { join(subscriber, service: service) }
                if let old { leave(subscriber, service: old) }
            }
        }
        return isChanged
    }

    package mutating func serviceChanged(_ name: ObjectName, _ change: Change) -> Bool {
        guard let topic = topics[.service(name)] else { return false }
        let encoded = source?.service(name).map { EncodedResource.make($0) }
        let resource = track(nil, .service, name.description, topic)
        let wasThere = resource.encoded != nil
        let isChanged = update(resource, encoded, topic, change)
        if encoded == nil {
            for endpoint in Array(topic.resources.values) where endpoint.type == .endpoint {
                update(endpoint, nil, topic, change)
            }
        } else if !wasThere {
            for endpoint in source?.endpoints(of: name) ?? [] { _ = endpointChanged(endpoint, change) }
        }
        return isChanged
    }

    package mutating func endpointChanged(_ endpoint: Endpoint, _ change: Change) -> Bool {
        guard let topic = topics[.service(endpoint.service)] else { return false }
        let encoded = EncodedResource.make(endpoint)
        let resource = track(nil, .endpoint, encoded.name, topic)
        return update(resource, encoded, topic, change)
    }

    package mutating func endpointRemoved(service: ObjectName, address: IPAddress, _ change: Change) -> Bool {
        guard let topic = topics[.service(service)], let resource = topic.resources["\(service)/\(address)"] else {
            return false
        }
        return update(resource, nil, topic, change)
    }

    package mutating func configurationChanged(of pod: ObjectName, _ change: Change) -> Bool {
        guard let topic = topics[.sidecar(pod)] else { return false }
        let resource = track(nil, .sidecar, pod.description, topic)
        return update(resource, source?.configuration(of: pod).map { EncodedResource.make($0, pod) }, topic, change)
    }

    package mutating func trustBundlesChanged(_ change: Change) -> Bool {
        guard let topic = topics[.trustBundles] else { return false }
        var isChanged = false
        let bundles = source?.trustBundles() ?? []
        let domains = Set(bundles.map(\.trustDomain))
        for resource in Array(topic.resources.values) where !domains.contains(resource.name) {
            if update(resource, nil, topic, change) { isChanged = true }
        }
        for bundle in bundles {
            let resource = track(nil, .trustBundle, bundle.trustDomain, topic)
            if update(resource, EncodedResource.make(bundle), topic, change) { isChanged = true }
        }
        return isChanged
    }

    @discardableResult
    private mutating func update(
        _ resource: TrackedResource, _ encoded: EncodedResource?, _ topic: Topic, _ change: Change
    ) -> Bool {
        if let encoded, encoded.field.count > DiscoveryLimits.resourceBytes {
            // The old version stays in force, as if the sidecar had refused the new one.
            statistics.oversizedResources += 1
            return false
        }
        guard resource.encoded?.version != encoded?.version else {
            forgetIfGone(resource, topic)
            return false
        }
        resource.encoded = encoded
        resource.generation &+= 1
        version += 1
        statistics.changes += 1
        for subscriber in topic.subscribers {
            subscriber.mark(resource)
            if encoded != nil { subscriber.withdrawRemoval(resource) }
            attach(change, subscriber)
            schedule(subscriber)
        }
        forgetIfGone(resource, topic)
        return true
    }

    // MARK: Convergence

    private mutating func attach(_ change: Change, _ subscriber: Subscriber) {
        if let last = subscriber.changes.last, last === change { return }
        if subscriber.changes.count >= Subscriber.changeLimit {
            // So far behind that it no longer counts for the oldest: it is told by its own status.
            complete([subscriber.changes.removeFirst()])
        }
        subscriber.changes.append(change)
        change.subscribers += 1
        change.remaining += 1
    }

    private mutating func complete(_ changes: [Change]) {
        for change in changes {
            change.remaining -= 1
            if change.remaining == 0, change.isSealed { converged.append(change) }
        }
    }

    /// Nothing more is added to a change.
    package mutating func seal(_ change: Change) {
        change.isSealed = true
        if change.remaining == 0, change.subscribers > 0 { converged.append(change) }
    }

    // MARK: Responses

    /// The next response for a subscriber, written into a buffer that is valid until the next one; nil when it has all,
    /// or too much of it unacknowledged.
    package mutating func withResponse<Result>(
        for subscriber: Subscriber, nowNanoseconds: Int64, _ body: (UnsafeRawBufferPointer) -> Result
    ) -> Result? {
        guard subscriber.outstanding.count < Subscriber.outstandingLimit else {
            if subscriber.hasWork { statistics.waitsForAcknowledgement += 1 }
            return nil
        }
        for type in ResourceType.allCases where write(type, subscriber) {
            var changes: [Change] = []
            if !subscriber.hasWork { swap(&changes, &subscriber.changes) }
            subscriber.outstanding.append(
                Subscriber.Outstanding(
                    nonce: subscriber.nextNonce, type: type, sentNanoseconds: nowNanoseconds, changes: changes))
            subscriber.nextNonce += 1
            statistics.responses += 1
            return writer.output.withUnsafeBytes(body)
        }
        if !subscriber.changes.isEmpty {
            // All that was marked turned out to be known to it.
            let changes = subscriber.changes
            subscriber.changes = []
            if subscriber.outstanding.isEmpty {
                complete(changes)
            } else {
                subscriber.outstanding[subscriber.outstanding.count - 1].changes += changes
            }
        }
        return nil
    }

    private mutating func write(_ type: ResourceType, _ subscriber: Subscriber) -> Bool {
        let index = Int(type.rawValue)
        let hasFresh = type == .endpoint && !subscriber.freshServices.isEmpty
        guard !subscriber.dirty[index].isEmpty || !subscriber.removals[index].isEmpty || hasFresh else { return false }
        writer.removeAll()
        writer.string(1, String(version))
        writer.string(4, type.typeURL)
        writer.string(5, String(subscriber.nextNonce))
        let emptyLength = writer.output.count
        if hasFresh {
            for service in subscriber.freshServices { writer.string(6, "\(service)/*") }
            subscriber.freshServices = []
        }
        var removalCount = 0
        for name in subscriber.removals[index] where writer.output.count < DiscoveryLimits.responseBytes {
            writer.string(6, name)
            removalCount += 1
        }
        subscriber.removals[index].removeFirst(removalCount)
        var taken = 0
        for resource in subscriber.dirty[index] {
            if writer.output.count >= DiscoveryLimits.responseBytes { break }
            taken += 1
            guard subscriber.dirtySerials.contains(resource.serial) else { continue }
            subscriber.unmark(resource)
            write(resource, subscriber)
        }
        if taken == subscriber.dirty[index].count {
            subscriber.dirty[index].removeAll(keepingCapacity: taken <= 64)
        } else {
            subscriber.dirty[index].removeFirst(taken)
        }
        return writer.output.count > emptyLength
    }

    private mutating func write(_ resource: TrackedResource, _ subscriber: Subscriber) {
        let held = subscriber.sent[resource.serial]
        if let encoded = resource.encoded {
            guard held != resource.generation else { return }
            subscriber.sent[resource.serial] = resource.generation
            subscriber.refusals.removeAll { $0.name == resource.name && $0.type == resource.type.name }
            writer.field(encoded.field)
            statistics.resourcesSent += 1
        } else {
            if held != nil {
                subscriber.sent[resource.serial] = nil
                writer.string(6, resource.name)
                statistics.removalsSent += 1
            }
            if resource.pending == 0, let topic = topics[DiscoveryTable.topicKey(resource)] {
                forgetIfGone(resource, topic)
            }
        }
    }

    private static func topicKey(_ resource: TrackedResource) -> Topic.Key {
        guard resource.type == .endpoint, let slash = resource.name.lastIndex(of: "/"),
            let service = ObjectName(resource.name[..<slash])
        else { return .trustBundles }
        return .service(service)
    }

    // MARK: Acknowledgements

    /// Of the response with this nonce; unknown ones are ignored.
    package mutating func acknowledged(_ nonce: String, refusals: [ResourceRefusal]?, _ subscriber: Subscriber) {
        guard let number = UInt64(nonce), let index = subscriber.outstanding.firstIndex(where: { $0.nonce == number })
        else {
            statistics.strayAcknowledgements += 1
            return
        }
        let entry = subscriber.outstanding.remove(at: index)
        statistics.acknowledgements += 1
        if let refusals {
            statistics.refusals += 1
            subscriber.refusals.append(contentsOf: refusals)
            let excess = subscriber.refusals.count - Subscriber.refusalLimit
            if excess > 0 { subscriber.refusals.removeFirst(excess) }
        } else {
            subscriber.refusals.removeAll { $0.name.isEmpty && $0.type == entry.type.name }
        }
        complete(entry.changes)
        if subscriber.hasWork { schedule(subscriber) }
    }
}
