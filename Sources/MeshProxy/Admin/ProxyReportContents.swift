import MeshAddress
import MeshCore

extension ProxyReport {
    /// Each address once, however many loops know it.
    static func destinations(_ dumps: [SnapshotDump]) -> [KnownDestination] {
        var answers: [SocketAddress: String] = [:]
        for destination in dumps.flatMap(\.destinations) {
            let text =
                switch destination.answer {
                case .service(let name, let port): "service \(name) port \(port)"
                case .workload(let workload): "workload \(workload.pod)"
                case .unknown: "unknown"
                case nil: "asked"
                }
            if answers[destination.address] == nil || destination.answer != nil { answers[destination.address] = text }
        }
        return answers.map { KnownDestination(address: $0.key.description, answer: $0.value) }.sorted {
            $0.address < $1.address
        }
    }

    /// Each service's ports with their endpoints; what several loops hold is added up, and the worst health of an endpoint is shown.
    static func services(_ dumps: [SnapshotDump]) -> [KnownService] {
        var known: [String: KnownService] = [:]
        for service in dumps.flatMap(\.services) {
            let pods = Dictionary(
                service.endpoints.map { ($0.address, $0.workload?.pod.description ?? "") },
                uniquingKeysWith: { first, _ in first })
            for target in service.targets {
                let key = "\(service.service.name):\(target.port)"
                let endpoints = target.upstreams.map { upstream in
                    KnownService.Endpoint(
                        address: upstream.address.description, pod: pods[upstream.address.ip] ?? "",
                        identity: upstream.identity?.description ?? "", isReady: upstream.isReady,
                        health: words(upstream.health),
                        pending: upstream.pending, activeConnections: upstream.activeConnections,
                        idleConnections: upstream.idleConnections,
                        latencyMilliseconds: upstream.latencyNanoseconds / 1e6)
                }
                if var earlier = known[key] {
                    earlier.endpoints = merge(earlier.endpoints, endpoints)
                    known[key] = earlier
                } else {
                    known[key] = KnownService(
                        name: service.service.name.description, addresses: service.service.addresses.map(\.description),
                        port: Int(target.port),
                        applicationProtocol: service.service.port(target.port)?.declaredProtocol?.rawValue
                            ?? "undeclared",
                        learnedProtocol: target.learned.map { "\($0.rawValue) (seen here)" }
                            ?? target.hint.map { "\($0.rawValue) (told by the mesh)" },
                        endpoints: endpoints)
                }
            }
        }
        return known.values.sorted { ($0.name, $0.port) < ($1.name, $1.port) }
    }

    /// What the pod's own ports proved to speak, as the control plane is told.
    static func learnedPorts(_ dumps: [SnapshotDump]) -> [UInt16: LearnedProtocol] {
        TelemetryReporter.merged(dumps.map(\.learnedPorts))
    }

    private static func words(_ health: EndpointHealth) -> String {
        switch health.state {
        case .healthy: "healthy"
        case .ejected: "ejected (\(health.lastCause?.rawValue ?? "unknown cause"))"
        case .probing: "ejected, being probed"
        }
    }

    private static func merge(_ left: [KnownService.Endpoint], _ right: [KnownService.Endpoint]) -> [KnownService
        .Endpoint]
    {
        var byAddress = Dictionary(left.map { ($0.address, $0) }, uniquingKeysWith: { first, _ in first })
        for endpoint in right {
            guard var merged = byAddress[endpoint.address] else {
                byAddress[endpoint.address] = endpoint
                continue
            }
            merged.pending += endpoint.pending
            merged.activeConnections += endpoint.activeConnections
            merged.idleConnections += endpoint.idleConnections
            merged.latencyMilliseconds = max(merged.latencyMilliseconds, endpoint.latencyMilliseconds)
            if merged.health == "healthy" { merged.health = endpoint.health }
            byAddress[endpoint.address] = merged
        }
        return byAddress.values.sorted { $0.address < $1.address }
    }
}
