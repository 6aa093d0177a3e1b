import Foundation
import Glibc
import MeshAPI
import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshXDS
import Testing

@Suite struct DiscoveryStreamTests {
    private let now: UInt64 = 1

    private func learnWeb(_ learnt: Watched<Learnt>, endpoints: Int) async throws {
        try await learnt.wait("web") {
            $0.destinations[webAddress] == .service(ObjectName("web"), port: 80) && $0.endpoints.count == endpoints
                && $0.services.count == 1 && $0.configuration != nil && $0.bundles.count == 1
        }
    }

    @Test func aSubscriptionIsAnsweredAndFollowed() async throws {
        let rig = try XDSRig()
        let learnt = Watched(Learnt())
        let statuses = Watched<[DiscoverySubscriberStatus]>([])
        let converged = Watched<[Int]>([])
        let control = try await rig.make {
            TestControl($0, shopSource(endpoints: 3), statuses: statuses, converged: converged)
        }
        let address = try await rig.run { _ in try control.value.listen() }
        let sidecar = try await rig.make { TestSidecar($0, address, learnt) }
        let unknown = SocketAddress(ip(7, net: 7), 443)
        let pod = SocketAddress(ip(5, net: 5), 9090)
        try await rig.run { _ in
            for address in [webAddress, unknown, pod] { sidecar.value.client.subscribe(address) }
        }
        try await learnWeb(learnt, endpoints: 3)
        try await learnt.wait("the unknown ones") {
            $0.destinations[unknown] == .unknown && $0.destinations[pod] == .unknown
        }
        // An endpoint goes, another comes, and a pod takes an address that was unknown.
        let web = ObjectName("web")
        let newcomer = Endpoint(service: web, address: ip(50, net: 1), targetPorts: [80: 8081])
        try await rig.run { _ in
            let (source, discovery) = (control.value.source, control.value.discovery!)
            source.endpoints[web]?[ip(1, net: 1)] = nil
            discovery.endpointRemoved(service: web, address: ip(1, net: 1), arrivedNanoseconds: 1)
            source.endpoints[web]?[newcomer.address] = newcomer
            discovery.endpointChanged(newcomer, arrivedNanoseconds: 1)
            source.workloads[pod.ip] = workload("lonely", pod.ip)
            discovery.destinationsChanged(at: pod.ip, arrivedNanoseconds: 1)
        }
        let state = try await learnt.wait("the changes") {
            $0.endpoints.count == 3 && $0.endpoints[newcomer.id] == newcomer && $0.destinations[pod] != .unknown
        }
        #expect(state.destinations[pod] == .workload(workload("lonely", pod.ip)))
        #expect(state.endpoints["shop/web/\(ip(1, net: 1))"] == nil)
        try await converged.wait("the acknowledgement of all") { $0 == [1] }
        let status = try await statuses.wait("a current status") {
            $0.last?.isCurrent == true && $0.last?.subscriptions == 3
        }
        #expect(status.last?.pod == ObjectName(namespace: "shop", name: "client") && status.last?.version == "9.9")
        // After the last unsubscription nothing is sent any more.
        try await rig.run { _ in sidecar.value.client.unsubscribe(webAddress) }
        try await statuses.wait("the unsubscription") { $0.last?.subscriptions == 2 }
        let responses = try await rig.run { _ in
            let discovery = control.value.discovery!
            let before = discovery.statistics.responses
            discovery.endpointRemoved(service: web, address: newcomer.address, arrivedNanoseconds: 1)
            return before
        }
        try await Task.sleep(for: .milliseconds(20))
        #expect(try await rig.run { _ in control.value.discovery.statistics.responses } == responses)
    }

    @Test func aReconnectingSidecarIsSentWhatDiffersOnly() async throws {
        let rig = try XDSRig()
        let learnt = Watched(Learnt())
        let source = try await rig.make { _ in shopSource(endpoints: 20) }
        let first = try await rig.make { TestControl($0, source.value) }
        let address = try await rig.run { _ in try first.value.listen() }
        let sidecar = try await rig.make { TestSidecar($0, address, learnt) }
        try await rig.run { _ in _ = sidecar.value.client.subscribe(webAddress) }
        try await learnWeb(learnt, endpoints: 20)
        // The control plane restarts: another server on the same port, with nothing changed.
        try await rig.run { _ in first.value.stop() }
        try await learnt.wait("the loss") { !$0.isConnected }
        let statuses = Watched<[DiscoverySubscriberStatus]>([])
        let second = try await rig.make { TestControl($0, source.value, statuses: statuses) }
        _ = try await rig.run { _ in try second.value.listen(port: address.port) }
        try await statuses.wait("the new stream") { $0.last?.subscriptions == 1 && $0.last?.isCurrent == true }
        let quiet = try await rig.run { _ in second.value.discovery.statistics }
        #expect(quiet.resourcesSent == 0 && quiet.removalsSent == 0)
        // It restarts once more, and meanwhile two endpoints went and one changed.
        try await rig.run { _ in second.value.stop() }
        try await learnt.wait("the second loss") { !$0.isConnected }
        let web = ObjectName("web")
        try await rig.run { _ in
            source.value.endpoints[web]?[ip(1, net: 1)] = nil
            source.value.endpoints[web]?[ip(2, net: 1)] = nil
            source.value.endpoints[web]?[ip(3, net: 1)]?.isReady = false
        }
        let third = try await rig.make { TestControl($0, source.value) }
        _ = try await rig.run { _ in try third.value.listen(port: address.port) }
        let state = try await learnt.wait("the difference") { $0.endpoints.count == 18 && $0.isConnected }
        #expect(state.endpoints["shop/web/\(ip(3, net: 1))"]?.isReady == false)
        #expect(try await rig.run { _ in third.value.discovery.statistics.resourcesSent } == 1)
    }

    @Test func aRefusedResourceLeavesTheOldOneInForceAndIsShown() async throws {
        let rig = try XDSRig()
        let learnt = Watched(Learnt())
        let statuses = Watched<[DiscoverySubscriberStatus]>([])
        let control = try await rig.make { TestControl($0, shopSource(endpoints: 1), statuses: statuses) }
        let address = try await rig.run { _ in try control.value.listen() }
        let sidecar = try await rig.make { TestSidecar($0, address, learnt) }
        try await rig.run { _ in _ = sidecar.value.client.subscribe(webAddress) }
        try await learnWeb(learnt, endpoints: 1)
        let web = ObjectName("web")
        let good = learnt.value.services[web]
        try await rig.run { _ in
            control.value.source.services[web]?.connectTimeoutMilliseconds = 0
            control.value.discovery.serviceChanged(web, arrivedNanoseconds: 1)
        }
        let refused = try await statuses.wait("the refusal") { $0.last?.refusals.isEmpty == false }
        let refusal = try #require(refused.last?.refusals.first)
        #expect(refusal.type == "Service" && refusal.name == "shop/web")
        #expect(refusal.reason == "connect_timeout_milliseconds is 0, at least 1 is expected")
        #expect(learnt.value.services[web] == good && learnt.value.refusals.count == 1)
        try await rig.run { _ in
            control.value.source.services[web]?.connectTimeoutMilliseconds = 77
            control.value.discovery.serviceChanged(web, arrivedNanoseconds: 1)
        }
        try await learnt.wait("the better one") { $0.services[web]?.connectTimeoutMilliseconds == 77 }
        try await statuses.wait("the status") { $0.last?.refusals.isEmpty == true && $0.last?.isCurrent == true }
    }

    @Test func nothingIsAnsweredBeforeThePlatformIsKnown() async throws {
        let rig = try XDSRig()
        let learnt = Watched(Learnt())
        let control = try await rig.make { loop in
            let control = TestControl(loop, shopSource(endpoints: 2))
            control.source.isSynchronized = false
            return control
        }
        let address = try await rig.run { _ in try control.value.listen() }
        let sidecar = try await rig.make { TestSidecar($0, address, learnt) }
        try await rig.run { _ in _ = sidecar.value.client.subscribe(webAddress) }
        try await learnt.wait("the connection") { $0.isConnected }
        try await Task.sleep(for: .milliseconds(30))
        #expect(learnt.value.destinations.isEmpty && learnt.value.bundles.isEmpty)
        try await rig.run { _ in
            control.value.source.isSynchronized = true
            control.value.discovery.synchronized()
        }
        try await learnWeb(learnt, endpoints: 2)
    }

    @Test func aPeerThatMayNotBeThePodIsToldWhyAndNothingElse() async throws {
        let rig = try XDSRig()
        let learnt = Watched(Learnt())
        let control = try await rig.make { loop in
            let control = TestControl(loop, shopSource(endpoints: 2))
            control.refusalReason = "shop/client does not run as this service account"
            return control
        }
        let address = try await rig.run { _ in try control.value.listen() }
        let sidecar = try await rig.make { TestSidecar($0, address, learnt) }
        try await rig.run { _ in _ = sidecar.value.client.subscribe(webAddress) }
        let state = try await learnt.wait("the refusal") { !$0.isConnected && !$0.reason.isEmpty }
        #expect(state.reason.contains("PERMISSION_DENIED: shop/client does not run as this service account"))
        #expect(state.bundles.isEmpty && state.destinations.isEmpty)
        #expect(try await rig.run { _ in control.value.discovery.statistics.responses } == 0)
    }

    @Test func aSidecarThatNeverAcknowledgesIsClosed() async throws {
        let rig = try XDSRig()
        var limits = DiscoveryServer.Limits()
        limits.acknowledgementTimeoutMilliseconds = 100
        let (used, ended) = (limits, Watched<GRPCStatus?>(nil))
        let control = try await rig.make { TestControl($0, shopSource(endpoints: 1), limits: used) }
        let address = try await rig.run { _ in try control.value.listen() }
        try await rig.run { loop in
            let session = HTTP2Session(connectingTo: address, loop: loop, delegate: IgnoredSession())
            let call = GRPCClientCall(
                on: session, path: DiscoveryLimits.method, authority: "test", scheme: "http",
                delegate: SilentCall(ended))
            for request in DiscoveryView(pod: ObjectName("client")).openingRequests(version: "1") {
                call?.send(ResourceEncoding.bytes(request))
            }
        }
        let status = try await ended.wait("the end") { $0 != nil }
        #expect(status?.code == .aborted)
        #expect(try await rig.run { _ in control.value.discovery.statistics.silentStreams } == 1)
    }

    @Test func idleSubscriptionsAreDroppedAndThoseInUseAreNot() async throws {
        let rig = try XDSRig()
        let learnt = Watched(Learnt())
        let control = try await rig.make { TestControl($0, shopSource(endpoints: 1)) }
        let address = try await rig.run { _ in try control.value.listen() }
        var limits = DiscoveryClient.Limits()
        limits.idleMilliseconds = 50
        limits.sweepMilliseconds = 10
        let used = limits
        let idle = SocketAddress(ip(9, net: 9), 80)
        let sidecar = try await rig.make { loop in
            let sidecar = TestSidecar(loop, address, learnt, limits: used)
            sidecar.delegate.inUse = [webAddress, idle]
            sidecar.client.subscribe(webAddress)
            sidecar.client.subscribe(idle)
            return sidecar
        }
        try await learnt.wait("both") { $0.destinations.count == 2 }
        try await rig.run { _ in sidecar.value.delegate.inUse = [webAddress] }
        try await learnt.wait("the idle one's end") { $0.destinations[idle] == nil }
        #expect(learnt.value.destinations[webAddress] != nil)
        #expect(try await rig.run { _ in sidecar.value.client.statistics.subscriptions } == 1)
    }

    // MARK: The last known state

    private func temporaryPath() -> String {
        FileManager.default.temporaryDirectory.appendingPathComponent("apus-state-\(UUID().uuidString)").path
    }

    @Test func aSidecarStartsWithTheLastKnownStateWhenTheControlPlaneIsAway() async throws {
        let rig = try XDSRig()
        let path = temporaryPath()
        defer { unlink(path) }
        let learnt = Watched(Learnt())
        let control = try await rig.make { TestControl($0, shopSource(endpoints: 5)) }
        let address = try await rig.run { _ in try control.value.listen() }
        let sidecar = try await rig.make { TestSidecar($0, address, learnt, statePath: path) }
        try await rig.run { _ in _ = sidecar.value.client.subscribe(webAddress) }
        try await learnWeb(learnt, endpoints: 5)
        try await rig.run { _ in
            sidecar.value.client.close()
            sidecar.value.channel.close()
        }
        let again = Watched(Learnt())
        _ = try await rig.make { TestSidecar($0, nil, again, statePath: path) }
        var expected = learnt.value
        var remembered = again.value
        for field in [\Learnt.connections] { (expected[keyPath: field], remembered[keyPath: field]) = (0, 0) }
        expected.isConnected = false
        expected.reason = ""
        #expect(remembered == expected, "told before start returned")
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
    }

    @Test func aDamagedStateIsIgnored() async throws {
        let learnt = Watched(Learnt())
        let rig = try XDSRig()
        let path = temporaryPath()
        defer { unlink(path) }
        let control = try await rig.make { TestControl($0, shopSource(endpoints: 2)) }
        let address = try await rig.run { _ in try control.value.listen() }
        let sidecar = try await rig.make { TestSidecar($0, address, learnt, statePath: path) }
        try await rig.run { _ in _ = sidecar.value.client.subscribe(webAddress) }
        try await learnWeb(learnt, endpoints: 2)
        try await rig.run { _ in
            sidecar.value.client.close()
            sidecar.value.channel.close()
        }
        let bytes = try #require(try DiscoveryStateFile.read(path))
        #expect(try DiscoveryStateFile.decode(bytes).count == 5)
        for length in 0..<bytes.count {
            #expect(throws: DiscoveryStateFile.Problem.self) { try DiscoveryStateFile.decode(Array(bytes[..<length])) }
        }
        for index in bytes.indices {
            var damaged = bytes
            damaged[index] ^= 0x20
            #expect(throws: DiscoveryStateFile.Problem.self) { try DiscoveryStateFile.decode(damaged) }
        }
        try Data(bytes.dropLast()).write(to: URL(fileURLWithPath: path))
        let again = Watched(Learnt())
        _ = try await rig.make { TestSidecar($0, nil, again, statePath: path) }
        #expect(again.value.problems == ["it is torn or damaged"] && again.value.destinations.isEmpty)
    }
}

final class IgnoredSession: HTTP2SessionDelegate {
    func opened(_ session: HTTP2Session) {}
    func accepted(_ stream: HTTP2Stream, headers: HTTP2Headers, on session: HTTP2Session) {}
    func goAwayReceived(_ session: HTTP2Session) {}
    func closed(_ session: HTTP2Session, _ cause: HTTP2CloseCause) {}
}

/// Takes everything and answers nothing.
private final class SilentCall: GRPCClientCallDelegate {
    private let ended: Watched<GRPCStatus?>
    init(_ ended: Watched<GRPCStatus?>) { self.ended = ended }
    func received(_ message: UnsafeRawBufferPointer, on call: GRPCClientCall) {}
    func writable(_ call: GRPCClientCall) {}
    func closed(_ call: GRPCClientCall, _ status: GRPCStatus) { ended.change { $0 = status } }
}
