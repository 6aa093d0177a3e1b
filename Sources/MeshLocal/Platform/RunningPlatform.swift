import Foundation
import Logging
import MeshAddress
import MeshKubernetes
import Synchronization

/// The parts of one platform and the order in which they begin and end.
struct RunningPlatform: Sendable {
    private let options: PlatformOptions
    private let directory: String
    private let log: Logger
    private let clock: StepClock
    private let store: ObjectStore
    private let api: LocalAPI
    private let server: APIServer
    private let network: BridgeNetwork
    private let pods: PodRunner
    private let capacity = NodeCapacity.ofThisMachine
    private let apiAddresses: [SocketAddress]

    init(
        _ options: PlatformOptions, directory: String, programs: String, spawner: ContainerSpawner,
        journal: PlatformJournal, log: Logger,
        clock: StepClock
    ) throws {
        self.options = options
        self.directory = directory
        self.log = log
        self.clock = clock
        network = try BridgeNetwork(options.network, spawner: spawner, journal: journal, log: log)
        store = try ObjectStore(directory: directory)
        api = try LocalAPI(
            store: store,
            settings: LocalAPISettings(
                nodeName: options.nodeName, serviceSubnet: options.network.serviceSubnet,
                clusterDomain: options.clusterDomain,
                version: options.version))
        apiAddresses = [SocketAddress(.loopback4, options.apiPort), SocketAddress(network.gateway, options.apiPort)]
        let access = PodAccessRelay()
        server = try APIServer(
            api: api, settings: APIServerSettings(listeners: apiAddresses, certificateNames: [options.nodeName]),
            access: access,
            logger: log)
        pods = PodRunner(
            platform: PodPlatform(
                api: api, tokens: api, spawner: spawner, network: network, journal: journal, log: log,
                nodeName: options.nodeName,
                clusterDomain: options.clusterDomain, dataDirectory: directory, binaryDirectory: programs,
                clusterCertificates: server.authorityPEM, apiAddress: SocketAddress(api.addresses.platform, 443),
                capacity: capacity,
                restartDelays: RestartDelays(
                    baseMilliseconds: options.restartBaseMilliseconds,
                    limitMilliseconds: options.restartLimitMilliseconds),
                volumeRefresh: options.volumeRefresh))
        access.set(pods)
        clock.done(.storage, "\(store.statistics.objects) objects")
    }

    func run(until stop: StopSignal) async throws {
        do {
            try await serve(until: stop)
            await network.close()
        } catch {
            await pods.shutDown(graceSeconds: 0)
            await network.close()
            throw error
        }
    }

    private func serve(until stop: StopSignal) async throws {
        try await network.setUp()
        clock.done(
            .network, "bridge \(options.network.bridge), pods \(network.podSubnet), services \(network.serviceSubnet)")
        let proxy = ServiceProxy(network)
        let records = DNSRecords(
            clusterDomain: options.clusterDomain, podSubnet: network.podSubnet, serviceSubnet: network.serviceSubnet)
        let services = ServiceCatalog(log: log) { key, entry in
            records.set(key, entry)
            await proxy.changed(key, entry)
        }
        let controllers = Controllers(
            api: api,
            settings: ControllerSettings(authorityPEM: server.authorityPEM, apiServers: [apiAddresses[1]]), logger: log)
        let node = NodeHeartbeat(
            api: api, name: options.nodeName, address: network.gateway, capacity: capacity, version: options.version,
            log: log)
        let dns = DNSServer(address: network.gateway, records: records, resolvers: HostResolvers(), log: log)

        try await withThrowingTaskGroup(of: Void.self) { group in
            defer {
                // Lets go whoever waits for the stop, on every way out.
                stop.request()
                group.cancelAll()
            }
            let failure = FirstFailure()
            let part: @Sendable (String, @escaping @Sendable () async throws -> Void) -> @Sendable () async -> Void = {
                name, body in
                {
                    do {
                        try await body()
                    } catch is CancellationError {
                    } catch {
                        failure.set(PlatformError("\(name): \(error)"))
                        stop.request()
                    }
                }
            }
            try await controllers.prepare()
            try await node.register()
            let listening = Gate(count: apiAddresses.count)
            group.addTask(
                operation: part("the API server cannot listen on port \(options.apiPort)") {
                    try await server.run { _ in listening.pass() }
                })
            group.addTask {
                await stop.wait(); listening.open()
            }
            await listening.wait()
            try failure.check()
            let kubeconfig = PlatformOptions.kubeconfigPath(dataDirectory: directory)
            try server.writeKubeconfig(to: kubeconfig, server: apiAddresses[0])
            clock.done(.apiServer, "https://\(apiAddresses[0]), kubeconfig \(kubeconfig)")

            group.addTask(operation: part("the controllers") { try await controllers.run() })
            let known = Gate(count: 1)
            group.addTask { await services.run(api) { known.pass() } }
            group.addTask {
                await stop.wait(); known.open()
            }
            await known.wait()
            try await dns.start()
            clock.done(.dns, "\(network.gateway):53")
            let synchronized = Gate(count: 1)
            group.addTask { await pods.run { synchronized.open() } }
            group.addTask { await node.run() }
            group.addTask {
                await stop.wait(); synchronized.open()
            }
            await synchronized.wait()
            if !stop.isRequested {
                clock.done(.pods, "\(await pods.podCount) to run")
                if !options.manifests.isEmpty {
                    try await ManifestApplication(api: api).apply(options.manifests)
                    clock.done(.manifests, "\(options.manifests.count) objects applied")
                }
                clock.done(.ready, "export KUBECONFIG=\(kubeconfig)")
            }

            await stop.wait()
            try await end(stop, node)
            await dns.shutDown()
            try failure.check()
        }
    }

    private func end(_ stop: StopSignal, _ node: NodeHeartbeat) async throws {
        clock.restart()
        clock.done(.stopping, "\(await pods.podCount) pods")
        let ending = Task { await pods.shutDown(graceSeconds: options.stopGraceSeconds) }
        let hurrying = Task {
            await stop.wait(count: 2)
            await pods.shutDown(graceSeconds: 0)
        }
        await ending.value
        stop.request()
        await hurrying.value
        try? await node.beat(isReady: false, began: .now)
    }
}

/// Stands for the pods where the API server is made before them.
private final class PodAccessRelay: PodAccess {
    private let target = Mutex<PodRunner?>(nil)

    func set(_ pods: PodRunner) { target.withLock { $0 = pods } }

    private func pods() throws -> PodRunner {
        guard let pods = target.withLock({ $0 }) else {
            throw StatusError(code: 503, reason: "ServiceUnavailable", message: "the platform is starting; try again")
        }
        return pods
    }

    func logs(of pod: PodReference, _ request: PodLogRequest) async throws -> AsyncThrowingStream<[UInt8], any Error> {
        try await pods().logs(of: pod, request)
    }

    func exec(
        in pod: PodReference, _ request: PodExecRequest, standardInput: AsyncStream<[UInt8]>,
        output: @escaping @Sendable (PodExecOutput) async throws -> Void
    ) async throws -> Int {
        try await pods().exec(in: pod, request, standardInput: standardInput, output: output)
    }

    func address(of pod: PodReference) async throws -> IPAddress? { try await pods().address(of: pod) }
}

/// Opens after so many passes, or at once when told to, and stays open.
private final class Gate: Sendable {
    private let state: Mutex<(missing: Int, waiters: [CheckedContinuation<Void, Never>])>

    init(count: Int) { state = Mutex((count, [])) }

    func pass() { lower(by: 1) }
    func open() { lower(by: .max) }

    private func lower(by count: Int) {
        let waiters = state.withLock { state in
            state.missing = max(0, state.missing - min(state.missing, count))
            guard state.missing == 0 else { return [CheckedContinuation<Void, Never>]() }
            defer { state.waiters = [] }
            return state.waiters
        }
        waiters.forEach { $0.resume() }
    }

    func wait() async {
        await withCheckedContinuation { continuation in
            let isOpen = state.withLock { state in
                if state.missing > 0 { state.waiters.append(continuation) }
                return state.missing == 0
            }
            if isOpen { continuation.resume() }
        }
    }
}

/// The first thing that went wrong, which is the one to tell.
private final class FirstFailure: Sendable {
    private let error = Mutex<PlatformError?>(nil)

    func set(_ new: PlatformError) { error.withLock { $0 = $0 ?? new } }
    func check() throws { if let error = error.withLock({ $0 }) { throw error } }
}
