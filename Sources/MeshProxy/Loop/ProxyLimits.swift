import MeshHTTP

/// The written limits of the data path. What happens at each is counted in `LoopCounters`.
enum ProxyLimits {
    /// Bytes of a request (head and body) that are kept so that it can be sent again.
    static let replayBytes = 64 * 1024
    /// A request's wait for a connection, over all that a pool may have.
    static let connectionQueueMilliseconds = 10_000
    /// How long a client that has its answer may go on sending or keep the connection half open.
    static let lingerMilliseconds = 2_000
    /// A request body that nobody wants any more is read this far before the connection is closed instead.
    static let discardBytes = 1024 * 1024
    /// How long nothing may be heard before a connection's protocol counts as opaque: whoever waits for the server's
    /// greeting waits no longer than this.
    static let sniffMilliseconds = 50
    /// Bytes within which a protocol must have shown itself.
    static let sniffBytes = 8 * 1024
    /// Callers that wait for the answer to an unknown destination, on one loop.
    static let waitingCallers = 1024
    static let handshakeMilliseconds = 10_000
    /// Whether an endpoint's machine is still there is asked after this much silence, and this long nothing may be heard of it.
    static let silenceSeconds = 5
    static let silenceIntervalSeconds = 2
    static let lossMilliseconds = 10_000
    /// The same for an endpoint that discovery has removed.
    static let removedLossMilliseconds = 3_000
    /// Connections from clients on one loop; the next is refused.
    static let connections = 65_536
    /// Targets made for the application's own ports.
    static let localTargets = 4_096
    /// How often discovery may remove the endpoint that a request waits for.
    static let removals = 32
    /// Tries that fail because an idle connection turned out to be closed cost nobody anything, up to this many.
    static let silentRetries = 3

    /// A head with what is added to it fits the loop's scratch buffer of 64 KiB.
    static let http: HTTP1Limits = {
        var limits = HTTP1Limits()
        limits.headBytes = 60 * 1024
        return limits
    }()
}
