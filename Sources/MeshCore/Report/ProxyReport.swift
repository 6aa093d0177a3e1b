/// What one sidecar believes and how it fares with it: `/config` of its admin port, `apus proxy config POD`.
package struct ProxyReport: Sendable, Hashable, Codable {
    package var generatedAt: Timestamp
    package var version: String
    package var namespace: String
    package var pod: String
    package var identity: String
    /// Nil before the first certificate.
    package var certificateNotAfter: Timestamp?
    package var discovery: DiscoveryState
    /// Nil until the control plane has told the pod about itself.
    package var own: OwnState?
    package var destinations: [KnownDestination]
    package var services: [KnownService]
    /// Everything that is counted and has no metric of its own, by name.
    package var counters: [String: UInt64]

    package init(
        generatedAt: Timestamp, version: String, namespace: String, pod: String, identity: String,
        certificateNotAfter: Timestamp?,
        discovery: DiscoveryState, own: OwnState?, destinations: [KnownDestination], services: [KnownService],
        counters: [String: UInt64]
    ) {
        self.generatedAt = generatedAt
        self.version = version
        self.namespace = namespace
        self.pod = pod
        self.identity = identity
        self.certificateNotAfter = certificateNotAfter
        self.discovery = discovery
        self.own = own
        self.destinations = destinations
        self.services = services
        self.counters = counters
    }
}

package struct DiscoveryState: Sendable, Hashable, Codable {
    package var isConnected: Bool
    /// Why not, when it is not.
    package var reason: String
    /// Of the last response that was applied.
    package var version: String
    /// What was refused last, and why.
    package var refusals: [RefusedResource]

    package init(isConnected: Bool = false, reason: String = "", version: String = "", refusals: [RefusedResource] = [])
    {
        self.isConnected = isConnected
        self.reason = reason
        self.version = version
        self.refusals = refusals
    }
}

package struct OwnState: Sendable, Hashable, Codable {
    package var trustDomain: String
    package var plaintext: String
    package var unknownDestinations: String
    /// Port → protocol, as declared.
    package var ports: [String: String]
    /// Port → what it proved to speak, where nothing is declared; told to the control plane.
    package var learnedPorts: [String: String]?

    package init(_ configuration: SidecarConfiguration, learnedPorts: [UInt16: LearnedProtocol] = [:]) {
        trustDomain = configuration.trustDomain
        plaintext = configuration.plaintext.rawValue
        unknownDestinations = configuration.unknownDestinations.rawValue
        ports = Dictionary(
            configuration.workload.ports.map { ("\($0.key)", $0.value.rawValue) },
            uniquingKeysWith: { first, _ in first })
        self.learnedPorts = Dictionary(
            learnedPorts.map { ("\($0.key)", $0.value.rawValue) }, uniquingKeysWith: { first, _ in first })
    }
}

package struct KnownDestination: Sendable, Hashable, Codable {
    package var address: String
    /// `service shop/catalog port 80`, `workload shop/catalog-1`, `unknown`, or `asked` while the question is open.
    package var answer: String

    package init(address: String, answer: String) {
        self.address = address
        self.answer = answer
    }
}

package struct KnownService: Sendable, Hashable, Codable {
    package struct Endpoint: Sendable, Hashable, Codable {
        package var address: String
        package var pod: String
        /// The identity that its certificate must have; empty for plaintext.
        package var identity: String
        package var isReady: Bool
        /// In words: `healthy`, `ejected …`.
        package var health: String
        package var pending: Int
        package var activeConnections: Int
        package var idleConnections: Int
        /// Peak EWMA of the time to the response's head.
        package var latencyMilliseconds: Double

        package init(
            address: String, pod: String, identity: String, isReady: Bool, health: String, pending: Int,
            activeConnections: Int,
            idleConnections: Int, latencyMilliseconds: Double
        ) {
            self.address = address
            self.pod = pod
            self.identity = identity
            self.isReady = isReady
            self.health = health
            self.pending = pending
            self.activeConnections = activeConnections
            self.idleConnections = idleConnections
            self.latencyMilliseconds = latencyMilliseconds
        }
    }

    package var name: String
    package var addresses: [String]
    package var port: Int
    package var applicationProtocol: String
    /// What it proved to speak, where nothing is declared: `http1 (seen here)`, `serverFirst (told by the mesh)`.
    package var learnedProtocol: String?
    package var endpoints: [Endpoint]

    package init(
        name: String, addresses: [String], port: Int, applicationProtocol: String, learnedProtocol: String? = nil,
        endpoints: [Endpoint]
    ) {
        self.name = name
        self.addresses = addresses
        self.port = port
        self.applicationProtocol = applicationProtocol
        self.learnedProtocol = learnedProtocol
        self.endpoints = endpoints
    }
}
