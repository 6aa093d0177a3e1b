package import MeshAddress

/// A namespace and a name: what identifies a service or a workload within a mesh.
package struct ObjectName: Hashable, Sendable, Comparable, CustomStringConvertible {
    package let namespace: String
    package let name: String

    package init(namespace: String, name: String) {
        self.namespace = namespace
        self.name = name
    }

    /// From `namespace/name`; nil when either is empty or there are more slashes.
    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else { return nil }
        self.init(namespace: String(parts[0]), name: String(parts[1]))
    }

    package var description: String { "\(namespace)/\(name)" }

    package static func < (left: Self, right: Self) -> Bool {
        (left.namespace, left.name) < (right.namespace, right.name)
    }
}

/// What an application speaks on a port.
package enum ApplicationProtocol: String, Sendable, Hashable, CaseIterable {
    /// HTTP/1.0 or HTTP/1.1.
    case http1
    /// HTTP/2 without gRPC's conventions.
    case http2
    case grpc
    /// TLS of the application's own: passed through, never opened.
    case tls
    /// Any bytes over TCP.
    case opaque

    /// From a Service port's declaration: `appProtocol` first, then the prefix of the port's name (`http`, `http-admin`,
    /// `grpc`, `tcp`, …). Nil when neither says: the sidecar then remembers or sniffs.
    package init?(appProtocol: String?, portName: String?) {
        if let appProtocol, let known = Self(word: appProtocol.lowercased()) {
            self = known
            return
        }
        guard let portName, let word = portName.lowercased().split(separator: "-").first,
            let known = Self(word: String(word))
        else { return nil }
        self = known
    }

    /// HTTP of any version: its client speaks first, and a sidecar relays it request by request.
    package var isHTTP: Bool {
        switch self {
        case .http1, .http2, .grpc: true
        case .tls, .opaque: false
        }
    }

    private init?(word: String) {
        switch word {
        case "http", "http1", "kubernetes.io/ws", "ws": self = .http1
        case "http2", "h2c", "kubernetes.io/h2c": self = .http2
        case "grpc", "grpc-web": self = .grpc
        case "https", "tls", "kubernetes.io/wss", "wss": self = .tls
        case "tcp", "mysql", "mongo", "redis", "postgres", "postgresql", "smtp", "amqp", "kafka": self = .opaque
        default: return nil
        }
    }
}

/// What a sidecar may do again on behalf of a caller. The default retries what was provably not processed, and idempotent
/// methods whose upstream died before the first byte of its answer.
package struct RetryPolicy: Sendable, Hashable {
    /// How many times a request may be tried again; 0 switches retries off.
    package var count = 2
    /// Statuses that are retried too, for idempotent methods.
    package var statuses: Set<Int> = []
    /// gRPC statuses that are retried too when they are the whole answer: whoever lists them says that the calls may be repeated.
    package var grpcStatuses: Set<UInt8> = []
    /// How long one try may take to its response head; nil leaves only the request's own timeout.
    package var perTryTimeoutMilliseconds: Int?

    package init(
        count: Int = 2, statuses: Set<Int> = [], grpcStatuses: Set<UInt8> = [], perTryTimeoutMilliseconds: Int? = nil
    ) {
        self.count = count
        self.statuses = statuses
        self.grpcStatuses = grpcStatuses
        self.perTryTimeoutMilliseconds = perTryTimeoutMilliseconds
    }
}

package enum LoadBalancing: String, Sendable, Hashable, CaseIterable {
    case peakEWMA
    case roundRobin
    case random
}

package struct ServicePort: Sendable, Hashable {
    package var port: UInt16
    package var name: String
    /// As declared; nil when the declaration says nothing.
    package var declaredProtocol: ApplicationProtocol?
    /// What most of its endpoints' sidecars found out, where nothing is declared.
    package var learnedProtocol: LearnedProtocol?

    package init(
        port: UInt16, name: String = "", declaredProtocol: ApplicationProtocol? = nil,
        learnedProtocol: LearnedProtocol? = nil
    ) {
        self.port = port
        self.name = name
        self.declaredProtocol = declaredProtocol
        self.learnedProtocol = learnedProtocol
    }
}

/// A service as a sidecar needs it: how to recognise it and how to treat its requests. Its endpoints are separate values.
package struct Service: Sendable, Hashable {
    package var name: ObjectName
    /// The addresses a client dials; empty for a headless service.
    package var addresses: [IPAddress]
    package var ports: [ServicePort]
    package var retry: RetryPolicy
    /// To the last byte of the response; nil is without limit.
    package var requestTimeoutMilliseconds: Int?
    package var connectTimeoutMilliseconds: Int
    /// Of a request's body, beyond which it is refused with 413; nil is without limit.
    package var requestBodyLimitBytes: UInt64?
    package var loadBalancing: LoadBalancing

    package init(
        name: ObjectName, addresses: [IPAddress] = [], ports: [ServicePort] = [], retry: RetryPolicy = RetryPolicy(),
        requestTimeoutMilliseconds: Int? = nil, connectTimeoutMilliseconds: Int = 1000,
        loadBalancing: LoadBalancing = .peakEWMA
    ) {
        self.name = name
        self.addresses = addresses
        self.ports = ports
        self.retry = retry
        self.requestTimeoutMilliseconds = requestTimeoutMilliseconds
        self.connectTimeoutMilliseconds = connectTimeoutMilliseconds
        self.loadBalancing = loadBalancing
    }

    package func port(_ number: UInt16) -> ServicePort? { ports.first { $0.port == number } }
}
