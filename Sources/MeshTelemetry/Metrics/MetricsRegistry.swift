/// The edges of one data loop. Used on that loop only; what leaves it are snapshots and reports.
package final class MetricsRegistry {
    package struct Limits: Sendable {
        /// Response series of all edges together; an edge without responses counts as one. What exceeds it is counted in the
        /// series `overflow`.
        package var series = 4096
        /// Of one edge; more statuses than that are no statistics.
        package var seriesPerEdge = 64
        package var idleNanoseconds: Int64 = 600 * 1_000_000_000

        package init() {}
    }

    private let limits: Limits
    package var serverNames = ServerNameMetrics()
    private var edges: [EdgeLabels: EdgeMetrics] = [:]
    private var dirty: [EdgeMetrics] = []
    private var seriesCount = 0
    private lazy var overflowEdge = EdgeMetrics(.overflow, self)
    private var isOverflowUsed = false
    private var nowNanoseconds: Int64 = 0
    /// Records that went to the series `overflow`.
    package private(set) var overflowed: UInt64 = 0
    /// Edges dropped because they were idle.
    package private(set) var dropped: UInt64 = 0

    package init(limits: Limits = Limits()) {
        precondition(limits.seriesPerEdge >= 1, "an edge without a series could count nothing")
        self.limits = limits
    }

    package var edgeCount: Int { edges.count }

    /// The cell of an edge, made when there is none. Find it once and keep it; it stays usable after it was dropped for
    /// idleness. When there is no room, the answer is the cell in which everything of that kind is counted.
    package func edge(_ labels: EdgeLabels) -> EdgeMetrics {
        if let edge = edges[labels] { return edge }
        guard seriesCount < limits.series else {
            isOverflowUsed = true
            return overflowEdge
        }
        let edge = EdgeMetrics(labels, self)
        edge.lastTouchedNanoseconds = nowNanoseconds
        edges[labels] = edge
        seriesCount += 1
        return edge
    }

    /// Drops edges that have been idle for ten minutes. To be called about once a minute; `now` is monotonic.
    package func sweep(nowNanoseconds now: Int64) {
        nowNanoseconds = now
        serverNames.sweep(nowNanoseconds: now)
        for (labels, edge) in edges {
            if edge.isTouched {
                edge.isTouched = false
                edge.lastTouchedNanoseconds = now
            } else if now - edge.lastTouchedNanoseconds >= limits.idleNanoseconds, !edge.isDirty {
                edge.isRegistered = false
                seriesCount -= max(1, edge.series.count)
                edge.reset()
                edges[labels] = nil
                dropped += 1
            }
        }
    }

    /// What happened since the last call, on the edges where something did.
    package func takeReports() -> [EdgeReport] {
        let reports = dirty.map { edge in
            edge.isDirty = false
            return edge.takeReport()
        }
        dirty.removeAll(keepingCapacity: dirty.count <= 1024)
        return reports
    }

    package func snapshot() -> MetricsSnapshot {
        var all = edges.values.map(\.snapshot)
        if isOverflowUsed { all.append(overflowEdge.snapshot) }
        return MetricsSnapshot(
            edges: all, overflowed: overflowed, dropped: dropped, serverNames: serverNames.snapshot,
            serverNamesOverflowed: serverNames.overflowed)
    }

    // MARK: - For cells

    func noteDirty(_ edge: EdgeMetrics) { dirty.append(edge) }

    /// Takes a dropped cell back; false when there is no room.
    func revive(_ edge: EdgeMetrics) -> Bool {
        guard seriesCount < limits.series, edges[edge.labels] == nil else { return false }
        edge.isRegistered = true
        edge.lastTouchedNanoseconds = nowNanoseconds
        edges[edge.labels] = edge
        seriesCount += 1
        return true
    }

    func mayAddSeries(to edge: EdgeMetrics) -> Bool {
        guard edge.series.count < limits.seriesPerEdge else { return false }
        if edge === overflowEdge { return true }
        // An edge's first series is the one it was admitted with.
        if edge.series.isEmpty { return true }
        guard seriesCount < limits.series else { return false }
        seriesCount += 1
        return true
    }

    /// For a cell that could not take it: another cell may have been made for its edge; else it is overflow.
    func recordElsewhere(
        _ edge: EdgeMetrics, _ key: ResponseKey, _ durationNanoseconds: Int64, _ requestBytes: UInt64,
        _ responseBytes: UInt64
    ) {
        if let other = edges[edge.labels], other !== edge {
            other.record(
                key, durationNanoseconds: durationNanoseconds, requestBytes: requestBytes, responseBytes: responseBytes)
            return
        }
        overflowed &+= 1
        isOverflowUsed = true
        // Every status has had its chance to be told apart; what is left is counted under none, for which there is always room.
        let key = overflowEdge.series.count < limits.seriesPerEdge - 1 ? key : ResponseKey(status: 0)
        overflowEdge.record(
            key, durationNanoseconds: durationNanoseconds, requestBytes: requestBytes, responseBytes: responseBytes)
    }

    func addElsewhere(_ edge: EdgeMetrics, _ counts: StreamCounts) {
        if let other = edges[edge.labels], other !== edge {
            other.add(counts)
            return
        }
        overflowed &+= 1
        isOverflowUsed = true
        overflowEdge.add(counts)
    }
}
