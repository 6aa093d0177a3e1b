internal import MeshAPI
package import MeshAddress
package import MeshCore
package import MeshHTTP
package import MeshIO

/// A sidecar's end of the discovery stream: subscribes to what its application dials and keeps the answers fresh.
///
/// The last known state is kept in a file, so that a sidecar that starts while the control plane is away still knows
/// its way.
package final class DiscoveryClient {
    package struct Limits: Sendable {
        package var subscriptions = DiscoveryLimits.subscriptions
        /// An address that nobody dialled for so long is unsubscribed from.
        package var idleMilliseconds = 600_000
        /// How often idleness is looked at.
        package var sweepMilliseconds = 60_000
        /// How long changes of the state may wait to be written to the file.
        package var saveMilliseconds = 1000

        package init() {}
    }

    package struct Statistics: Sendable, Hashable {
        package var streams: UInt64 = 0
        package var responses: UInt64 = 0
        package var resources: UInt64 = 0
        package var removals: UInt64 = 0
        package var refusals: UInt64 = 0
        package var overLimit: UInt64 = 0
        /// Destinations asked for again because their service did not come.
        package var repeatedSubscriptions: UInt64 = 0
        package var subscriptions = 0
        package var services = 0
        package var stateWrites: UInt64 = 0
        package var stateFailures: UInt64 = 0
    }

    private let loop: EventLoop
    private let channel: ControlChannel
    private let pod: ObjectName
    private let version: String
    private let statePath: String?
    private let limits: Limits
    private weak var delegate: (any DiscoveryClientDelegate)?

    private var view: DiscoveryView
    private var lastUsed: [SocketAddress: MonotonicTime] = [:]
    private var call: GRPCClientCall?
    private var session: HTTP2Session?
    private var toSubscribe: Set<SocketAddress> = []
    private var toUnsubscribe: Set<SocketAddress> = []
    private var backoff: Backoff
    private var retryTimer: LoopTimer?
    private var sweepTimer: LoopTimer?
    private var saveTimer: LoopTimer?
    private var isStarted = false
    private var counts = Statistics()
    /// `system_version_info` of the last response that was applied; empty before the first.
    package private(set) var appliedVersion = ""
    /// Whether the present stream has answered.
    package private(set) var isSynchronized = false

    /// - Parameters:
    ///   - version: of the sidecar, told to the control plane.
    ///   - statePath: where the last known state is kept; nil keeps none.
    ///   - delegate: held weakly.
    package init(
        channel: ControlChannel, pod: ObjectName, version: String, statePath: String?,
        delegate: any DiscoveryClientDelegate, limits: Limits = Limits()
    ) {
        self.channel = channel
        self.pod = pod
        self.version = version
        self.statePath = statePath
        self.delegate = delegate
        self.limits = limits
        loop = channel.loop
        view = DiscoveryView(pod: pod)
        backoff = Backoff(seed: UInt64(bitPattern: Int64(pod.hashValue)))
        retryTimer = LoopTimer(loop: loop, target: self, tag: DiscoveryClient.retryTag)
        sweepTimer = LoopTimer(loop: loop, target: self, tag: DiscoveryClient.sweepTag)
        saveTimer = LoopTimer(loop: loop, target: self, tag: DiscoveryClient.saveTag)
    }

    /// Tells the delegate the last known state before it returns; then streams, whenever the channel stands.
    package func start() {
        guard !isStarted else { return }
        isStarted = true
        load()
        sweepTimer?.arm(afterMilliseconds: limits.sweepMilliseconds)
        channel.add(self)
    }

    package func close() {
        isStarted = false
        retryTimer?.cancel()
        sweepTimer?.cancel()
        if saveTimer?.isArmed == true { save() }
        saveTimer?.cancel()
        call?.cancel()
        call = nil
        session = nil
    }

    package var statistics: Statistics {
        var result = counts
        result.subscriptions = view.subscriptions.count
        result.services = view.services.count
        return result
    }

    // MARK: Subscribing

    /// Asks what an address is, and goes on asking. The delegate is told the answer, at once when it is known. False at
    /// the limit of subscriptions.
    @discardableResult
    package func subscribe(_ address: SocketAddress) -> Bool {
        lastUsed[address] = loop.now
        if view.subscriptions.contains(address) {
            if let held = view.destinations[address] { delegate?.destinationChanged(address, held.value) }
            return true
        }
        guard view.subscriptions.count < limits.subscriptions else {
            lastUsed[address] = nil
            counts.overLimit += 1
            return false
        }
        _ = view.subscribe(address)
        // An unsubscription that still waits goes first, so that the control plane begins anew.
        toSubscribe.insert(address)
        loop.atEndOfRound(self)
        return true
    }

    package func unsubscribe(_ address: SocketAddress) {
        guard view.subscriptions.contains(address) else { return }
        lastUsed[address] = nil
        let changes = view.unsubscribe(address, nowNanoseconds: loop.now.nanoseconds)
        if toSubscribe.remove(address) == nil { toUnsubscribe.insert(address) }
        tell(changes)
        loop.atEndOfRound(self)
    }

    private func sweep() {
        let idle = Int64(limits.idleMilliseconds) * 1_000_000
        for address in Array(view.subscriptions) {
            if delegate?.isInUse(address) == true {
                lastUsed[address] = loop.now
            } else if loop.now.nanoseconds(since: lastUsed[address] ?? loop.now) > idle {
                unsubscribe(address)
            }
        }
        tell(view.sweep(nowNanoseconds: loop.now.nanoseconds))
        for address in view.incompleteDestinations {
            counts.repeatedSubscriptions += 1
            toUnsubscribe.insert(address)
            toSubscribe.insert(address)
            loop.atEndOfRound(self)
        }
    }

    // MARK: The stream

    private func openStream() {
        guard isStarted, call == nil, let session else { return }
        guard
            let call = GRPCClientCall(
                on: session, path: DiscoveryLimits.method, authority: "apus-control",
                messageLimit: 4 * 1024 * 1024, delegate: self)
        else {
            retryTimer?.arm(afterMilliseconds: backoff.delayMilliseconds())
            return
        }
        self.call = call
        counts.streams += 1
        isSynchronized = false
        toSubscribe = []
        toUnsubscribe = []
        for request in view.openingRequests(version: version) { call.send(ResourceEncoding.bytes(request)) }
    }

    private func flushSubscriptions() {
        guard let call, !toSubscribe.isEmpty || !toUnsubscribe.isEmpty else { return }
        var request = Envoy_Service_Discovery_V3_DeltaDiscoveryRequest()
        request.typeURL = ResourceType.destination.typeURL
        request.resourceNamesSubscribe = toSubscribe.map(\.description)
        request.resourceNamesUnsubscribe = toUnsubscribe.map(\.description)
        toSubscribe = []
        toUnsubscribe = []
        call.send(ResourceEncoding.bytes(request))
    }

    private func acknowledge(_ typeURL: String, _ nonce: String, _ refusals: [ResourceRefusal]) {
        let request = DiscoveryView.acknowledgement(typeURL: typeURL, nonce: nonce, refusals: refusals)
        call?.send(ResourceEncoding.bytes(request))
    }

    private func apply(_ response: Envoy_Service_Discovery_V3_DeltaDiscoveryResponse) {
        guard let type = ResourceType(typeURL: response.typeURL) else {
            let refusal = ResourceRefusal(
                type: response.typeURL, name: "", version: "", reason: "this sidecar does not know the type")
            counts.refusals += 1
            acknowledge(response.typeURL, response.nonce, [refusal])
            delegate?.resourceRefused(refusal)
            return
        }
        counts.responses += 1
        counts.resources += UInt64(response.resources.count)
        counts.removals += UInt64(response.removedResources.count)
        let outcome = view.apply(response, type, nowNanoseconds: loop.now.nanoseconds)
        appliedVersion = String(response.systemVersionInfo.prefix(64))
        counts.refusals += UInt64(outcome.refusals.count)
        tell(outcome.changes)
        for refusal in outcome.refusals { delegate?.resourceRefused(refusal) }
        acknowledge(response.typeURL, response.nonce, outcome.refusals)
    }

    private func tell(_ changes: [DiscoveryChange]) {
        guard !changes.isEmpty else { return }
        for change in changes {
            switch change {
            case .service(let service): delegate?.serviceChanged(service)
            case .serviceRemoved(let name): delegate?.serviceRemoved(name)
            case .endpoint(let endpoint): delegate?.endpointChanged(endpoint)
            case .endpointRemoved(let service, let address):
                delegate?.endpointRemoved(service: service, address: address)
            case .destination(let address, let destination): delegate?.destinationChanged(address, destination)
            case .destinationForgotten(let address): delegate?.destinationForgotten(address)
            case .configuration(let configuration): delegate?.selfChanged(configuration)
            case .trustBundle(let bundle): delegate?.trustBundleChanged(bundle)
            case .trustBundleRemoved(let trustDomain): delegate?.trustBundleRemoved(trustDomain: trustDomain)
            }
        }
        if statePath != nil, isStarted, saveTimer?.isArmed == false {
            saveTimer?.arm(afterMilliseconds: limits.saveMilliseconds)
        }
    }

    // MARK: The last known state

    private func load() {
        guard let statePath else { return }
        do throws(DiscoveryStateFile.Problem) {
            guard let bytes = try DiscoveryStateFile.read(statePath) else { return }
            var changes: [DiscoveryChange] = []
            for response in try DiscoveryStateFile.decode(bytes) {
                guard let type = ResourceType(typeURL: response.typeURL) else { continue }
                if type == .destination {
                    for resource in response.resources.prefix(limits.subscriptions) {
                        guard let address = SocketAddress(resource.name) else { continue }
                        _ = view.subscribe(address)
                        lastUsed[address] = loop.now
                    }
                }
                let outcome = view.apply(response, type, nowNanoseconds: loop.now.nanoseconds)
                changes += outcome.changes
                for refusal in outcome.refusals { delegate?.resourceRefused(refusal) }
            }
            tell(changes)
            saveTimer?.cancel()
        } catch {
            counts.stateFailures += 1
            delegate?.stateFileIgnored(path: statePath, reason: error.description)
        }
    }

    private func save() {
        guard let statePath else { return }
        do throws(DiscoveryStateFile.Problem) {
            try DiscoveryStateFile.write(DiscoveryStateFile.encode(view), statePath)
            counts.stateWrites += 1
        } catch {
            counts.stateFailures += 1
            delegate?.stateFileIgnored(path: statePath, reason: error.description)
        }
    }

    private static let retryTag = 0
    private static let sweepTag = 1
    private static let saveTag = 2
}

extension DiscoveryClient: TimerTarget {
    package func timerFired(_ timer: LoopTimer) {
        switch timer.tag {
        case DiscoveryClient.retryTag:
            openStream()
        case DiscoveryClient.sweepTag:
            sweep()
            timer.arm(afterMilliseconds: limits.sweepMilliseconds)
        default:
            save()
        }
    }
}

extension DiscoveryClient: EndOfRoundTarget {
    package func endOfRound() { flushSubscriptions() }
}

extension DiscoveryClient: ControlChannelUser {
    func channelOpened(_ session: HTTP2Session) {
        let old = call
        call = nil
        self.session = session
        retryTimer?.cancel()
        openStream()
        old?.cancel()
        delegate?.connectionChanged(isConnected: true, reason: "")
    }

    func channelClosed(reason: String) {
        session = nil
        call = nil
        retryTimer?.cancel()
        delegate?.connectionChanged(isConnected: false, reason: reason)
    }
}

extension DiscoveryClient: GRPCClientCallDelegate {
    package func received(_ message: UnsafeRawBufferPointer, on call: GRPCClientCall) {
        guard call === self.call else { return }
        do {
            let response = try ResourceDecoding.message(
                Envoy_Service_Discovery_V3_DeltaDiscoveryResponse.self, [UInt8](message))
            if !isSynchronized {
                isSynchronized = true
                backoff.reset()
                channel.markHealthy()
            }
            apply(response)
        } catch {
            call.cancel(GRPCStatus(.internal, "\(error)"))
        }
    }

    package func writable(_ call: GRPCClientCall) {}

    package func closed(_ call: GRPCClientCall, _ status: GRPCStatus) {
        guard call === self.call else { return }
        self.call = nil
        isSynchronized = false
        guard isStarted, session != nil else { return }
        delegate?.connectionChanged(isConnected: false, reason: "the discovery stream ended: \(status)")
        retryTimer?.arm(afterMilliseconds: backoff.delayMilliseconds())
    }
}
