import CSimulatedKernel
import MeshAddress
import MeshCore
import MeshIO
import MeshProxy
import Synchronization

/// One schedule: the real data plane on a simulated kernel (`CSimulatedKernel`), between clients and endpoints that misbehave. Who does what next,
/// how bytes are cut, and when time passes is decided by the seed alone.
final class Simulation {
    let seed: UInt64
    var random: ScheduleRandom
    private(set) var failures: [String] = []
    private(set) var isDraining = false
    /// How often which reply of the sidecar's own was seen.
    var refusals: [String: Int] = [:]
    /// Requests whose answer an endpoint has begun and broken off: their clients' connections are reset.
    var brokenOff: Set<Int> = []
    private(set) var requests = 0
    private var plane: DataPlane?
    private var servers: [SimulatedServer] = []
    private var peers: [any SimulatedPeer] = []
    private var clients: [SimulatedClient] = []
    private var deliveries: [Int: [Int]] = [:]
    private var methods: [Int: String] = [:]
    private var answers: [Int: Int] = [:]
    private var dialled: [Int32] = []
    private var connections: [(number: Int32, server: Int)] = []
    /// Nobody waits for a connection, or is refused one.
    private let isRoomy: Bool
    private let connectionLimit: Int
    private let retries: Int
    private var hasRemoval = false
    private var drainDeadline: Int64 = 0
    private let drained = Box<Drained>()
    private var startedAt: Int64 = 0
    private var lastAnswerAt: Int64 = 0

    private static let second: Int64 = 1_000_000_000

    init(seed: UInt64) {
        self.seed = seed
        random = ScheduleRandom(seed: seed)
        isRoomy = random.one(in: 4)
        connectionLimit = isRoomy ? 200 : random.within(1...4)
        retries = random.below(4)
    }

    var now: Int64 { apus_sim_now() }

    func fail(_ what: String) { failures.append("seed \(seed): \(what)") }

    /// What has happened, for whoever looks at a failure; kept only when asked for.
    private(set) var story: [String] = []
    var tellsStory = false

    func tell(_ what: @autoclosure () -> String) {
        if tellsStory { story.append("\((now - startedAt) / 1000) µs: \(what())") }
    }

    // MARK: - What the peers tell

    func delivered(_ request: Int, to server: SimulatedServer, method: String) {
        deliveries[request, default: []].append(server.index)
        methods[request] = method
        tell("request \(request) is at endpoint \(server.index)")
    }

    func dialled(_ number: Int32) { dialled.append(number) }

    func answered(_ request: Int) {
        answers[request, default: 0] += 1
        lastAnswerAt = now
    }

    // MARK: - A schedule

    func run() {
        apus_sim_begin(seed, 1000 * Simulation.second)
        startedAt = now
        lastAnswerAt = now
        do { try start() } catch { return fail("no data plane: \(error)") }
        guard apus_sim_await_park() != 0 else { return fail("the loop did not come to rest") }
        play(until: startedAt + 150 * Simulation.second)
        judge()
        stop()
    }

    private func start() throws {
        let count = random.within(1...3)
        let isCalm = random.one(in: 3)
        for index in 0..<count {
            servers.append(
                SimulatedServer(
                    index: index, address: 0x0a61_0001 + UInt32(index), port: UInt16(8080 + index),
                    isReliable: isCalm || random.one(in: 2), health: random.one(in: 6) ? 0 : random.within(50...100)))
        }
        // The application behind the inbound listener.
        servers.append(SimulatedServer(index: count, address: 0x7f00_0001, port: 9999, isReliable: false, health: 80))

        var configuration = DataPlane.Configuration(logger: TestMesh.logger)
        configuration.outbound = [
            .init(SocketAddress(.loopback4, 15001), destination: .fixed(TestMesh.serviceAddress))
        ]
        configuration.inbound = [
            .init(SocketAddress(.loopback4, 15006), destination: .fixed(SocketAddress(.loopback4, 9999)))
        ]
        configuration.upstreamConnections = connectionLimit
        configuration.upstreamWaiting = isRoomy ? 200 : random.within(1...8)
        apus_sim_enter()
        defer { apus_sim_leave() }
        let plane = try DataPlane(configuration)
        self.plane = plane
        var service = Service(
            name: TestMesh.serviceName, addresses: [TestMesh.serviceAddress.ip],
            ports: [ServicePort(port: 80, declaredProtocol: .http1)])
        service.retry = RetryPolicy(
            count: retries, statuses: random.one(in: 2) ? [503] : [],
            perTryTimeoutMilliseconds: random.one(in: 3) ? random.within(20...500) : nil)
        service.requestTimeoutMilliseconds = random.one(in: 2) ? random.within(50...3000) : nil
        service.connectTimeoutMilliseconds = random.within(10...1000)
        service.loadBalancing = LoadBalancing.allCases[random.below(LoadBalancing.allCases.count)]
        var own = TestMesh.configuration("checkout", nil, .permissive, unknown: .allow)
        // Declared, so that nothing is dialled before a request is there: what is dialled early is no pool's.
        own.workload.ports[9999] = .http1
        var changes: [SnapshotChange] = [.own(own), .service(service)]
        for server in servers.dropLast() { changes.append(.endpoint(endpoint(server))) }
        changes.append(.destination(TestMesh.serviceAddress, .service(service.name, port: 80)))
        plane.apply(changes)
        tell(
            "\(servers.count - 1) endpoints, \(connectionLimit) connections, \(service.retry), timeout \(service.requestTimeoutMilliseconds ?? 0)"
        )
        makeClients()
    }

    private func endpoint(_ server: SimulatedServer) -> Endpoint {
        Endpoint(
            service: TestMesh.serviceName, address: IPAddress(v4: server.address), targetPorts: [80: server.port],
            isReady: true)
    }

    private func makeClients() {
        // Now and then a storm, so that the retry budget has something to refuse.
        let count = random.one(in: 12) ? random.within(40...80) : random.within(1...8)
        for _ in 0..<count {
            let list = (0..<random.within(1...5)).map { _ -> SimulatedClient.Request in
                requests += 1
                let isPost = random.one(in: 3)
                let body = isPost ? random.one(in: 4) ? random.within(3000...100_000) : random.below(600) : 0
                return SimulatedClient.Request(number: requests, method: isPost ? "POST" : "GET", body: body)
            }
            let isInbound = random.one(in: 4)
            let client = SimulatedClient(
                self, port: isInbound ? 15006 : 15001, isInbound: isInbound, requests: list,
                at: now + random.milliseconds(0...(random.one(in: 3) ? 3000 : 20)))
            clients.append(client)
            peers.append(client)
        }
    }

    private func play(until end: Int64) {
        var disturbanceAt = random.one(in: 3) ? now + random.milliseconds(0...300) : .max
        var steps = 0
        while failures.isEmpty {
            steps += 1
            guard steps < 200_000 else { return fail("no end after \(steps) steps") }
            takeConnects()
            if steps % 32 == 0 { forgetWhatIsOver() }
            if now >= disturbanceAt {
                disturb()
                disturbanceAt = .max
            }
            let ready = peers.filter { ($0.due() ?? .max) <= now }
            let arriving = connections.map(\.number).filter { apus_sim_in_flight($0) > 0 } + clientArrivals()
            let isLoopDue = apus_sim_is_due() != 0
            let choices = ready.count + arriving.count + (isLoopDue ? 2 : 0)
            if choices == 0 {
                let next = min(min(apus_sim_deadline(), disturbanceAt), peers.compactMap { $0.due() }.min() ?? .max)
                guard next <= end else { return apus_sim_advance(end) }
                apus_sim_advance(next)
                continue
            }
            let choice = random.below(choices)
            if choice < ready.count {
                ready[choice].step(self)
            } else if choice < ready.count + arriving.count {
                let number = arriving[choice - ready.count]
                let count = apus_sim_in_flight(number)
                let part = random.one(in: 3) ? random.within(1...count) : count
                tell("\(part) of \(count) arrive on \(number)")
                apus_sim_deliver(number, part)
            } else {
                tell("the loop runs")
                guard apus_sim_run() != 0 else { return fail("the loop does not come to rest") }
                checkPools()
            }
        }
    }

    private func clientArrivals() -> [Int32] {
        dialled.filter { apus_sim_in_flight($0) > 0 }
    }

    private func forgetWhatIsOver() {
        peers.removeAll { $0.isOver }
        connections.removeAll { apus_sim_is_gone($0.number) != 0 }
        dialled.removeAll { apus_sim_is_gone($0) != 0 }
    }

    private func takeConnects() {
        var address: UInt32 = 0
        var port: UInt16 = 0
        while true {
            let number = apus_sim_next_connect(&address, &port)
            guard number >= 0 else { return }
            guard let server = servers.first(where: { $0.address == address && $0.port == port }) else {
                fail("a connection to \(String(address, radix: 16)):\(port), where nobody is")
                continue
            }
            tell("connection \(number) to endpoint \(server.index)")
            connections.append((number, server.index))
            peers.append(SimulatedServerConnection(server, number, self))
        }
    }

    /// An endpoint goes or comes back, or the sidecar drains.
    private func disturb() {
        apus_sim_enter()
        defer { apus_sim_leave() }
        let what = random.below(3)
        tell("disturbance \(what)")
        switch what {
        case 0:
            isDraining = true
            let milliseconds = random.within(10...5000)
            drainDeadline = now + Int64(milliseconds) * 1_000_000
            plane?.drain(deadlineMilliseconds: milliseconds) { [drained] left in
                drained.value.withLock { $0 = Drained(left: left, at: apus_sim_now()) }
            }
        case 1:
            hasRemoval = true
            let server = servers[random.below(servers.count - 1)]
            plane?.apply([.endpointRemoved(service: TestMesh.serviceName, address: IPAddress(v4: server.address))])
        default:
            hasRemoval = true
            var changed = endpoint(servers[random.below(servers.count - 1)])
            changed.isReady = false
            plane?.apply([.endpoint(changed)])
        }
    }

    // MARK: - What must hold

    /// The pool never has more connections to one endpoint than it may. Those that were given up and linger are not the pool's any more.
    private func checkPools() {
        for server in servers where !hasRemoval && used(server) > connectionLimit {
            guard let report = read({ plane, give in plane.report { give($0.first) } }) else { return }
            let count = used(server)
            guard count - report.eventLoop.lingeringConnections > connectionLimit else { continue }
            fail("\(count) connections to endpoint \(server.index), \(connectionLimit) are permitted")
        }
    }

    private func used(_ server: SimulatedServer) -> Int {
        connections.count { $0.server == server.index && apus_sim_is_used($0.number) != 0 }
    }

    private func judge() {
        guard failures.isEmpty else { return }
        for client in clients { client.settle(self) }
        for (request, count) in answers where count > 1 { fail("request \(request) was answered \(count) times") }
        for (request, tries) in deliveries {
            if methods[request] == "POST", tries.count > 1 {
                fail("request \(request), a POST, came to endpoints \(tries)")
            }
            if tries.count > 1 + retries + 3 {
                fail("request \(request) came to endpoints \(tries), \(retries) retries")
            }
        }
        judgeDrain()
        guard failures.isEmpty, let report = read({ plane, give in plane.report { give($0.first) } }) else { return }
        if report.requestsInFlight != 0 { fail("\(report.requestsInFlight) requests are in flight at the end") }
        if report.connections != 0 { fail("\(report.connections) connections are left at the end") }
        if apus_sim_descriptors() != 4 {
            fail("\(apus_sim_descriptors()) descriptors are open at the end, 4 should be")
        }
        let seconds = Int((lastAnswerAt - startedAt) / Simulation.second)
        // The service's budget and that of the application behind the inbound listener.
        let permitted = requests / 5 + 2 * RetryBudget.retriesPerSecond * (seconds + RetryBudget.windowSeconds)
        if !hasRemoval, report.counters.retries > permitted {
            fail("\(report.counters.retries) retries of \(requests) requests")
        }
        if isRoomy, !hasRemoval, report.counters.ejections == 0, servers.dropLast().allSatisfy(\.isReliable),
            servers.count > 2
        {
            for (request, tries) in deliveries.sorted(by: { $0.key < $1.key })
            where tries.count > 1 && tries[0] == tries[1] && tries[0] != servers.count - 1 {
                fail("request \(request) was tried at endpoint \(tries[0]) again before the others")
            }
        }
        if let dump = read({ plane, give in plane.dump { give($0.first) } }) {
            for upstream in dump.services.flatMap(\.targets).flatMap(\.upstreams)
            where upstream.pending != 0 || upstream.activeConnections != 0 || upstream.idleConnections != 0 {
                fail(
                    "\(upstream.address) has \(upstream.pending) pending, \(upstream.activeConnections) active at the end"
                )
            }
        }
    }

    /// A drain ends when nothing is in flight, or when its time is up.
    private func judgeDrain() {
        guard isDraining else { return }
        guard let end = drained.value.withLock({ $0 }) else { return fail("the drain does not end") }
        if end.left > 0, end.at < drainDeadline { fail("the drain ended early, with \(end.left) in flight") }
        if end.at > drainDeadline + 100_000_000 { fail("the drain ended late") }
    }

    /// Asks the loop, which has to run for that.
    private func read<Value: Sendable>(
        _ ask: (DataPlane, @escaping @Sendable (Value?) -> Void) -> Void
    ) -> Value? {
        guard let plane else { return nil }
        let answer = Box<Value>()
        ask(plane) { value in answer.value.withLock { $0 = value } }
        for _ in 0..<10 {
            if let value = answer.value.withLock({ $0 }) { return value }
            guard apus_sim_run() != 0 else { break }
        }
        fail("the loop does not answer")
        return nil
    }

    private struct Drained: Sendable {
        var left: Int
        var at: Int64
    }

    private final class Box<Value: Sendable>: Sendable {
        let value = Mutex<Value?>(nil)
    }

    private func stop() {
        plane?.stop()
        plane = nil
        if apus_sim_is_parked() != 0, apus_sim_run() == 0 { fail("the loop does not end") }
    }
}
