package import MeshCore

/// How one request is to be treated, whoever serves it.
package struct RouteDecision: Sendable, Equatable {
    package var retry: RetryPolicy
    /// To the last byte of the response; nil is without limit.
    package var requestTimeoutMilliseconds: Int?
    /// Of the request's body as it is sent, chunk sizes included; nil for none.
    package var requestBodyLimitBytes: UInt64?
    package var connectTimeoutMilliseconds: Int

    package init(
        retry: RetryPolicy = RetryPolicy(), requestTimeoutMilliseconds: Int? = nil,
        connectTimeoutMilliseconds: Int = 1000
    ) {
        self.retry = retry
        self.requestTimeoutMilliseconds = requestTimeoutMilliseconds
        self.connectTimeoutMilliseconds = connectTimeoutMilliseconds
    }

    /// What is dialled by its own address has no policy of a service: nothing is retried on its behalf but what was provably
    /// not processed.
    package static let byAddress = RouteDecision()

    /// To the application in this pod. The caller's sidecar decides about retries, since it knows other replicas; here only a
    /// connection that turns out to be dead is replaced.
    package static let local = RouteDecision(
        retry: RetryPolicy(count: 1), requestTimeoutMilliseconds: nil, connectTimeoutMilliseconds: 5000)
}

/// From a service and what is asked of it to how it is done.
package enum Router {
    /// Today a service has one policy for all of its requests.
    package static func route(_ service: Service) -> RouteDecision {
        var decision = RouteDecision(
            retry: service.retry, requestTimeoutMilliseconds: service.requestTimeoutMilliseconds,
            connectTimeoutMilliseconds: service.connectTimeoutMilliseconds)
        decision.requestBodyLimitBytes = service.requestBodyLimitBytes
        return decision
    }
}
