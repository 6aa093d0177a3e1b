/// Istio's metric family, which Apus exports under the same names, labels and bounds.
package enum IstioMetric: String, CaseIterable, Sendable {
    case requests = "istio_requests_total"
    case requestDuration = "istio_request_duration_milliseconds"
    case requestBytes = "istio_request_bytes"
    case responseBytes = "istio_response_bytes"
    case tcpSentBytes = "istio_tcp_sent_bytes_total"
    case tcpReceivedBytes = "istio_tcp_received_bytes_total"
    case tcpConnectionsOpened = "istio_tcp_connections_opened_total"
    case tcpConnectionsClosed = "istio_tcp_connections_closed_total"

    package var name: String { rawValue }

    package var kind: PrometheusText.Kind {
        switch self {
        case .requestDuration, .requestBytes, .responseBytes: .histogram
        default: .counter
        }
    }

    package var help: String {
        switch self {
        case .requests: "Requests handled by this sidecar."
        case .requestDuration: "From a request's first byte to its response's last, in milliseconds."
        case .requestBytes: "Size of request bodies."
        case .responseBytes: "Size of response bodies."
        case .tcpSentBytes: "Bytes sent to the client of a TCP connection."
        case .tcpReceivedBytes: "Bytes received from the client of a TCP connection."
        case .tcpConnectionsOpened: "TCP connections opened."
        case .tcpConnectionsClosed: "TCP connections closed."
        }
    }
}

/// What one loop, or several merged, have counted: a value that any thread may write out.
package struct MetricsSnapshot: Sendable {
    package var edges: [EdgeSnapshot]
    package var overflowed: UInt64
    package var dropped: UInt64
    /// TLS of applications' own, by the name asked for.
    package var serverNames: [ServerNameMetrics.Key: StreamCounts]
    package var serverNamesOverflowed: UInt64

    package init(
        edges: [EdgeSnapshot] = [], overflowed: UInt64 = 0, dropped: UInt64 = 0,
        serverNames: [ServerNameMetrics.Key: StreamCounts] = [:], serverNamesOverflowed: UInt64 = 0
    ) {
        self.edges = edges
        self.overflowed = overflowed
        self.dropped = dropped
        self.serverNames = serverNames
        self.serverNamesOverflowed = serverNamesOverflowed
    }

    /// The sums over several loops.
    package static func merged(_ snapshots: [MetricsSnapshot]) -> MetricsSnapshot {
        var merged = MetricsSnapshot()
        var positions: [EdgeLabels: Int] = [:]
        for snapshot in snapshots {
            merged.overflowed &+= snapshot.overflowed
            merged.dropped &+= snapshot.dropped
            merged.serverNamesOverflowed &+= snapshot.serverNamesOverflowed
            for (key, counts) in snapshot.serverNames { merged.serverNames[key, default: StreamCounts()].add(counts) }
            for edge in snapshot.edges {
                if let position = positions[edge.labels] {
                    merged.edges[position].merge(edge.series)
                    merged.edges[position].streams.add(edge.streams)
                } else {
                    positions[edge.labels] = merged.edges.count
                    merged.edges.append(edge)
                }
            }
        }
        return merged
    }

    /// Writes Istio's family and the registry's own counters.
    package func write(into text: inout PrometheusText, clusterDomain: String = "cluster.local") {
        let rows = rows(clusterDomain)
        let responses = rows.flatMap { row in row.series.map { (labels: row.labels(of: $0.key), series: $0) } }
        for metric in IstioMetric.allCases {
            text.begin(metric.name, metric.kind, metric.help)
            switch metric {
            case .requests:
                for response in responses { text.sample(response.labels, response.series.count) }
            case .requestDuration, .requestBytes, .responseBytes:
                for response in responses {
                    let histogram = response.series.histogram(metric)
                    text.histogram(
                        response.labels, bounds: FixedHistogram.bounds, cumulated: histogram.cumulated,
                        sum: histogram.sum)
                }
            case .tcpSentBytes, .tcpReceivedBytes, .tcpConnectionsOpened, .tcpConnectionsClosed:
                for row in rows where row.streams.connectionsOpened > 0 {
                    text.sample(row.streamLabels, row.streams.count(metric))
                }
            }
        }
        ServerNameMetrics.write(serverNames, overflowed: serverNamesOverflowed, into: &text)
        text.begin("apus_metrics_overflow_total", .counter, "Records counted in the series overflow for lack of room.")
        text.sample(PrometheusText.Labels(), overflowed)
        text.begin("apus_metrics_edges_dropped_total", .counter, "Edges forgotten after ten minutes without traffic.")
        text.sample(PrometheusText.Labels(), dropped)
    }

    /// Edges whose labels read the same, since a label for the pod is not among Istio's, as one.
    private func rows(_ clusterDomain: String) -> [Row] {
        var rows: [Row] = []
        var positions: [PrometheusText.Labels: Int] = [:]
        for edge in edges {
            let labels = edge.labels.labels(clusterDomain: clusterDomain)
            if let position = positions[labels] {
                rows[position].series.merge(edge.series)
                rows[position].streams.add(edge.streams)
            } else {
                positions[labels] = rows.count
                rows.append(Row(labels: labels, series: edge.series, streams: edge.streams))
            }
        }
        return rows
    }
}

private struct Row {
    let labels: PrometheusText.Labels
    var series: [ResponseSeries]
    var streams: StreamCounts

    func labels(of key: ResponseKey) -> PrometheusText.Labels {
        var labels = labels
        labels.append("response_code", "\(key.status)")
        if let grpcStatus = key.grpcStatus { labels.append("grpc_response_status", "\(grpcStatus)") }
        let flags = key.reason?.responseFlags ?? ""
        labels.append("response_flags", flags.isEmpty ? "-" : flags)
        labels.append("apus_reason", key.reason?.code ?? "-")
        return labels
    }

    var streamLabels: PrometheusText.Labels {
        var labels = labels
        labels.append("response_flags", "-")
        return labels
    }
}

extension EdgeSnapshot {
    fileprivate mutating func merge(_ other: [ResponseSeries]) { series.merge(other) }
}

extension [ResponseSeries] {
    fileprivate mutating func merge(_ other: [ResponseSeries]) {
        for added in other {
            if let index = firstIndex(where: { $0.packed == added.packed }) {
                self[index].merge(added)
            } else {
                append(added)
            }
        }
    }
}

extension ResponseSeries {
    fileprivate func histogram(_ metric: IstioMetric) -> FixedHistogram {
        switch metric {
        case .requestBytes: requestBytes
        case .responseBytes: responseBytes
        default: durations
        }
    }
}

extension StreamCounts {
    fileprivate func count(_ metric: IstioMetric) -> UInt64 {
        switch metric {
        case .tcpSentBytes: sentBytes
        case .tcpReceivedBytes: receivedBytes
        case .tcpConnectionsOpened: connectionsOpened
        default: connectionsClosed
        }
    }
}
