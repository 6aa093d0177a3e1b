package import Logging
package import MeshAddress

/// What the controllers have to know beyond the API.
package struct ControllerSettings: Sendable {
    /// What pods trust the API server by, for `kube-root-ca.crt`.
    package var authorityPEM: String
    /// Where pods reach the API server: the endpoints of the `kubernetes` Service.
    package var apiServers: [SocketAddress]
    /// The wait before a Job's failed pod is made anew; it doubles with each failure, up to six minutes.
    package var jobBackoffMilliseconds: Int64

    package init(authorityPEM: String, apiServers: [SocketAddress], jobBackoffMilliseconds: Int64 = 10_000) {
        self.authorityPEM = authorityPEM
        self.apiServers = apiServers
        self.jobBackoffMilliseconds = jobBackoffMilliseconds
    }
}

/// Everything that brings objects from what they say to what is: Deployments, Jobs, slices, namespaces, accounts, garbage.
package struct Controllers: Sendable {
    private let api: LocalAPI
    private let settings: ControllerSettings
    private let logger: Logger

    package init(api: LocalAPI, settings: ControllerSettings, logger: Logger) {
        self.api = api
        self.settings = settings
        self.logger = logger
    }

    /// Makes what has to be there before anything else: the permanent namespaces and the `kubernetes` Service.
    package func prepare() async throws {
        try await PlatformObjects(api: api).install(apiServers: settings.apiServers)
    }

    /// Runs until cancelled.
    package func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { [api, settings, logger] group in
            group.addTask { try await DeploymentController(api: api, logger: logger).run() }
            group.addTask { try await ReplicaSetController(api: api, logger: logger).run() }
            group.addTask {
                try await JobController(api: api, logger: logger, backoffMilliseconds: settings.jobBackoffMilliseconds)
                    .run()
            }
            group.addTask { try await EndpointSliceController(api: api, logger: logger).run() }
            group.addTask { try await NamespaceController(api: api, logger: logger).run() }
            group.addTask {
                try await ServiceAccountController(api: api, authorityPEM: settings.authorityPEM, logger: logger).run()
            }
            group.addTask { try await GarbageCollector(api: api, logger: logger).run() }
            group.addTask { try await EventExpiry(api: api).run() }
            defer { group.cancelAll() }
            try await group.next()
        }
    }
}
