internal import MeshAddress
package import MeshCore
package import MeshXDS

extension EdgeKey {
    /// The reporter's own end is read from the catalog, never from what it says of itself; the other end is what it
    /// saw.
    package init(_ delta: EdgeDelta, pod: ObjectName, reporter: Workload?) {
        let own = (namespace: pod.namespace, owner: reporter?.owner ?? pod.name)
        let isSource = delta.reporter == .source
        let destination: Destination
        if let service = delta.destinationService ?? (isSource ? nil : reporter?.service) {
            destination = .service(
                ObjectName(namespace: Self.cut(service.namespace), name: Self.cut(service.name)))
        } else if isSource {
            let (namespace, name) = Self.party(delta.destination)
            destination = .workload(namespace: namespace, name: name)
        } else {
            destination = .workload(namespace: own.namespace, name: own.owner)
        }
        let (namespace, owner) = isSource ? own : Self.party(delta.source)
        self.init(
            isReportedBySource: isSource, sourceNamespace: namespace, sourceOwner: owner,
            sourceIdentity: isSource ? reporter?.identity : delta.source.identity, destination: destination,
            applicationProtocol: delta.applicationProtocol)
    }

    private static func party(_ peer: EdgePeer) -> (namespace: String, name: String) {
        let claimed = peer.pod?.namespace ?? peer.identity?.serviceAccount?.namespace ?? ""
        let namespace = peer.namespace.isEmpty ? claimed : peer.namespace
        if !peer.owner.isEmpty { return (cut(namespace), cut(peer.owner)) }
        if let pod = peer.pod { return (cut(namespace), cut(pod.name)) }
        if let account = peer.identity?.serviceAccount { return (cut(namespace), cut(account.name)) }
        return ("", peer.address?.description ?? "unknown")
    }

    /// No name of the platform is longer than 253 bytes; a peer's claim that is, is cut.
    private static func cut(_ name: String) -> String {
        name.utf8.count <= 253 ? name : String(decoding: name.utf8.prefix(253), as: UTF8.self)
    }
}

extension TrafficEdge {
    mutating func take(_ delta: EdgeDelta, pod: ObjectName, span: ReportSpan, now: HealthClock) {
        observedSinceSecond = min(observedSinceSecond, span.firstSecond)
        lastSeenSecond = now.monotonicSeconds
        lastSeenAt = now.wall
        if let identity = delta.destination.identity { destinationIdentity = identity }
        var requests: UInt64 = 0
        var failures: UInt64 = 0
        for count in delta.requests {
            requests &+= count.count
            if count.isFailure { failures &+= count.count }
        }
        if requests > 0 { window.add(requests: requests, failures: failures, over: span) }
        let opened = delta.connectionsOpened
        let open =
            openConnections[pod, default: 0] &+ Int64(clamping: opened) &- Int64(clamping: delta.connectionsClosed)
        openConnections[pod] = open > 0 ? open : nil
        window.withSlot(at: now.monotonicSeconds) { slot in
            for bucket in delta.latency.buckets.prefix(LatencyBuckets.bucketLimit) {
                slot.latency.add(index: bucket.index, count: bucket.count)
            }
            for count in delta.requests { slot.count(response: count.kind, span.recent(count.count)) }
            slot.retries &+= span.recent(delta.retries)
            slot.connectionsOpened &+= span.recent(opened)
            slot.connectionsFailed &+= span.recent(delta.connectionsFailed)
            slot.sent &+= span.recent(delta.bytesSent)
            slot.received &+= span.recent(delta.bytesReceived)
            let weight = max(1, requests &+ opened)
            if delta.isSecured {
                slot.secured &+= weight
            } else if delta.hasReachedSomebody {
                slot.plaintext &+= weight
            }
        }
        if delta.isSecured || delta.hasReachedSomebody { isSecured = delta.isSecured }
    }

    var sourceParty: TrafficParty {
        TrafficParty(
            namespace: key.sourceNamespace, name: key.sourceOwner, identity: key.sourceIdentity?.description ?? "")
    }

    var destinationParty: TrafficParty {
        TrafficParty(
            namespace: key.destination.namespace, name: key.destination.name,
            identity: destinationIdentity?.description ?? "")
    }
}

extension EdgeDelta {
    /// Not so for what the caller's sidecar answered itself because there was no endpoint: nothing was sent to anybody, neither encrypted nor in
    /// plaintext.
    fileprivate var hasReachedSomebody: Bool {
        reporter == .destination || destination.pod != nil || destination.address != nil
    }
}

extension RequestCount {
    /// Whether the server's side failed: 5xx, no answer at all, or a gRPC status that says so (UNKNOWN,
    /// DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS). A caller that went away before the answer is no failure of
    /// the server.
    package var isFailure: Bool {
        if reason == "client_gone" { return false }
        if let grpcStatus, [2, 4, 13, 14, 15].contains(grpcStatus) { return true }
        return status >= 500 || status == 0
    }

    /// `2xx`, `grpc-14`, or the reason of an answer that the sidecar made.
    var kind: String {
        if !reason.isEmpty { return reason.utf8.count <= 64 ? reason : "other" }
        if let grpcStatus { return "grpc-\(grpcStatus)" }
        return (100..<600).contains(status) ? "\(status / 100)xx" : "none"
    }
}

extension TrafficWindow.Totals {
    var isEmpty: Bool {
        requests == 0 && connectionsOpened == 0 && connectionsFailed == 0 && sent == 0 && received == 0
    }
}

extension StatRow {
    static func isBusier(_ left: StatRow, _ right: StatRow) -> Bool {
        if left.figures.requestsPerSecond != right.figures.requestsPerSecond {
            return left.figures.requestsPerSecond > right.figures.requestsPerSecond
        }
        return TrafficParty.arePairsOrdered((left.source, left.destination), (right.source, right.destination))
    }
}

extension EdgeRow {
    static func isBefore(_ left: EdgeRow, _ right: EdgeRow) -> Bool {
        TrafficParty.arePairsOrdered((left.source, left.destination), (right.source, right.destination))
    }
}

extension TrafficParty {
    static func arePairsOrdered(_ left: (Self, Self), _ right: (Self, Self)) -> Bool {
        if left.0 != right.0 { return left.0.isBefore(right.0) }
        return left.1.isBefore(right.1)
    }

    private func isBefore(_ other: Self) -> Bool {
        (namespace, name, identity) < (other.namespace, other.name, other.identity)
    }
}
