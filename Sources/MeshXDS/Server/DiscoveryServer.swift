internal import MeshAPI
package import MeshAddress
package import MeshCore
package import MeshHTTP
package import MeshIO

/// Serves delta xDS to sidecars on one loop, from what a `DiscoverySource` answers.
///
/// A change marks resources; streams are written at the end of the poll round (removals) or within 2 ms (the rest).
/// What a stream cannot take waits as a mark, never as a message: the latest wins.
package final class DiscoveryServer {
    package struct Limits: Sendable {
        /// Streams beyond it are refused.
        package var streams = 20_000
        /// A stream that does not acknowledge for so long is closed.
        package var acknowledgementTimeoutMilliseconds = 30_000
        /// How long additions and updates may wait for others.
        package var coalescingMilliseconds = 2
        /// Requests of one stream that may wait for the source to be synchronized.
        package var heldRequests = 64

        package init() {}
    }

    package struct Statistics: Sendable, Hashable {
        package var streamsOpened: UInt64 = 0
        package var streamsRefused: UInt64 = 0
        package var openStreams = 0
        /// Streams closed because they did not acknowledge in time.
        package var silentStreams: UInt64 = 0
        package var invalidRequests: UInt64 = 0
        package var changes: UInt64 = 0
        package var responses: UInt64 = 0
        package var resourcesSent: UInt64 = 0
        package var removalsSent: UInt64 = 0
        package var acknowledgements: UInt64 = 0
        package var strayAcknowledgements: UInt64 = 0
        package var refusals: UInt64 = 0
        /// Times that a stream had something to be sent and too much unacknowledged.
        package var waitsForAcknowledgement: UInt64 = 0
        package var oversizedResources: UInt64 = 0
    }

    let loop: EventLoop
    let limits: Limits
    weak var delegate: (any DiscoveryServerDelegate)?
    var table: DiscoveryTable
    private weak var source: (any DiscoverySource)?
    private let identify: (GRPCServerCall) -> SPIFFEID?
    private var streams: [UInt64: DiscoveryStream] = [:]
    private var streamsOpened: UInt64 = 0
    private var counts = Statistics()
    /// The change that events are added to until it is flushed.
    private var gathering: Change?
    private var flushTimer: LoopTimer?
    private var watchTimer: LoopTimer?
    /// Rotates who is written to first.
    private var rotation = 0

    /// - Parameter source: held weakly, as is `delegate`.
    package convenience init(
        loop: EventLoop, source: any DiscoverySource, delegate: any DiscoveryServerDelegate, limits: Limits = Limits()
    ) {
        self.init(
            loop: loop, source: source, delegate: delegate, limits: limits,
            identify: { CertificateIdentity.identity(uriSANs: $0.peerURISANs) })
    }

    /// With another way to learn who a peer is, for a test without certificates.
    package init(
        loop: EventLoop, source: any DiscoverySource, delegate: any DiscoveryServerDelegate, limits: Limits,
        identify: @escaping (GRPCServerCall) -> SPIFFEID?
    ) {
        self.loop = loop
        self.source = source
        self.delegate = delegate
        self.limits = limits
        self.identify = identify
        table = DiscoveryTable(source: source)
        flushTimer = LoopTimer(loop: loop, target: self, tag: DiscoveryServer.flushTag)
        let watchTimer = LoopTimer(loop: loop, target: self, tag: DiscoveryServer.watchTag)
        watchTimer.arm(afterMilliseconds: watchMilliseconds)
        self.watchTimer = watchTimer
    }

    package func register(on server: GRPCServer) {
        server.register(DiscoveryLimits.method) { [weak self] call in self?.accept(call) }
    }

    package var statistics: Statistics {
        var result = table.statistics
        result.streamsOpened = counts.streamsOpened
        result.streamsRefused = counts.streamsRefused
        result.openStreams = streams.count
        result.silentStreams = counts.silentStreams
        result.invalidRequests = counts.invalidRequests
        return result
    }

    package var subscribers: [DiscoverySubscriberStatus] {
        streams.values.compactMap(\.status)
    }

    /// Ends the streams of a pod, which is gone for instance.
    package func close(pod: ObjectName, reason: String) {
        for stream in Array(streams.values) where stream.subscriber?.pod == pod {
            stream.call.finish(GRPCStatus(.aborted, reason))
        }
    }

    // MARK: Changes

    /// A service or a pod took, changed or left this address.
    package func destinationsChanged(at ip: IPAddress, arrivedNanoseconds: UInt64) {
        apply(arrivedNanoseconds, isUrgent: false) { $0.destinationsChanged(at: ip, $1) }
    }

    /// It appeared, changed or is gone: the source is asked which.
    package func serviceChanged(_ name: ObjectName, arrivedNanoseconds: UInt64) {
        apply(arrivedNanoseconds, isUrgent: false) { $0.serviceChanged(name, $1) }
    }

    package func endpointChanged(_ endpoint: Endpoint, arrivedNanoseconds: UInt64) {
        apply(arrivedNanoseconds, isUrgent: !endpoint.isReady) { $0.endpointChanged(endpoint, $1) }
    }

    package func endpointRemoved(service: ObjectName, address: IPAddress, arrivedNanoseconds: UInt64) {
        apply(arrivedNanoseconds, isUrgent: true) { $0.endpointRemoved(service: service, address: address, $1) }
    }

    package func configurationChanged(of pod: ObjectName, arrivedNanoseconds: UInt64) {
        apply(arrivedNanoseconds, isUrgent: false) { $0.configurationChanged(of: pod, $1) }
    }

    package func trustBundlesChanged(arrivedNanoseconds: UInt64) {
        apply(arrivedNanoseconds, isUrgent: true) { $0.trustBundlesChanged($1) }
    }

    /// `source.isSynchronized` became true: what streams have asked meanwhile is answered.
    package func synchronized() {
        for stream in Array(streams.values) { stream.releaseHeldRequests() }
        loop.atEndOfRound(self)
    }

    private func apply(
        _ arrivedNanoseconds: UInt64, isUrgent: Bool, _ body: (inout DiscoveryTable, Change) -> Bool
    ) {
        assert(loop.isCurrent, "a change was announced on another thread")
        let change = gathering ?? Change(arrivedNanoseconds: arrivedNanoseconds)
        guard body(&table, change) else { return }
        change.arrivedNanoseconds = min(change.arrivedNanoseconds, arrivedNanoseconds)
        gathering = change
        if isUrgent {
            loop.atEndOfRound(self)
        } else if flushTimer?.isArmed == false {
            flushTimer?.arm(afterMilliseconds: limits.coalescingMilliseconds)
        }
    }

    // MARK: Streams

    private func accept(_ call: GRPCServerCall) -> (any GRPCServerHandler)? {
        guard streams.count < limits.streams else {
            counts.streamsRefused += 1
            call.finish(GRPCStatus(.resourceExhausted, "\(limits.streams) streams are open; try again later"))
            return nil
        }
        guard let identity = identify(call) else {
            counts.streamsRefused += 1
            call.finish(
                GRPCStatus(.unauthenticated, "the discovery stream needs a client certificate with one SPIFFE ID"))
            return nil
        }
        streamsOpened += 1
        counts.streamsOpened += 1
        let stream = DiscoveryStream(id: streamsOpened, call: call, identity: identity, server: self)
        streams[streamsOpened] = stream
        call.sendHead()
        return stream
    }

    var isSynchronized: Bool { source?.isSynchronized ?? false }

    func countInvalidRequest() {
        counts.invalidRequests += 1
    }

    func countRefusedStream() {
        counts.streamsRefused += 1
    }

    func closed(_ stream: DiscoveryStream) {
        streams[stream.id] = nil
        guard let subscriber = stream.subscriber else { return }
        let status = stream.status
        table.close(subscriber)
        if let status { delegate?.sidecarDisconnected(status) }
        tellConverged()
    }

    /// Something waits for this subscriber: it is written to at the end of the round.
    func flushSoon() {
        loop.atEndOfRound(self)
    }

    private func flush() {
        flushTimer?.cancel()
        if let change = gathering {
            gathering = nil
            table.seal(change)
        }
        let scheduled = table.takeScheduled()
        if !scheduled.isEmpty {
            rotation = (rotation &+ 1) % scheduled.count
            for index in scheduled.indices {
                let subscriber = scheduled[(index + rotation) % scheduled.count]
                streams[subscriber.id]?.pump()
            }
        }
        tellConverged()
    }

    func tellConverged() {
        for change in table.takeConverged() {
            let now = UInt64(max(0, MonotonicTime.now().nanoseconds))
            let elapsed = now > change.arrivedNanoseconds ? now - change.arrivedNanoseconds : 0
            delegate?.converged(nanoseconds: elapsed, subscribers: change.subscribers)
        }
    }

    private static let flushTag = 0
    private static let watchTag = 1
    private var watchMilliseconds: Int { min(5000, max(limits.acknowledgementTimeoutMilliseconds / 2, 1)) }

    private func closeSilentStreams() {
        let limit = Int64(limits.acknowledgementTimeoutMilliseconds) * 1_000_000
        for stream in Array(streams.values) {
            guard let oldest = stream.subscriber?.outstanding.first,
                loop.now.nanoseconds - oldest.sentNanoseconds > limit
            else { continue }
            counts.silentStreams += 1
            stream.call.finish(
                GRPCStatus(.aborted, "no acknowledgement in \(limits.acknowledgementTimeoutMilliseconds / 1000) s"))
        }
    }
}

extension DiscoveryServer: EndOfRoundTarget {
    package func endOfRound() { flush() }
}

extension DiscoveryServer: TimerTarget {
    package func timerFired(_ timer: LoopTimer) {
        if timer.tag == DiscoveryServer.flushTag {
            flush()
        } else {
            closeSilentStreams()
            timer.arm(afterMilliseconds: watchMilliseconds)
        }
    }
}
