extension Kubernetes {
    package struct Pod: HasEmpty, Sendable {
        @OrEmpty package var apiVersion: String
        @OrEmpty package var kind: String
        @OrEmpty package var metadata: ObjectMeta
        @OrEmpty package var spec: PodSpec
        @OrEmpty package var status: PodStatus

        package init() {}
    }

    package struct PodTemplateSpec: HasEmpty, Sendable {
        @OrEmpty package var metadata: ObjectMeta
        @OrEmpty package var spec: PodSpec

        package init() {}
    }

    package struct PodSpec: HasEmpty, Sendable {
        @OrEmpty package var initContainers: [Container]
        @OrEmpty package var containers: [Container]
        @OrEmpty package var volumes: [Volume]
        /// `Always`, `OnFailure` or `Never`.
        package var restartPolicy: String?
        package var terminationGracePeriodSeconds: Int?
        package var activeDeadlineSeconds: Int?
        package var dnsPolicy: String?
        package var dnsConfig: PodDNSConfig?
        package var serviceAccountName: String?
        package var automountServiceAccountToken: Bool?
        package var nodeName: String?
        @OrEmpty package var nodeSelector: [String: String]
        package var hostNetwork: Bool?
        package var hostPID: Bool?
        package var hostIPC: Bool?
        package var shareProcessNamespace: Bool?
        package var securityContext: PodSecurityContext?
        package var hostname: String?
        package var subdomain: String?
        package var setHostnameAsFQDN: Bool?
        @OrEmpty package var hostAliases: [HostAlias]
        package var enableServiceLinks: Bool?
        package var schedulerName: String?
        package var priorityClassName: String?
        package var runtimeClassName: String?

        package init() {}
    }

    package struct HostAlias: HasEmpty, Sendable {
        @OrEmpty package var ip: String
        @OrEmpty package var hostnames: [String]

        package init() {}
    }

    package struct PodDNSConfig: HasEmpty, Sendable {
        @OrEmpty package var nameservers: [String]
        @OrEmpty package var searches: [String]
        @OrEmpty package var options: [PodDNSOption]

        package init() {}
    }

    package struct PodDNSOption: HasEmpty, Sendable {
        @OrEmpty package var name: String
        package var value: String?

        package init() {}
    }

    package struct PodSecurityContext: HasEmpty, Sendable {
        package var runAsUser: Int?
        package var runAsGroup: Int?
        package var runAsNonRoot: Bool?
        package var fsGroup: Int?
        package var fsGroupChangePolicy: String?
        @OrEmpty package var supplementalGroups: [Int]
        @OrEmpty package var sysctls: [NameAndValue]
        package var seccompProfile: JSONValue?

        package init() {}
    }

    package struct NameAndValue: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var value: String

        package init() {}
    }
}

// MARK: - Status

extension Kubernetes {
    package struct PodStatus: HasEmpty, Sendable {
        /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
        @OrEmpty package var phase: String
        @OrEmpty package var conditions: [Condition]
        @OrEmpty package var reason: String
        @OrEmpty package var message: String
        @OrEmpty package var hostIP: String
        @OrEmpty package var hostIPs: [PodIP]
        @OrEmpty package var podIP: String
        @OrEmpty package var podIPs: [PodIP]
        package var startTime: KubernetesTime?
        @OrEmpty package var initContainerStatuses: [ContainerStatus]
        @OrEmpty package var containerStatuses: [ContainerStatus]
        package var qosClass: String?
        package var observedGeneration: Int?

        package init() {}

        package func condition(_ type: String) -> Condition? { conditions.first { $0.type == type } }
        package var isReady: Bool { condition("Ready")?.isTrue == true }
    }

    package struct PodIP: HasEmpty, Sendable {
        @OrEmpty package var ip: String

        package init() {}
        package init(_ ip: String) { self.ip = ip }
    }

    package struct ContainerStatus: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var state: ContainerState
        @OrEmpty package var lastState: ContainerState
        @OrEmpty package var ready: Bool
        @OrEmpty package var restartCount: Int
        @OrEmpty package var image: String
        @OrEmpty package var imageID: String
        @OrEmpty package var containerID: String
        package var started: Bool?

        package init() {}
    }

    /// One of the three, or none.
    package struct ContainerState: HasEmpty, Sendable {
        package var waiting: ContainerStateWaiting?
        package var running: ContainerStateRunning?
        package var terminated: ContainerStateTerminated?

        package init() {}
    }

    package struct ContainerStateWaiting: HasEmpty, Sendable {
        @OrEmpty package var reason: String
        @OrEmpty package var message: String

        package init() {}
    }

    package struct ContainerStateRunning: HasEmpty, Sendable {
        package var startedAt: KubernetesTime?

        package init() {}
    }

    package struct ContainerStateTerminated: HasEmpty, Sendable {
        @OrEmpty package var exitCode: Int
        package var signal: Int?
        @OrEmpty package var reason: String
        @OrEmpty package var message: String
        package var startedAt: KubernetesTime?
        package var finishedAt: KubernetesTime?
        @OrEmpty package var containerID: String

        package init() {}
    }
}
