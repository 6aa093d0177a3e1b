import MeshCore

/// The tries of one request: where it was, and whether it may go elsewhere.
struct RequestTries {
    enum Next {
        case now
        /// Nobody else is left: the same endpoint gets a moment to come back.
        case at(Int64)
    }

    /// Endpoints that failed it.
    private(set) var tried: [Upstream] = []
    var count = 0
    /// Tries that failed because a connection turned out to be dead, which says nothing about its endpoint.
    private var silent = 0
    var hasMetDeadConnection: Bool { silent > 0 }
    /// Endpoints that were removed while it waited for a connection to them.
    private var removals = 0

    /// The endpoint it waited for was removed. False when that has happened too often.
    mutating func noteRemoval() -> Bool {
        removals &+= 1
        return removals <= ProxyLimits.removals
    }

    /// The endpoint refused it: another one is asked first.
    mutating func avoid(_ upstream: Upstream) {
        if !tried.contains(where: { $0 === upstream }) { tried.append(upstream) }
    }

    /// For the next request; nothing is allocated or freed when the last one had a single try.
    @inline(__always)
    mutating func reset() {
        if !tried.isEmpty { tried.removeAll() }
        count = 0
        silent = 0
        removals = 0
    }

    /// Takes a retry out of what the request and its service have left.
    mutating func mayRetry(isSilent: Bool, target: RouteTarget, loop: ProxyLoop) -> Bool {
        if isSilent, silent < ProxyLimits.silentRetries {
            silent &+= 1
            return true
        }
        guard count <= target.decision.retry.count &+ silent &+ removals else { return false }
        guard target.budget.withdraw(now: loop.now) else {
            loop.counters.retriesOverBudget &+= 1
            return false
        }
        return true
    }

    /// When the next try is due after `failed`, which is not chosen again while there is another.
    mutating func next(after failed: Upstream, isSilent: Bool, target: RouteTarget, loop: ProxyLoop) -> Next {
        loop.counters.retries &+= 1
        if isSilent { return .now }
        let isRepeated = tried.contains { $0 === failed }
        if !isRepeated { tried.append(failed) }
        if target.upstreams.count > tried.count, !isRepeated { return .now }
        let base = Int64(12_500_000) << Int64(min(count, 4))
        return .at(loop.now &+ base / 2 &+ Int64(truncatingIfNeeded: loop.random.next() % UInt64(base)))
    }
}
