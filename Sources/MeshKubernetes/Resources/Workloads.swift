extension Kubernetes {
    package struct Deployment: HasEmpty, Sendable {
        @OrEmpty package var apiVersion: String
        @OrEmpty package var kind: String
        @OrEmpty package var metadata: ObjectMeta
        @OrEmpty package var spec: DeploymentSpec
        @OrEmpty package var status: DeploymentStatus

        package init() {}
    }

    package struct DeploymentSpec: HasEmpty, Sendable {
        /// 1 when absent.
        package var replicas: Int?
        @OrEmpty package var selector: LabelSelector
        @OrEmpty package var template: PodTemplateSpec
        @OrEmpty package var strategy: DeploymentStrategy
        package var minReadySeconds: Int?
        package var revisionHistoryLimit: Int?
        package var progressDeadlineSeconds: Int?
        package var paused: Bool?

        package init() {}
    }

    package struct DeploymentStrategy: HasEmpty, Sendable {
        /// `RollingUpdate` when absent, or `Recreate`.
        package var type: String?
        package var rollingUpdate: RollingUpdate?

        package init() {}
    }

    package struct RollingUpdate: HasEmpty, Sendable {
        /// 25% when absent.
        package var maxSurge: IntOrString?
        /// 25% when absent.
        package var maxUnavailable: IntOrString?

        package init() {}
    }

    package struct DeploymentStatus: HasEmpty, Sendable {
        package var observedGeneration: Int?
        @OrEmpty package var replicas: Int
        @OrEmpty package var updatedReplicas: Int
        @OrEmpty package var readyReplicas: Int
        @OrEmpty package var availableReplicas: Int
        @OrEmpty package var unavailableReplicas: Int
        @OrEmpty package var conditions: [Condition]

        package init() {}
    }

    package struct ReplicaSet: HasEmpty, Sendable {
        @OrEmpty package var apiVersion: String
        @OrEmpty package var kind: String
        @OrEmpty package var metadata: ObjectMeta
        @OrEmpty package var spec: ReplicaSetSpec
        @OrEmpty package var status: ReplicaSetStatus

        package init() {}
    }

    package struct ReplicaSetSpec: HasEmpty, Sendable {
        package var replicas: Int?
        @OrEmpty package var selector: LabelSelector
        @OrEmpty package var template: PodTemplateSpec
        package var minReadySeconds: Int?

        package init() {}
    }

    package struct ReplicaSetStatus: HasEmpty, Sendable {
        package var observedGeneration: Int?
        @OrEmpty package var replicas: Int
        @OrEmpty package var fullyLabeledReplicas: Int
        @OrEmpty package var readyReplicas: Int
        @OrEmpty package var availableReplicas: Int
        @OrEmpty package var conditions: [Condition]

        package init() {}
    }

    package struct Job: HasEmpty, Sendable {
        @OrEmpty package var apiVersion: String
        @OrEmpty package var kind: String
        @OrEmpty package var metadata: ObjectMeta
        @OrEmpty package var spec: JobSpec
        @OrEmpty package var status: JobStatus

        package init() {}
    }

    package struct JobSpec: HasEmpty, Sendable {
        package var parallelism: Int?
        package var completions: Int?
        /// 6 when absent.
        package var backoffLimit: Int?
        package var activeDeadlineSeconds: Int?
        package var ttlSecondsAfterFinished: Int?
        package var suspend: Bool?
        package var completionMode: String?
        package var manualSelector: Bool?
        package var selector: LabelSelector?
        @OrEmpty package var template: PodTemplateSpec

        package init() {}
    }

    package struct JobStatus: HasEmpty, Sendable {
        @OrEmpty package var conditions: [Condition]
        package var startTime: KubernetesTime?
        package var completionTime: KubernetesTime?
        @OrEmpty package var active: Int
        @OrEmpty package var ready: Int
        @OrEmpty package var succeeded: Int
        @OrEmpty package var failed: Int

        package init() {}
    }
}
