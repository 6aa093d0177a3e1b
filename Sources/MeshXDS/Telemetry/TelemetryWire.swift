internal import FoundationEssentials
package import MeshAPI
internal import MeshAddress
package import MeshCore
internal import SwiftProtobuf

/// Telemetry values to and from `proto/apus/v1/telemetry.proto`.
package enum TelemetryWire {
    package static let method = "/apus.v1.Telemetry/Report"

    // MARK: Encoding

    package static func encode(_ report: TelemetryReport) -> Apus_V1_TelemetryReport {
        .with {
            $0.pod = ResourceEncoding.encode(report.pod)
            $0.sidecarVersion = report.sidecarVersion
            $0.certificateNotAfterUnixSeconds = report.certificateNotAfterUnixSeconds
            $0.discoveryVersion = report.discoveryVersion
            $0.intervalMilliseconds = UInt32(clamping: report.intervalMilliseconds)
            $0.edges = report.edges.prefix(TelemetryReport.edgeLimit).map { encode($0) }
            $0.ejections = report.ejections.prefix(TelemetryReport.ejectionLimit).map { ejection in
                .with {
                    $0.service = ResourceEncoding.encode(ejection.service)
                    $0.address = ResourceEncoding.data(ejection.address)
                    if let pod = ejection.pod { $0.pod = ResourceEncoding.encode(pod) }
                    $0.sinceUnixMilliseconds = ejection.sinceUnixMilliseconds
                    $0.why = ejection.why
                }
            }
            $0.refusedResources = report.refusals.prefix(TelemetryReport.refusalLimit).map { encode($0) }
            $0.learnedPorts = Array(
                ResourceEncoding.encode(report.learnedPorts).prefix(TelemetryReport.learnedPortLimit))
        }
    }

    package static func encode(_ refusal: ResourceRefusal) -> Apus_V1_RefusedResource {
        .with {
            $0.type = refusal.type
            $0.name = refusal.name
            $0.version = refusal.version
            $0.reason = refusal.reason
        }
    }

    private static func encode(_ edge: EdgeDelta) -> Apus_V1_EdgeDelta {
        .with {
            $0.reporter =
                switch edge.reporter {
                case .source: .source
                case .destination: .destination
                }
            if edge.source != EdgePeer() { $0.source = encode(edge.source) }
            if edge.destination != EdgePeer() { $0.destination = encode(edge.destination) }
            if let service = edge.destinationService { $0.destinationService = ResourceEncoding.encode(service) }
            $0.destinationPort = UInt32(edge.destinationPort)
            $0.protocol = ResourceEncoding.encode(edge.applicationProtocol)
            $0.isSecured = edge.isSecured
            $0.requests = edge.requests.map { request in
                .with {
                    $0.status = UInt32(request.status)
                    if let status = request.grpcStatus { $0.grpcStatus = UInt32(status) }
                    $0.reason = request.reason
                    $0.count = request.count
                }
            }
            if !edge.latency.buckets.isEmpty {
                $0.latency = .with {
                    $0.buckets = edge.latency.buckets.map { bucket in
                        .with {
                            $0.index = bucket.index
                            $0.count = bucket.count
                        }
                    }
                    $0.sum = edge.latency.sum
                }
            }
            $0.retries = edge.retries
            $0.connectionsOpened = edge.connectionsOpened
            $0.connectionsClosed = edge.connectionsClosed
            $0.connectionsFailed = edge.connectionsFailed
            $0.bytesSent = edge.bytesSent
            $0.bytesReceived = edge.bytesReceived
        }
    }

    private static func encode(_ peer: EdgePeer) -> Apus_V1_Peer {
        .with {
            if let pod = peer.pod { $0.pod = ResourceEncoding.encode(pod) }
            $0.namespace = peer.namespace
            $0.owner = peer.owner
            $0.app = peer.app
            $0.version = peer.version
            $0.identity = peer.identity?.description ?? ""
            if let address = peer.address { $0.address = ResourceEncoding.data(address) }
        }
    }

    // MARK: Decoding

    /// What exceeds a limit is cut off; `dropped` says how many entries.
    package struct Decoded {
        package var report: TelemetryReport
        package var dropped: Int
    }

    /// Longer texts are cut: they become labels.
    private static let textLimit = 253

    /// - Parameter pod: whose stream it is; a message may repeat it or leave it out.
    package static func decode(_ message: Apus_V1_TelemetryReport, pod: ObjectName) throws(InvalidResource) -> Decoded {
        if message.hasPod {
            let named = try ResourceDecoding.decode(message.pod, "pod")
            guard named == pod else { throw InvalidResource("pod '\(named)' is not the stream's pod '\(pod)'") }
        }
        var dropped = max(0, message.edges.count - TelemetryReport.edgeLimit)
        dropped += max(0, message.ejections.count - TelemetryReport.ejectionLimit)
        dropped += max(0, message.refusedResources.count - TelemetryReport.refusalLimit)
        var report = TelemetryReport(
            pod: pod, sidecarVersion: text(message.sidecarVersion),
            certificateNotAfterUnixSeconds: message.certificateNotAfterUnixSeconds,
            discoveryVersion: text(message.discoveryVersion), intervalMilliseconds: Int(message.intervalMilliseconds))
        for edge in message.edges.prefix(TelemetryReport.edgeLimit) { report.edges.append(try decode(edge)) }
        for ejection in message.ejections.prefix(TelemetryReport.ejectionLimit) {
            report.ejections.append(
                EjectionReport(
                    service: try ResourceDecoding.decode(ejection.service, "ejections.service"),
                    address: try ResourceDecoding.decode(ejection.address, "ejections.address"),
                    pod: ejection.hasPod ? try ResourceDecoding.decode(ejection.pod, "ejections.pod") : nil,
                    sinceUnixMilliseconds: ejection.sinceUnixMilliseconds, why: text(ejection.why)))
        }
        report.refusals = message.refusedResources.prefix(TelemetryReport.refusalLimit).map {
            ResourceRefusal(
                type: text($0.type), name: text($0.name), version: text($0.version), reason: text($0.reason))
        }
        dropped += max(0, message.learnedPorts.count - TelemetryReport.learnedPortLimit)
        report.learnedPorts = try ResourceDecoding.decode(
            message.learnedPorts.prefix(TelemetryReport.learnedPortLimit), "learned_ports")
        return Decoded(report: report, dropped: dropped)
    }

    private static func text(_ value: String) -> String {
        value.utf8.count <= textLimit ? value : String(value.prefix(textLimit / 4))
    }

    private static func decode(_ message: Apus_V1_EdgeDelta) throws(InvalidResource) -> EdgeDelta {
        let reporter: EdgeDelta.Reporter
        switch message.reporter {
        case .source: reporter = .source
        case .destination: reporter = .destination
        case .unspecified, .UNRECOGNIZED:
            throw InvalidResource("edges.reporter \(message.reporter.rawValue) is neither SOURCE nor DESTINATION")
        }
        guard let port = UInt16(exactly: message.destinationPort) else {
            throw InvalidResource("edges.destination_port \(message.destinationPort) is not a port")
        }
        var edge = EdgeDelta(
            reporter: reporter, source: try decode(message.source, "edges.source"),
            destination: try decode(message.destination, "edges.destination"),
            destinationService: message.hasDestinationService
                ? try ResourceDecoding.decode(message.destinationService, "edges.destination_service") : nil,
            destinationPort: port,
            applicationProtocol: try ResourceDecoding.decode(message.protocol, "edges.protocol") ?? .opaque,
            isSecured: message.isSecured, retries: message.retries, connectionsOpened: message.connectionsOpened,
            connectionsClosed: message.connectionsClosed, connectionsFailed: message.connectionsFailed,
            bytesSent: message.bytesSent, bytesReceived: message.bytesReceived)
        for request in message.requests.prefix(1024) {
            guard let status = UInt16(exactly: request.status), status <= 999 else {
                throw InvalidResource("edges.requests.status \(request.status) is not an HTTP status")
            }
            edge.requests.append(
                RequestCount(
                    status: status, grpcStatus: request.hasGrpcStatus ? UInt8(clamping: request.grpcStatus) : nil,
                    reason: text(request.reason), count: request.count))
        }
        let buckets = message.latency.buckets.prefix(LatencyBuckets.bucketLimit).map {
            LatencyBuckets.Bucket(index: $0.index, count: $0.count)
        }
        edge.latency = LatencyBuckets(buckets: buckets, sum: message.latency.sum)
        return edge
    }

    private static func decode(_ message: Apus_V1_Peer, _ field: String) throws(InvalidResource) -> EdgePeer {
        EdgePeer(
            pod: message.hasPod ? try ResourceDecoding.decode(message.pod, "\(field).pod") : nil,
            namespace: text(message.namespace), owner: text(message.owner), app: text(message.app),
            version: text(message.version),
            identity: try ResourceDecoding.identity(message.identity, "\(field).identity"),
            address: message.address.isEmpty ? nil : try ResourceDecoding.decode(message.address, "\(field).address"))
    }
}
