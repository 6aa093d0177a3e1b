package import MeshHTTP
internal import MeshIdentity
internal import MeshIO

/// Why a sidecar did not do what it was asked. One case per cause; `ErrorResponse` has the one table of what follows.
package enum ProxyError: Error, Sendable, Equatable {
    // The destination.
    case destinationTimeout
    case destinationQueueFull
    case unknownDestinationDenied
    case notRedirected
    case loopDetected

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

    // The client.
    case invalidRequest(HTTP1Error)
    case methodNotSupported
    case headTimeout
    case mtlsRequired
    case callerRefused(String)
    case clientGone
    case idleTimeout
    case draining
}
