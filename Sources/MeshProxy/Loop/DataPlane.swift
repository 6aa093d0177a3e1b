import Dispatch
package import Logging
package import MeshAddress
package import MeshCore
package import MeshIO
package import MeshTelemetry
import Synchronization

/// The sidecar's data path: as many loops as it is given cores, each with listeners, connections and a view of the mesh of
/// its own. Every method may be called on any thread; what it says takes effect on the loops soon, in the order of the calls.
package final class DataPlane: Sendable {
    package struct ListenerConfiguration: Sendable, Hashable {
        package var address: SocketAddress
        package var destination: DestinationSource

        package init(_ address: SocketAddress, destination: DestinationSource = .redirection) {
            self.address = address
            self.destination = destination
        }
    }

    package struct Configuration: Sendable {
        package var loops = 1
        /// What the application dials is redirected here.
        package var outbound: [ListenerConfiguration] = [ListenerConfiguration(SocketAddress(.any6, 15001))]
        /// What others dial in this pod is redirected here.
        package var inbound: [ListenerConfiguration] = [ListenerConfiguration(SocketAddress(.any6, 15006))]
        /// Of callers accepted before the control plane has said more.
        package var trustDomain = "cluster.local"
        /// Ports of the application that are relayed as bytes whatever they speak.
        package var opaquePorts: Set<UInt16> = []
        /// Nil leaves every destination unknown that no change has named.
        package var resolver: (any DestinationResolver)?
        package var deadlines = Deadlines()
        package var logger: Logger
        /// Nil leaves requests unlogged.
        package var accessLog: (format: AccessLogFormat, writer: any AccessLogWriter)?

        var pool = ConnectionPoolState<UpstreamConnection, HTTPRelay>.Limits()
        /// Connections that one loop may have to one endpoint, and requests that may wait for one.
        package var upstreamConnections: Int {
            get { pool.connections }
            set { pool.connections = newValue }
        }
        package var upstreamWaiting: Int {
            get { pool.waiting }
            set { pool.waiting = newValue }
        }

        package init(logger: Logger) {
            self.logger = logger
        }
    }

    package struct Deadlines: Sendable, Hashable {
        /// From the first byte of a request to the end of its head; then 408.
        package var headMilliseconds = 30_000
        /// A pause within a request's body while nothing of the answer has come; then 408.
        package var bodyMilliseconds = 60_000
        /// A client's connection without a request.
        package var idleMilliseconds = 300_000
        /// A byte connection, or an exchange of HTTP/1, on which nothing moves.
        package var byteIdleMilliseconds = 3_600_000
        /// A caller's wait for the answer to an unknown destination.
        package var destinationMilliseconds = 2_000

        package init() {}
    }

    private let loops: [(events: EventLoop, proxy: LoopBound<ProxyLoop>)]
    /// Where it listens, in the order of the configuration, with the real ports.
    package let outboundAddresses: [SocketAddress]
    package let inboundAddresses: [SocketAddress]

    /// Starts the loops and listens. Throws when an address cannot be listened on; nothing is left running then.
    package init(_ configuration: Configuration) throws(SystemError) {
        var loops: [(events: EventLoop, proxy: LoopBound<ProxyLoop>)] = []
        var outbound = configuration.outbound
        var inbound = configuration.inbound
        let count = max(1, configuration.loops)
        do throws(SystemError) {
            for index in 0..<count {
                let events = try EventLoop(name: "data-\(index)")
                let started = try DataPlane.start(
                    events, index, configuration, outbound, inbound, reusePort: count > 1)
                loops.append((events, started.proxy))
                for (place, address) in started.outbound.enumerated() { outbound[place].address = address }
                for (place, address) in started.inbound.enumerated() { inbound[place].address = address }
            }
        } catch {
            for loop in loops { loop.events.stop() }
            throw error
        }
        self.loops = loops
        outboundAddresses = outbound.map(\.address)
        inboundAddresses = inbound.map(\.address)
    }

    private struct Started: Sendable {
        let proxy: LoopBound<ProxyLoop>
        let outbound: [SocketAddress]
        let inbound: [SocketAddress]
    }

    /// Makes a loop's half on the loop's own thread and waits for it.
    private static func start(
        _ events: EventLoop, _ index: Int, _ configuration: Configuration, _ outbound: [ListenerConfiguration],
        _ inbound: [ListenerConfiguration], reusePort: Bool
    ) throws(SystemError) -> Started {
        let result = Handover<Result<Started, SystemError>>()
        try LoopThread.run(events) {
            let proxy = ProxyLoop(eventLoop: events, index: index, configuration: configuration)
            do throws(SystemError) {
                let addresses = try proxy.listen(outbound: outbound, inbound: inbound, reusePort: reusePort)
                let bound = LoopBound(proxy, loop: events)
                result.give(
                    .success(Started(proxy: bound, outbound: addresses.outbound, inbound: addresses.inbound)))
                return bound
            } catch {
                proxy.stopAccepting()
                result.give(.failure(error))
                return nil
            }
        }
        return try result.take().get()
    }

    // MARK: - What it believes

    /// Takes effect on each loop as a whole, between two of its rounds.
    package func apply(_ changes: [SnapshotChange]) {
        for loop in loops { loop.events.submit { loop.proxy.value.apply(changes) } }
    }

    /// Replaces this pod's certificate and the roots that peers are verified against. Connections that stand keep theirs.
    package func use(_ identity: TLSContext.Identity, trustRoots: [[UInt8]]) throws(TLSFailure) {
        let client = try TLSContext.client(identity: identity, trustRoots: trustRoots, alpn: [MeshProtocol.alpn])
        let server = try TLSContext.server(
            identity: identity, trustRoots: trustRoots, clientCertificate: .required, alpn: [MeshProtocol.alpn])
        for loop in loops { loop.events.submit { loop.proxy.value.use(client: client, server: server) } }
    }

    // MARK: - Ending

    /// Tells those who are connected to this pod to go elsewhere; who comes all the same is served.
    package func beginDrain() {
        for loop in loops { loop.events.submit { loop.proxy.value.beginDrain() } }
    }

    /// Ends inbound connections as their requests end, and waits until nothing is in flight or the deadline has come. New
    /// connections are still served. `completion` gets how many were left, on a data loop.
    package func drain(deadlineMilliseconds: Int, completion: @escaping @Sendable (_ leftInFlight: Int) -> Void) {
        let gathering = Gathering<Int>(count: loops.count) { completion($0.reduce(0, +)) }
        for loop in loops {
            let accepted = loop.events.submit {
                loop.proxy.value.startDrain(deadlineMilliseconds: deadlineMilliseconds) { gathering.add($0) }
            }
            if !accepted { gathering.add(0) }
        }
    }

    /// Closes the listeners and every connection, and ends the loops.
    package func stop() {
        for loop in loops { loop.events.stop() }
    }

    deinit { stop() }

    // MARK: - Reading it

    /// One report per loop, read on it. `completion` runs on a data loop; loops that have ended are left out.
    package func report(completion: @escaping @Sendable ([LoopReport]) -> Void) {
        gather(completion) { $0.report }
    }

    /// What each loop believes, for the configuration dump.
    package func dump(completion: @escaping @Sendable ([SnapshotDump]) -> Void) {
        gather(completion) { $0.snapshot.dump }
    }

    /// What happened on each loop since the last call. Whoever calls it owns the deltas: there can be one such reader.
    package func takeTelemetry(completion: @escaping @Sendable ([LoopTelemetry]) -> Void) {
        gather(completion) { $0.takeTelemetry() }
    }

    /// Everything counted since the start, summed over the loops.
    package func metrics(completion: @escaping @Sendable (MetricsSnapshot) -> Void) {
        gather({ completion(MetricsSnapshot.merged($0)) }, { $0.metrics.snapshot() })
    }

    private func gather<Value: Sendable>(
        _ completion: @escaping @Sendable ([Value]) -> Void, _ read: @escaping @Sendable (ProxyLoop) -> Value
    ) {
        let gathering = Gathering<[Value]>(count: loops.count) { completion($0.flatMap { $0 }) }
        for loop in loops {
            let accepted = loop.events.submit { gathering.add([read(loop.proxy.value)]) }
            if !accepted { gathering.add([]) }
        }
    }
}

/// What a loop says about itself.
package struct LoopReport: Sendable {
    package let counters: LoopCounters
    /// Lines that the writer did not take.
    package let accessLogDropped: UInt64
    package let eventLoop: LoopStatistics
    package let requestsInFlight: Int
    /// Everything that lives on the loop: clients' connections, pooled connections, relays.
    package let connections: Int
    package let waitingCallers: Int
    package let changesApplied: UInt64
}

/// What happened on a loop, for the control plane.
package struct LoopTelemetry: Sendable {
    package let edges: [EdgeReport]
    /// Every ejection in force.
    package let ejections: [Ejection]
    /// What the pod's own ports turned out to speak, where nothing is declared.
    package let learnedPorts: [UInt16: LearnedProtocol]
}

/// An endpoint that a loop takes out of balancing.
package struct Ejection: Sendable, Hashable {
    package let service: ObjectName
    package let port: UInt16
    package let address: SocketAddress
    package let pod: ObjectName?
    package let sinceUnixMilliseconds: Int64
    package let cause: EndpointHealth.Cause
}

/// A value that one thread makes and another waits for.
final class Handover<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    private let given = DispatchSemaphore(value: 0)

    func give(_ value: Value) {
        self.value.withLock { $0 = value }
        given.signal()
    }

    func take() -> Value {
        while true {
            given.wait()
            if let value = value.withLock({ $0 }) { return value }
        }
    }
}

/// Values that several loops give, told together when the last is there.
private final class Gathering<Value: Sendable>: Sendable {
    private let values = Mutex<[Value]>([])
    private let count: Int
    private let completion: @Sendable ([Value]) -> Void

    init(count: Int, completion: @escaping @Sendable ([Value]) -> Void) {
        self.count = count
        self.completion = completion
    }

    func add(_ value: Value) {
        let complete = values.withLock { values -> [Value]? in
            values.append(value)
            return values.count == count ? values : nil
        }
        if let complete { completion(complete) }
    }
}
