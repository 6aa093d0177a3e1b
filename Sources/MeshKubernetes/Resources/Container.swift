extension Kubernetes {
    package struct Container: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var image: String
        package var imagePullPolicy: String?
        @OrEmpty package var command: [String]
        @OrEmpty package var args: [String]
        package var workingDir: String?
        @OrEmpty package var ports: [ContainerPort]
        @OrEmpty package var env: [EnvVar]
        @OrEmpty package var envFrom: [EnvFromSource]
        @OrEmpty package var resources: ResourceRequirements
        @OrEmpty package var volumeMounts: [VolumeMount]
        package var livenessProbe: Probe?
        package var readinessProbe: Probe?
        package var startupProbe: Probe?
        package var lifecycle: Lifecycle?
        package var securityContext: SecurityContext?
        /// `Always` on an init container makes it a native sidecar.
        package var restartPolicy: String?
        package var terminationMessagePath: String?
        package var terminationMessagePolicy: String?
        package var stdin: Bool?
        package var stdinOnce: Bool?
        package var tty: Bool?

        package init() {}

        package var isNativeSidecar: Bool { restartPolicy == "Always" }
    }

    package struct ContainerPort: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var containerPort: Int
        package var hostPort: Int?
        package var hostIP: String?
        /// `TCP` when absent.
        package var `protocol`: String?

        package init() {}
    }

    package struct EnvVar: HasEmpty, Sendable {
        @OrEmpty package var name: String
        package var value: String?
        package var valueFrom: EnvVarSource?

        package init() {}
    }

    package struct EnvVarSource: HasEmpty, Sendable {
        package var fieldRef: ObjectFieldSelector?
        package var resourceFieldRef: ResourceFieldSelector?
        package var configMapKeyRef: KeySelector?
        package var secretKeyRef: KeySelector?

        package init() {}
    }

    package struct ObjectFieldSelector: HasEmpty, Sendable {
        package var apiVersion: String?
        @OrEmpty package var fieldPath: String

        package init() {}
    }

    package struct ResourceFieldSelector: HasEmpty, Sendable {
        package var containerName: String?
        @OrEmpty package var resource: String
        package var divisor: Quantity?

        package init() {}
    }

    /// A key of a ConfigMap or Secret.
    package struct KeySelector: HasEmpty, Sendable {
        @OrEmpty package var name: String
        @OrEmpty package var key: String
        package var optional: Bool?

        package init() {}
    }

    package struct EnvFromSource: HasEmpty, Sendable {
        @OrEmpty package var prefix: String
        package var configMapRef: OptionalReference?
        package var secretRef: OptionalReference?

        package init() {}
    }

    /// A ConfigMap or Secret that may be allowed to be absent.
    package struct OptionalReference: HasEmpty, Sendable {
        @OrEmpty package var name: String
        package var optional: Bool?

        package init() {}
    }

    package struct ResourceRequirements: HasEmpty, Sendable {
        @OrEmpty package var limits: [String: Quantity]
        @OrEmpty package var requests: [String: Quantity]

        package init() {}
    }

    package struct SecurityContext: HasEmpty, Sendable {
        package var runAsUser: Int?
        package var runAsGroup: Int?
        package var runAsNonRoot: Bool?
        package var readOnlyRootFilesystem: Bool?
        package var allowPrivilegeEscalation: Bool?
        package var privileged: Bool?
        package var capabilities: Capabilities?
        package var seccompProfile: JSONValue?
        package var procMount: String?

        package init() {}
    }

    package struct Capabilities: HasEmpty, Sendable {
        @OrEmpty package var add: [String]
        @OrEmpty package var drop: [String]

        package init() {}
    }
}

// MARK: - Probes and lifecycle

extension Kubernetes {
    package struct Probe: HasEmpty, Sendable {
        package var exec: ExecAction?
        package var httpGet: HTTPGetAction?
        package var tcpSocket: TCPSocketAction?
        package var grpc: GRPCAction?
        /// 0 when absent.
        package var initialDelaySeconds: Int?
        /// 1 when absent.
        package var timeoutSeconds: Int?
        /// 10 when absent.
        package var periodSeconds: Int?
        /// 1 when absent.
        package var successThreshold: Int?
        /// 3 when absent.
        package var failureThreshold: Int?
        package var terminationGracePeriodSeconds: Int?

        package init() {}
    }

    package struct ExecAction: HasEmpty, Sendable {
        @OrEmpty package var command: [String]

        package init() {}
    }

    package struct HTTPGetAction: HasEmpty, Sendable {
        /// `/` when absent.
        package var path: String?
        package var port: IntOrString = .int(0)
        /// The pod's address when absent.
        package var host: String?
        /// `HTTP` when absent, or `HTTPS`.
        package var scheme: String?
        @OrEmpty package var httpHeaders: [NameAndValue]

        package init() {}
    }

    package struct TCPSocketAction: HasEmpty, Sendable {
        package var port: IntOrString = .int(0)
        package var host: String?

        package init() {}
    }

    package struct GRPCAction: HasEmpty, Sendable {
        @OrEmpty package var port: Int
        package var service: String?

        package init() {}
    }

    package struct Lifecycle: HasEmpty, Sendable {
        package var postStart: LifecycleHandler?
        package var preStop: LifecycleHandler?

        package init() {}
    }

    package struct LifecycleHandler: HasEmpty, Sendable {
        package var exec: ExecAction?
        package var httpGet: HTTPGetAction?
        package var tcpSocket: TCPSocketAction?
        package var sleep: SleepAction?

        package init() {}
    }

    package struct SleepAction: HasEmpty, Sendable {
        @OrEmpty package var seconds: Int

        package init() {}
    }
}
