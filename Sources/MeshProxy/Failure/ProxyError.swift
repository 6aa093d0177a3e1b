import MeshHTTP

/// Why a sidecar did not do what it was asked. One case per cause; `ErrorResponse` has the one table of what follows.
enum ProxyError: Error, Equatable {
    // The destination.
    case destinationTimeout
    case destinationQueueFull
    case unknownDestinationDenied

    // The upstream.
    case noEndpoints
    case allEndpointsEjected
    case connectFailed(String)
    case connectTimeout
    case connectionQueueFull
    case connectionQueueTimeout
    case tlsFailed(String)
    case identityMissing
    case identityMismatch(String)
    case upstreamReset
    case upstreamTruncated
    case perTryTimeout
    case requestTimeout
    case invalidResponse(HTTP1Error)
    case invalidHTTP2Response

    // The client.
    case invalidRequest(HTTP1Error)
    case methodNotSupported
    case headTimeout
    case bodyTimeout
    case requestBodyTooLarge(limitBytes: UInt64)
    case mtlsRequired
    case clientGone
    case idleTimeout
}
