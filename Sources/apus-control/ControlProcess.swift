import Dispatch
import Foundation
import Logging
import MeshAddress
import MeshControl
import MeshCore
import MeshIdentity
import MeshKubernetes

/// The parts of the control plane, run together until a signal.
enum ControlProcess {
    /// Returns after SIGTERM or SIGINT; throws what no trying again would mend.
    static func run(_ settings: ControlSettings) async throws {
        let client = try KubernetesClient(settings.access)
        let result: Result<Void, any Error>
        do {
            try await run(settings, client)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        await client.shutdown()
        try result.get()
    }

    private static func run(_ settings: ControlSettings, _ client: KubernetesClient) async throws {
        let logger = Logger(label: "apus.control")
        let source = KubernetesCatalogSource(
            api: client, settings: settings.mesh, installationNamespace: settings.namespace)
        let webhook = WebhookHost(settings: settings, api: client)
        var surroundings = ControlPlane.Surroundings()
        surroundings.certificateChanged = { webhook.certificateChanged($0, $1) }
        surroundings.obstacles = { webhook.obstacles }
        surroundings.troubles = { webhook.troubles + source.troubles }
        surroundings.metrics = { page in
            webhook.addMetrics(to: &page)
            source.addMetrics(to: &page)
        }
        let plane = try ControlPlane(
            settings: controlPlaneSettings(settings), source: source, reviewer: PlatformTokenReviewer(api: client),
            storage: SecretAuthorityStorage(api: client, namespace: settings.namespace), surroundings: surroundings)
        logger.notice(
            "apus-control \(ApusVersion.current) starts", metadata: ["trust_domain": "\(settings.mesh.trustDomain)"])
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await plane.run() }
            group.addTask { try await webhook.run() }
            group.addTask {
                let signal = await TerminationSignals.first()
                logger.notice("stopping", metadata: ["signal": "\(signal)"])
            }
            do {
                try await group.next()
                group.cancelAll()
            } catch {
                group.cancelAll()
                throw error
            }
            // What is cancelled may end with an error that says just that.
            while let ended = await group.nextResult() {
                if case .failure(let error) = ended { logger.debug("ended: \(error)") }
            }
        }
    }

    private static func controlPlaneSettings(_ settings: ControlSettings) -> ControlPlane.Settings {
        var result = ControlPlane.Settings(version: ApusVersion.current, mesh: settings.mesh)
        result.discoveryAddress = SocketAddress(.any6, settings.discoveryPort)
        result.queryAddress = SocketAddress(.any6, settings.queryPort)
        result.namespace = settings.namespace
        let name = MeshInstallation.controlName
        result.dnsNames = [
            "", ".\(settings.namespace)", ".\(settings.namespace).svc", ".\(settings.namespace).svc.cluster.local",
        ]
        .map { name + $0 }
        result.authority.limits = CertificateAuthority.Limits(leafLifetimeSeconds: settings.leafLifetimeSeconds)
        result.authority.rootLifetimeSeconds = settings.rootLifetimeSeconds
        // A root that lives for less than the usual lead is renewed when a tenth of its life is left.
        result.authority.rotation.leadSeconds = min(
            result.authority.rotation.leadSeconds, settings.rootLifetimeSeconds / 10)
        return result
    }
}

/// SIGTERM and SIGINT, as something that can be waited for.
enum TerminationSignals {
    static func first() async -> Int32 {
        let (signals, continuation) = AsyncStream.makeStream(of: Int32.self, bufferingPolicy: .bufferingOldest(1))
        let sources = [SIGTERM, SIGINT].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { continuation.yield(number) }
            source.resume()
            return source
        }
        defer { for source in sources { source.cancel() } }
        for await number in signals { return number }
        return 0
    }
}

extension KubernetesCatalogSource {
    var troubles: [String] {
        informers.compactMap { name, status in status.lastError.map { "the API does not serve \(name): \($0)" } }
    }

    func addMetrics(to page: inout MetricsPage) {
        let now = DispatchTime.now().uptimeNanoseconds
        let informers = informers
        func add(_ kind: MetricsPage.Kind, _ name: String, _ help: String, _ value: (InformerStatus) -> Double) {
            page.add(
                kind, "apus_control_informer_\(name)", help, label: "kind",
                informers.map { ($0.name, value($0.status)) })
        }
        add(.gauge, "synchronized", "Whether the first list of a kind has come.") { $0.isSynchronized ? 1 : 0 }
        add(.gauge, "silence_seconds", "How long the API has said nothing of a kind, bookmarks included.") {
            Double($0.silenceMilliseconds(nowNanoseconds: now)) / 1000
        }
        add(.counter, "events_total", "Watch events taken in.") { Double($0.events) }
        add(.counter, "lists_total", "Whole lists taken, the first included.") { Double($0.lists) }
        add(.counter, "failures_total", "Lists and watches that failed.") { Double($0.failures) }
    }
}
