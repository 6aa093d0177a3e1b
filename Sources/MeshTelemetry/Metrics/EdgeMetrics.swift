/// How requests ended: what tells the series of one edge apart.
package struct ResponseKey: Hashable, Sendable {
    /// HTTP's status; 0 when the caller got none.
    package var status: UInt16
    package var grpcStatus: UInt8?
    /// Nil when the application answered.
    package var reason: Reason?

    package init(status: UInt16, grpcStatus: UInt8? = nil, reason: Reason? = nil) {
        self.status = status
        self.grpcStatus = grpcStatus
        self.reason = reason
    }

    /// All of it in one word, to compare at once.
    @inline(__always)
    var packed: UInt64 {
        let grpc = grpcStatus.map { UInt64($0) } ?? 256
        let reason = self.reason.map { UInt64($0.rawValue) } ?? 256
        return UInt64(status) << 32 | grpc << 16 | reason
    }
}

/// The requests of one edge that ended in one way.
package struct ResponseSeries: Sendable {
    package let key: ResponseKey
    package internal(set) var durations = FixedHistogram()
    package internal(set) var requestBytes = FixedHistogram()
    package internal(set) var responseBytes = FixedHistogram()
    let packed: UInt64
    /// How many of them reports have told.
    var reported: UInt64 = 0

    package var count: UInt64 { durations.count }

    init(_ key: ResponseKey) {
        self.key = key
        packed = key.packed
    }

    mutating func merge(_ other: ResponseSeries) {
        durations.merge(other.durations)
        requestBytes.merge(other.requestBytes)
        responseBytes.merge(other.responseBytes)
    }
}

/// What is counted of byte streams and of tries; monotonic.
package struct StreamCounts: Sendable, Equatable {
    package var connectionsOpened: UInt64 = 0
    package var connectionsClosed: UInt64 = 0
    package var connectionsFailed: UInt64 = 0
    /// From the client to the server.
    package var receivedBytes: UInt64 = 0
    /// From the server to the client.
    package var sentBytes: UInt64 = 0
    package var retries: UInt64 = 0

    package init() {}

    mutating func add(_ other: StreamCounts) {
        connectionsOpened &+= other.connectionsOpened
        connectionsClosed &+= other.connectionsClosed
        connectionsFailed &+= other.connectionsFailed
        receivedBytes &+= other.receivedBytes
        sentBytes &+= other.sentBytes
        retries &+= other.retries
    }

    func subtracting(_ other: StreamCounts) -> StreamCounts {
        var difference = self
        difference.connectionsOpened &-= other.connectionsOpened
        difference.connectionsClosed &-= other.connectionsClosed
        difference.connectionsFailed &-= other.connectionsFailed
        difference.receivedBytes &-= other.receivedBytes
        difference.sentBytes &-= other.sentBytes
        difference.retries &-= other.retries
        return difference
    }
}

/// The cell of one edge on one loop. Whoever handles the edge's traffic keeps it and records into it; all on the loop.
package final class EdgeMetrics {
    package let labels: EdgeLabels
    private unowned let registry: MetricsRegistry
    private(set) var series: [ResponseSeries] = []
    private var lastSeries = 0
    private(set) var streams = StreamCounts()
    private var reportedStreams = StreamCounts()
    /// Since the last report.
    private var latency = LatencyHistogram()
    /// Of the requests that ended since the last report.
    private var bodyBytes: (received: UInt64, sent: UInt64) = (0, 0)

    // Of the registry.
    var isRegistered = true
    var isDirty = false
    var isTouched = true
    var lastTouchedNanoseconds: Int64 = 0

    init(_ labels: EdgeLabels, _ registry: MetricsRegistry) {
        self.labels = labels
        self.registry = registry
    }

    /// One finished request.
    ///
    /// - Parameters:
    ///   - requestBytes, responseBytes: of the bodies.
    package func record(_ key: ResponseKey, durationNanoseconds: Int64, requestBytes: UInt64, responseBytes: UInt64) {
        guard isRegistered || registry.revive(self), let index = index(of: key) else {
            registry.recordElsewhere(self, key, durationNanoseconds, requestBytes, responseBytes)
            return
        }
        series[index].durations.record(thousandths: UInt64(max(0, durationNanoseconds)) / 1000)
        series[index].requestBytes.record(thousandths: requestBytes &* 1000)
        series[index].responseBytes.record(thousandths: responseBytes &* 1000)
        latency.record(nanoseconds: durationNanoseconds)
        bodyBytes.received &+= requestBytes
        bodyBytes.sent &+= responseBytes
        touch()
    }

    /// What a byte stream or the tries of a request have come to since the last call.
    package func add(_ counts: StreamCounts) {
        guard isRegistered || registry.revive(self) else {
            registry.addElsewhere(self, counts)
            return
        }
        streams.add(counts)
        touch()
    }

    @inline(__always)
    private func touch() {
        isTouched = true
        if !isDirty {
            isDirty = true
            registry.noteDirty(self)
        }
    }

    @inline(__always)
    private func index(of key: ResponseKey) -> Int? {
        let packed = key.packed
        if lastSeries < series.count, series[lastSeries].packed == packed { return lastSeries }
        for index in series.indices where series[index].packed == packed {
            lastSeries = index
            return index
        }
        guard registry.mayAddSeries(to: self) else { return nil }
        series.append(ResponseSeries(key))
        lastSeries = series.count - 1
        return lastSeries
    }

    /// Starts from nothing after it had been dropped: a counter that begins again is what Prometheus expects.
    func reset() {
        series = []
        streams = StreamCounts()
        reportedStreams = StreamCounts()
        latency.reset()
        bodyBytes = (0, 0)
    }

    /// What has happened since the last call.
    func takeReport() -> EdgeReport {
        var report = EdgeReport(labels: labels)
        for index in series.indices where series[index].count > series[index].reported {
            report.requests.append((series[index].key, series[index].count - series[index].reported))
            series[index].reported = series[index].count
        }
        report.latency = latency.buckets
        report.latencySumMicroseconds = latency.sumMicroseconds
        if latency.count > 0 { latency.reset() }
        report.streams = streams.subtracting(reportedStreams)
        reportedStreams = streams
        report.streams.receivedBytes &+= bodyBytes.received
        report.streams.sentBytes &+= bodyBytes.sent
        bodyBytes = (0, 0)
        return report
    }

    var snapshot: EdgeSnapshot { EdgeSnapshot(labels: labels, series: series, streams: streams) }
}

/// What happened on an edge since the report before, for the control plane.
package struct EdgeReport: Sendable {
    package var labels: EdgeLabels
    package var requests: [(key: ResponseKey, count: UInt64)] = []
    /// Buckets of a `LatencyHistogram` that are not empty, ascending.
    package var latency: [(index: UInt32, count: UInt64)] = []
    package var latencySumMicroseconds: UInt64 = 0
    /// Its bytes are those of byte streams and of the bodies of requests.
    package var streams = StreamCounts()

    package init(labels: EdgeLabels) { self.labels = labels }
}

/// Everything counted on an edge since it was first used.
package struct EdgeSnapshot: Sendable {
    package var labels: EdgeLabels
    package var series: [ResponseSeries]
    package var streams: StreamCounts
}
