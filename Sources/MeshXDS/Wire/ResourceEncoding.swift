package import FoundationEssentials
package import MeshAPI
package import MeshAddress
package import MeshCore
package import SwiftProtobuf

/// Core's values as messages of `proto/apus/v1`. Lists that have no order of their own are sorted, so that equal values
/// are equal bytes.
package enum ResourceEncoding {
    package static func bytes(_ message: some Message) -> [UInt8] {
        // Only a message with missing required fields (proto2) cannot be written.
        (try? message.serializedBytes() as [UInt8]) ?? []
    }

    package static func encode(_ name: ObjectName) -> Apus_V1_ObjectName {
        .with {
            $0.namespace = name.namespace
            $0.name = name.name
        }
    }

    /// 4 or 16 bytes.
    package static func data(_ address: IPAddress) -> Data {
        Data(address.isV4 ? Array(address.bytes[12...]) : address.bytes)
    }

    package static func encode(_ value: ApplicationProtocol?) -> Apus_V1_ApplicationProtocol {
        switch value {
        case nil: .unspecified
        case .http1: .http1
        case .http2: .http2
        case .grpc: .grpc
        case .tls: .tls
        case .opaque: .opaque
        }
    }

    package static func encode(_ value: LearnedProtocol?) -> Apus_V1_LearnedProtocol {
        switch value {
        case nil: .unspecified
        case .http1: .http1
        case .http2: .http2
        case .tls: .tls
        case .opaque: .opaque
        case .serverFirst: .serverFirst
        }
    }

    package static func encode(_ ports: [UInt16: LearnedProtocol]) -> [Apus_V1_LearnedPort] {
        ports.sorted { $0.key < $1.key }.map { port, learned in
            .with {
                $0.port = UInt32(port)
                $0.protocol = encode(learned)
            }
        }
    }

    package static func encode(_ destination: Destination) -> Apus_V1_Destination {
        .with {
            switch destination {
            case .service(let name, let port):
                $0.service = .with {
                    $0.service = encode(name)
                    $0.port = UInt32(port)
                }
            case .workload(let workload):
                $0.workload = encode(workload)
            case .unknown:
                $0.unknown = Apus_V1_Destination.Unknown()
            }
        }
    }

    package static func encode(_ service: Service) -> Apus_V1_Service {
        .with {
            $0.name = encode(service.name)
            $0.addresses = service.addresses.map { data($0) }
            $0.ports = service.ports.map { port in
                .with {
                    $0.port = UInt32(port.port)
                    $0.name = port.name
                    $0.declaredProtocol = encode(port.declaredProtocol)
                    $0.learnedProtocol = encode(port.learnedProtocol)
                }
            }
            $0.retry = .with {
                $0.count = UInt32(clamping: service.retry.count)
                $0.statuses = service.retry.statuses.sorted().map { UInt32(clamping: $0) }
                $0.grpcStatuses = service.retry.grpcStatuses.sorted().map { UInt32($0) }
                if let timeout = service.retry.perTryTimeoutMilliseconds {
                    $0.perTryTimeoutMilliseconds = UInt32(clamping: timeout)
                }
            }
            if let limit = service.requestBodyLimitBytes { $0.requestBodyLimitBytes = limit }
            if let timeout = service.requestTimeoutMilliseconds {
                $0.requestTimeoutMilliseconds = UInt32(clamping: timeout)
            }
            $0.connectTimeoutMilliseconds = UInt32(clamping: service.connectTimeoutMilliseconds)
            $0.loadBalancing =
                switch service.loadBalancing {
                case .peakEWMA: .peakEwma
                case .roundRobin: .roundRobin
                case .random: .random
                }
        }
    }

    package static func encode(_ endpoint: Endpoint) -> Apus_V1_Endpoint {
        .with {
            $0.service = encode(endpoint.service)
            $0.address = data(endpoint.address)
            $0.targetPorts = endpoint.targetPorts.sorted { $0.key < $1.key }.map { servicePort, port in
                .with {
                    $0.servicePort = UInt32(servicePort)
                    $0.port = UInt32(port)
                }
            }
            $0.isReady = endpoint.isReady
            if let workload = endpoint.workload { $0.workload = encode(workload) }
        }
    }

    package static func encode(_ workload: Workload) -> Apus_V1_Workload {
        .with {
            $0.pod = encode(workload.pod)
            $0.addresses = workload.addresses.map { data($0) }
            $0.identity = workload.identity?.description ?? ""
            $0.isMeshed = workload.isMeshed
            $0.isTerminating = workload.isTerminating
            $0.owner = workload.owner
            $0.app = workload.app
            $0.version = workload.version
            $0.node = workload.node
            $0.ports = workload.ports.sorted { $0.key < $1.key }.map { port, applicationProtocol in
                .with {
                    $0.port = UInt32(port)
                    $0.protocol = encode(applicationProtocol)
                }
            }
            if let service = workload.service { $0.service = encode(service) }
            $0.skippedInboundPorts = workload.skippedInboundPorts.sorted().map { UInt32($0) }
            $0.learnedPorts = encode(workload.learnedPorts)
        }
    }

    package static func encode(_ configuration: SidecarConfiguration) -> Apus_V1_Self {
        .with {
            $0.workload = encode(configuration.workload)
            $0.trustDomain = configuration.trustDomain
            $0.plaintext =
                switch configuration.plaintext {
                case .strict: .strict
                case .permissive: .permissive
                }
            $0.unknownDestinations =
                switch configuration.unknownDestinations {
                case .allow: .allow
                case .deny: .deny
                }
        }
    }

    package static func encode(_ bundle: TrustBundle) -> Apus_V1_TrustBundle {
        .with {
            $0.trustDomain = bundle.trustDomain
            $0.roots = bundle.roots.map { Data($0) }
        }
    }
}
