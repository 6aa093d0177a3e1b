package import MeshAddress
package import MeshCore

/// What one loop believes and how it fares with it, for the configuration dump: why this endpoint set, which state.
package struct SnapshotDump: Sendable {
    package struct Destination: Sendable {
        package let address: SocketAddress
        /// Nil while the question is open.
        package let answer: MeshCore.Destination?
    }

    package struct Service: Sendable {
        package let service: MeshCore.Service
        package let endpoints: [Endpoint]
        package let targets: [Target]
    }

    package struct Target: Sendable {
        package let port: UInt16
        /// What connections to it proved to be, where nothing is declared.
        package let learned: LearnedProtocol?
        /// What other sidecars found out.
        package let hint: LearnedProtocol?
        package let upstreams: [Upstream]
    }

    package struct Upstream: Sendable {
        package let address: SocketAddress
        /// The identity that its certificate must have; nil for plaintext.
        package let identity: SPIFFEID?
        package let isReady: Bool
        package let health: EndpointHealth
        package let pending: Int
        package let activeConnections: Int
        package let idleConnections: Int
        package let latencyNanoseconds: Double
    }

    package let destinations: [Destination]
    package let services: [Service]
    /// Of the pod's own ports.
    package let learnedPorts: [UInt16: LearnedProtocol]
}

extension RouteTarget {
    func dump(port: UInt16) -> SnapshotDump.Target {
        SnapshotDump.Target(
            port: port, learned: memory.learned, hint: hint,
            upstreams: upstreams.map { upstream in
                var identity: SPIFFEID?
                if case .mesh(let expected) = upstream.security { identity = expected }
                return SnapshotDump.Upstream(
                    address: upstream.address, identity: identity, isReady: upstream.isReady, health: upstream.health,
                    pending: upstream.pending, activeConnections: upstream.pool.active,
                    idleConnections: upstream.pool.idleCount, latencyNanoseconds: upstream.latency.nanoseconds)
            })
    }
}
