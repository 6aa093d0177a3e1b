package import MeshCore

/// What a Service's annotations ask of the sidecars that call it. One that is malformed or unknown is left out and
/// told.
package enum ServiceAnnotations {
    package static func apply(_ annotations: [String: String], to service: inout Service) -> [AnnotationProblem] {
        var problems: [AnnotationProblem] = []
        for (name, value) in annotations.sorted(by: { $0.key < $1.key }) where name.hasPrefix(MeshAnnotation.prefix) {
            do {
                try apply(name, value, to: &service)
            } catch {
                problems.append(error)
            }
        }
        return problems
    }

    private static func apply(_ name: String, _ value: String, to service: inout Service) throws(AnnotationProblem) {
        switch name {
        case MeshAnnotation.retryCount:
            service.retry.count = try number(name, value, 0...10)
        case MeshAnnotation.retryStatuses:
            service.retry.statuses = try statuses(name, value)
        case MeshAnnotation.retryGRPCStatuses:
            service.retry.grpcStatuses = try grpcStatuses(name, value)
        case MeshAnnotation.retryTimeout:
            service.retry.perTryTimeoutMilliseconds = try number(name, value, 1...3_600_000)
        case MeshAnnotation.requestTimeout:
            let timeout = try number(name, value, 0...86_400_000)
            service.requestTimeoutMilliseconds = timeout == 0 ? nil : timeout
        case MeshAnnotation.requestBodyLimit:
            service.requestBodyLimitBytes = UInt64(try number(name, value, 0...1_000_000_000_000_000))
        case MeshAnnotation.connectTimeout:
            service.connectTimeoutMilliseconds = try number(name, value, 1...60_000)
        case MeshAnnotation.loadBalancing:
            switch value {
            case "peak-ewma": service.loadBalancing = .peakEWMA
            case "round-robin": service.loadBalancing = .roundRobin
            case "random": service.loadBalancing = .random
            default: throw AnnotationProblem(name: name, value: value, expected: "peak-ewma, round-robin or random")
            }
        default:
            throw AnnotationProblem(
                name: name, value: value, expected: "no such annotation on a Service; known are \(known)")
        }
    }

    private static let known = [
        MeshAnnotation.retryCount, MeshAnnotation.retryStatuses, MeshAnnotation.retryGRPCStatuses,
        MeshAnnotation.retryTimeout, MeshAnnotation.requestTimeout, MeshAnnotation.requestBodyLimit,
        MeshAnnotation.connectTimeout, MeshAnnotation.loadBalancing,
    ].joined(separator: ", ")

    private static func number(_ name: String, _ value: String, _ range: ClosedRange<Int>) throws(AnnotationProblem)
        -> Int
    {
        guard !value.isEmpty, value.utf8.allSatisfy({ (48...57).contains($0) }), let number = Int(value),
            range.contains(number)
        else {
            throw AnnotationProblem(
                name: name, value: value, expected: "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private static func statuses(_ name: String, _ value: String) throws(AnnotationProblem) -> Set<Int> {
        var statuses: Set<Int> = []
        for part in value.split(separator: ",", omittingEmptySubsequences: false) {
            guard let status = Int(part.filter { $0 != " " }), (400...599).contains(status), statuses.count < 32 else {
                throw AnnotationProblem(
                    name: name, value: value,
                    expected: "at most 32 statuses from 400 to 599 with commas between them, such as 503,504")
            }
            statuses.insert(status)
        }
        return statuses
    }

    /// The statuses after which another try can make sense, by their names in gRPC.
    private static let retriableGRPCStatuses: [(name: String, code: UInt8)] = [
        ("cancelled", 1), ("deadline-exceeded", 4), ("resource-exhausted", 8), ("aborted", 10), ("internal", 13),
        ("unavailable", 14),
    ]

    private static func grpcStatuses(_ name: String, _ value: String) throws(AnnotationProblem) -> Set<UInt8> {
        var statuses: Set<UInt8> = []
        for part in value.split(separator: ",", omittingEmptySubsequences: false) {
            let word = part.filter { $0 != " " }
            guard let known = retriableGRPCStatuses.first(where: { $0.name == word }) else {
                let names = retriableGRPCStatuses.map(\.name).joined(separator: ", ")
                throw AnnotationProblem(name: name, value: value, expected: "some of \(names) with commas between them")
            }
            statuses.insert(known.code)
        }
        return statuses
    }
}
