import MeshAddress
import MeshCore
import MeshTelemetry

/// One finished request. Recording consumes it, so that it is counted once.
struct RequestRecord: ~Copyable {
    let direction: HTTPRelay.Direction
    let target: RouteTarget
    let upstream: Upstream?
    let caller: Caller
    var applicationProtocol = ApplicationProtocol.http1
    /// What the client was answered; 0 when it was not.
    let status: Int
    var grpcStatus: UInt8?
    let error: ProxyError?
    let requestBytes: UInt64
    let responseBytes: UInt64
    let tries: Int
    let durationNanoseconds: Int64
    let subject: RequestSubject?

    consuming func record(on loop: ProxyLoop) {
        let response = error.map { ErrorResponse($0) }
        let edge = Edge.find(direction, target, upstream, caller, applicationProtocol, loop)
        // A status of 500 and more may be an answer of the sidecar that stands before the server.
        if error == nil, (1..<500).contains(status) { target.prove(LearnedProtocol(applicationProtocol)) }
        edge.record(
            ResponseKey(status: UInt16(truncatingIfNeeded: status), grpcStatus: grpcStatus, reason: response?.reason),
            durationNanoseconds: durationNanoseconds, requestBytes: requestBytes, responseBytes: responseBytes)
        if tries > 1 {
            var counts = StreamCounts()
            counts.retries = UInt64(tries - 1)
            edge.add(counts)
        }
        guard loop.accessLog != nil, let subject else { return }
        var entry = Edge.entry(edge.labels, direction, upstream, durationNanoseconds)
        entry.method = subject.method
        entry.authority = subject.authority
        entry.path = subject.path
        entry.userAgent = subject.userAgent
        entry.requestID = subject.requestID
        entry.trace = subject.trace
        entry.status = status
        entry.grpcStatus = grpcStatus
        entry.reason = response?.reason
        entry.detail = response?.detail ?? ""
        entry.requestBytes = requestBytes
        entry.responseBytes = responseBytes
        entry.tries = tries
        loop.accessLog?.append(entry)
    }
}

/// What happened to a connection that is relayed as bytes.
struct ByteRecord: ~Copyable {
    enum Kind {
        case opened, progress, closed, failed
    }

    let direction: HTTPRelay.Direction
    let target: RouteTarget
    let upstream: Upstream?
    let caller: Caller
    let kind: Kind
    /// From the client and to it, since the last record of this connection.
    let sent: UInt64
    let received: UInt64
    /// The same since the connection began.
    let totalSent: UInt64
    let totalReceived: UInt64
    let error: ProxyError?
    let durationNanoseconds: Int64
    let applicationProtocol: ApplicationProtocol
    /// Of the application's own TLS.
    let serverName: TLSServerName?

    consuming func record(on loop: ProxyLoop) {
        var counts = StreamCounts()
        counts.receivedBytes = sent
        counts.sentBytes = received
        switch kind {
        case .opened: counts.connectionsOpened = 1
        case .progress: break
        case .closed: counts.connectionsClosed = 1
        case .failed: counts.connectionsFailed = 1
        }
        if kind == .progress, sent == 0, received == 0 { return }
        let edge = Edge.find(direction, target, upstream, caller, applicationProtocol, loop)
        edge.add(counts)
        if let serverName { loop.metrics.serverNames.add(serverName, reporter: edge.labels.reporter, counts) }
        guard loop.accessLog != nil, kind == .closed || kind == .failed else { return }
        let response = error.map { ErrorResponse($0) }
        var entry = Edge.entry(edge.labels, direction, upstream, durationNanoseconds)
        entry.reason = response?.reason
        entry.detail = response?.detail ?? ""
        entry.serverName = serverName
        entry.requestBytes = totalSent
        entry.responseBytes = totalReceived
        loop.accessLog?.append(entry)
    }
}

/// The two ends of what is recorded.
private enum Edge {
    /// The cell of an edge, remembered where it is found again: with the endpoint on the way out, with the caller on the way in.
    @inline(__always)
    static func find(
        _ direction: HTTPRelay.Direction, _ target: RouteTarget, _ upstream: Upstream?, _ caller: Caller,
        _ applicationProtocol: ApplicationProtocol, _ loop: ProxyLoop
    ) -> EdgeMetrics {
        switch direction {
        case .inbound:
            return caller.edge.find(loop, target, applicationProtocol) {
                labels(direction, target, upstream, caller, applicationProtocol, loop)
            }
        case .outbound:
            if let upstream {
                return upstream.edge.find(loop, target, applicationProtocol) {
                    labels(direction, target, upstream, caller, applicationProtocol, loop)
                }
            }
            return target.edge.find(loop, target, applicationProtocol) {
                labels(direction, target, nil, caller, applicationProtocol, loop)
            }
        }
    }

    private static func labels(
        _ direction: HTTPRelay.Direction, _ target: RouteTarget, _ upstream: Upstream?, _ caller: Caller,
        _ applicationProtocol: ApplicationProtocol, _ loop: ProxyLoop
    ) -> EdgeLabels {
        switch direction {
        case .outbound:
            return EdgeLabels(
                reporter: .source, source: caller.labels, destination: destination(upstream), service: target.service,
                port: target.port, applicationProtocol: applicationProtocol,
                security: upstream?.isMeshed == true ? .mutualTLS : .none)
        case .inbound:
            return EdgeLabels(
                reporter: .destination, source: caller.labels, destination: loop.ownCaller.labels,
                service: caller.service ?? target.service, port: target.port, applicationProtocol: applicationProtocol,
                security: caller.labels.identity == nil ? .none : .mutualTLS)
        }
    }

    private static func destination(_ upstream: Upstream?) -> EdgePeerLabels {
        guard let upstream else { return EdgePeerLabels() }
        guard let workload = upstream.workload else { return EdgePeerLabels(address: upstream.address.ip) }
        var labels = EdgePeerLabels(workload)
        labels.address = upstream.address.ip
        // Without TLS nothing was proved.
        if !upstream.isMeshed { labels.identity = nil }
        return labels
    }

    static func entry(
        _ labels: EdgeLabels, _ direction: HTTPRelay.Direction, _ upstream: Upstream?, _ durationNanoseconds: Int64
    ) -> AccessLogEntry {
        var entry = AccessLogEntry(
            unixNanoseconds: AccessLog.unixNanoseconds(), direction: direction == .outbound ? .outbound : .inbound,
            applicationProtocol: labels.applicationProtocol)
        entry.durationNanoseconds = durationNanoseconds
        entry.sourceWorkload = labels.source.workload
        entry.sourceIdentity = labels.source.identity
        entry.service = labels.service
        entry.destinationPod = labels.destination.pod
        entry.destinationIdentity = labels.destination.identity
        entry.destinationAddress = upstream?.address
        entry.isSecured = labels.security == .mutualTLS
        return entry
    }
}
