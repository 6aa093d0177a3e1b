import MeshKubernetes

/// What a pod's annotations ask of its sidecar, checked.
struct PodAnnotations: Hashable {
    var opaquePorts: [UInt16] = []
    var skipInboundPorts: [UInt16] = []
    var skipOutboundPorts: [UInt16] = []
    var logLevel: String?
    var accessLog: String?
    var drainSeconds: Int?
    var cpuRequest: Quantity
    var memoryRequest: Quantity
    var cpuLimit: Quantity?
    var memoryLimit: Quantity?

    static let logLevels = ["debug", "info", "warning", "error"]
    static let accessLogs = ["off", "text", "json"]

    init(_ annotations: [String: String], _ settings: InjectionSettings) throws(Refusal) {
        cpuRequest = settings.cpuRequest
        memoryRequest = settings.memoryRequest
        cpuLimit = settings.cpuLimit
        memoryLimit = settings.memoryLimit
        for (name, value) in annotations.sorted(by: { $0.key < $1.key }) where name.hasPrefix(MeshAnnotation.prefix) {
            try take(name, value)
        }
        try checkLimit(MeshAnnotation.proxyCPULimit, cpuLimit, MeshAnnotation.proxyCPURequest, cpuRequest)
        try checkLimit(MeshAnnotation.proxyMemoryLimit, memoryLimit, MeshAnnotation.proxyMemoryRequest, memoryRequest)
    }

    private mutating func take(_ name: String, _ value: String) throws(Refusal) {
        switch name {
        case MeshAnnotation.opaquePorts: opaquePorts = try ports(name, value)
        case MeshAnnotation.skipInboundPorts: skipInboundPorts = try ports(name, value)
        case MeshAnnotation.skipOutboundPorts: skipOutboundPorts = try ports(name, value)
        case MeshAnnotation.logLevel: logLevel = try choice(name, value, PodAnnotations.logLevels)
        case MeshAnnotation.accessLog: accessLog = try choice(name, value, PodAnnotations.accessLogs)
        case MeshAnnotation.drainSeconds:
            guard !value.isEmpty, value.utf8.allSatisfy({ (48...57).contains($0) }), let seconds = Int(value),
                seconds <= 3600
            else { throw refusal(name, value, "a whole number of seconds from 0 to 3600") }
            drainSeconds = seconds
        case MeshAnnotation.proxyCPURequest: cpuRequest = try quantity(name, value, "200m")
        case MeshAnnotation.proxyMemoryRequest: memoryRequest = try quantity(name, value, "64Mi")
        case MeshAnnotation.proxyCPULimit: cpuLimit = try quantity(name, value, "1")
        case MeshAnnotation.proxyMemoryLimit: memoryLimit = try quantity(name, value, "128Mi")
        case MeshAnnotation.proxyVersion: break
        default: throw refusal(name, value, "no such annotation; known are \(PodAnnotations.known)")
        }
    }

    private static let known = [
        MeshAnnotation.opaquePorts, MeshAnnotation.skipInboundPorts, MeshAnnotation.skipOutboundPorts,
        MeshAnnotation.logLevel,
        MeshAnnotation.accessLog, MeshAnnotation.drainSeconds, MeshAnnotation.proxyCPURequest,
        MeshAnnotation.proxyMemoryRequest, MeshAnnotation.proxyCPULimit, MeshAnnotation.proxyMemoryLimit,
    ].joined(separator: ", ")

    private func refusal(_ name: String, _ value: String, _ expected: String) -> Refusal {
        Refusal(field: "metadata.annotations[\(name)]", value: value, expected: expected)
    }

    private func ports(_ name: String, _ value: String) throws(Refusal) -> [UInt16] {
        do {
            return try PortList.parse(value, annotation: name)
        } catch {
            throw refusal(name, error.value, error.expected)
        }
    }

    private func choice(_ name: String, _ value: String, _ choices: [String]) throws(Refusal) -> String {
        guard choices.contains(value) else { throw refusal(name, value, "one of \(choices.joined(separator: ", "))") }
        return value
    }

    private func quantity(_ name: String, _ value: String, _ example: String) throws(Refusal) -> Quantity {
        let quantity = Quantity(value)
        guard let amount = quantity.value, amount > 0, quantity.thousandths != nil else {
            throw refusal(name, value, "an amount above 0 such as \(example)")
        }
        return quantity
    }

    private func checkLimit(_ name: String, _ limit: Quantity?, _ requestName: String, _ request: Quantity)
        throws(Refusal)
    {
        guard let limit, let most = limit.value, let least = request.value, most < least else { return }
        throw refusal(name, limit.text, "at least the request, which is \(request) (\(requestName))")
    }
}
