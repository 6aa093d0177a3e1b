/// The mesh's own labels and annotations (docs/ARCHITECTURE.md).
package enum MeshLabel {
    /// `disabled` on a pod or namespace leaves it without a sidecar.
    package static let inject = "apus.dev/inject"
    /// `true` on a pod that has one.
    package static let injected = "apus.dev/injected"
}

package enum MeshAnnotation {
    package static let prefix = "apus.dev/"

    // On a pod.
    package static let proxyVersion = "apus.dev/proxy-version"
    package static let opaquePorts = "apus.dev/opaque-ports"
    package static let skipInboundPorts = "apus.dev/skip-inbound-ports"
    package static let skipOutboundPorts = "apus.dev/skip-outbound-ports"
    package static let logLevel = "apus.dev/log-level"
    package static let accessLog = "apus.dev/access-log"
    package static let drainSeconds = "apus.dev/drain-seconds"
    package static let proxyCPURequest = "apus.dev/proxy-cpu-request"
    package static let proxyMemoryRequest = "apus.dev/proxy-memory-request"
    package static let proxyCPULimit = "apus.dev/proxy-cpu-limit"
    package static let proxyMemoryLimit = "apus.dev/proxy-memory-limit"

    // On a Service.
    package static let retryCount = "apus.dev/retry-count"
    package static let retryStatuses = "apus.dev/retry-statuses"
    package static let retryGRPCStatuses = "apus.dev/retry-grpc-statuses"
    package static let retryTimeout = "apus.dev/retry-timeout-ms"
    package static let requestTimeout = "apus.dev/request-timeout-ms"
    package static let requestBodyLimit = "apus.dev/request-body-limit-bytes"
    package static let connectTimeout = "apus.dev/connect-timeout-ms"
    package static let loadBalancing = "apus.dev/load-balancing"

    // On a Namespace.
    package static let plaintext = "apus.dev/plaintext"
}

/// Where the mesh itself lives on either platform.
package enum MeshInstallation {
    package static let namespace = "apus-system"
    package static let controlName = "apus-control"
    package static let settingsName = "apus-settings"
    /// The ConfigMap with the roots that verify the mesh's identities, and its one key: certificates in PEM.
    package static let trustBundleName = "apus-trust-bundle"
    package static let trustBundleKey = "roots.pem"
}

/// A label or annotation whose value cannot be used.
package struct AnnotationProblem: Error, Hashable, Sendable, CustomStringConvertible {
    package let name: String
    package let value: String
    /// What a usable value is: «expected …» goes before it.
    package let expected: String

    package init(name: String, value: String, expected: String) {
        self.name = name
        self.value = value
        self.expected = expected
    }

    package var description: String { "\(name) is '\(value)', expected \(expected)" }
}

/// Comma-separated ports in an annotation: `3306,6379`.
package enum PortList {
    package static let limit = 64

    /// In the order given, without repetitions; an empty text is an empty list.
    package static func parse(_ text: String, annotation: String) throws(AnnotationProblem) -> [UInt16] {
        let problem = AnnotationProblem(
            name: annotation, value: text,
            expected: "at most \(limit) ports from 1 to 65535 with commas between them, such as 3306,6379")
        var ports: [UInt16] = []
        let trimmed = text.filter { $0 != " " }
        guard !trimmed.isEmpty else { return [] }
        for part in trimmed.split(separator: ",", omittingEmptySubsequences: false) {
            guard part.utf8.allSatisfy({ (48...57).contains($0) }), let port = UInt16(part), port > 0 else {
                throw problem
            }
            if !ports.contains(port) { ports.append(port) }
            guard ports.count <= limit else { throw problem }
        }
        return ports
    }
}
