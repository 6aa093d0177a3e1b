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
    /// How long a client may be silent, or stop in the middle of what would tell its protocol, until its bytes are relayed
    /// whatever they are: with a connection to make besides, nobody waits 50 ms for a server's greeting.
    static let sniffMilliseconds = 40
    /// How long a client may be silent, where nothing is known of the port, until its endpoint is dialled: one that begins
    /// itself has done so by then, and needs no connection made for the server's greeting.
    static let dialEarlyMilliseconds = 5
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

    /// HTTP/2 requests that wait for a connection to one endpoint, on one loop.
    static let http2Waiting = 1024
    /// HTTP/2 connections of one loop to one endpoint; a second is made when the first carries all that its peer permits.
    static let http2Connections = 16
    /// How long the requests of an HTTP/2 connection that takes no more may still take.
    static let http2GraceMilliseconds = 3_600_000
    /// After a second connection could not be made, those who wait for the first try no other for so long.
    static let http2ConnectPauseMilliseconds: Int64 = 1_000
    /// Frames that carry nothing are permitted this many times as often on a connection that a sidecar makes for its clients.
    static let clientsOfSidecar = 10
    /// How long a drain waits for a caller of HTTP/2 to see it.
    static let leaveMilliseconds: Int64 = 1_000
    /// Whether a caller's machine is still there is asked after this much silence, and this long nothing may be heard of it.
    static let callerSilenceSeconds = 60
    static let callerLossMilliseconds = 300_000
    /// An endpoint whose sidecar said that it is about to stop is left out for so long, if discovery says nothing of it.
    static let withdrawalMilliseconds: Int64 = 60_000
    /// A server that wants the next try later than this (`grpc-retry-pushback-ms`) is not tried again.
    static let retryPushbackMilliseconds = 10_000

    /// An HTTP/2 connection from a client.
    static let http2Downstream: HTTP2Limits = {
        var limits = http2
        limits.concurrentStreams = 512
        limits.idleTimeoutMilliseconds = 3_600_000
        return limits
    }()

    /// An HTTP/2 connection to an endpoint.
    static let http2Upstream: HTTP2Limits = {
        var limits = http2
        limits.concurrentStreams = 1024
        limits.idleTimeoutMilliseconds = 300_000
        return limits
    }()

    /// A lost peer is found out by TCP, and some servers take PING for an attack: none is sent.
    private static let http2: HTTP2Limits = {
        var limits = HTTP2Limits()
        limits.streamWindowBytes = 128 * 1024
        limits.connectionWindowBytes = 1024 * 1024
        limits.heldBytes = 8 * 1024 * 1024
        limits.pingIntervalMilliseconds = 0
        return limits
    }()

    /// A head with what is added to it fits the loop's scratch buffer of 64 KiB.
    static let http = HTTP1Limits.standard
}
