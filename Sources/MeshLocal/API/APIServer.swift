import Foundation
import Hummingbird
import HummingbirdTLS
package import Logging
package import MeshAddress
import MeshKubernetes
import ServiceLifecycle

/// Where the API server listens and how it is found.
package struct APIServerSettings: Sendable {
    /// Loopback first: the kubeconfig names it. Port 0 takes a free one.
    package var listeners: [SocketAddress]
    /// More addresses and names of the serving certificate, beyond those of the listeners and of the `kubernetes` Service.
    package var certificateNames: [String]

    package init(listeners: [SocketAddress], certificateNames: [String] = []) {
        self.listeners = listeners
        self.certificateNames = certificateNames
    }
}

/// The Kubernetes API over HTTPS.
package final class APIServer: Sendable {
    private let api: LocalAPI
    private let settings: APIServerSettings
    private let responder: APIResponder
    private let certificate: ServingCertificate
    private let logger: Logger
    private static let bookmarkSeconds = 30

    package init(api: LocalAPI, settings: APIServerSettings, access: any PodAccess, logger: Logger) throws {
        self.api = api
        self.settings = settings
        self.logger = logger
        let authenticator = try Authenticator(store: api.store, tokens: api.tokens)
        responder = APIResponder(
            api: api, access: access, authenticator: authenticator,
            discovery: Discovery(registry: api.registry, version: api.settings.version), logger: logger)
        certificate = try ServingCertificate(
            store: api.store, addresses: [.loopback4, api.addresses.platform] + settings.listeners.map(\.ip),
            names: [
                "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
                "kubernetes.default.svc.\(api.settings.clusterDomain)",
            ] + settings.certificateNames)
    }

    /// What clients have to trust, for the pods' `ca.crt`.
    package var authorityPEM: String { certificate.authorityPEM }

    package var administratorToken: String { responder.authenticator.administratorToken }

    /// Serves on every listener until cancelled. `onListening` is called for each with the address it really has.
    package func run(onListening: @escaping @Sendable (SocketAddress) -> Void = { _ in }) async throws {
        let tls = try certificate.tlsConfiguration()
        // The framework calls every connection that ends with the server an error; what a request meets is logged by the responder.
        var quiet = logger
        quiet.logLevel = .critical
        try await withThrowingTaskGroup(of: Void.self) { group in
            for listener in settings.listeners {
                let application = try Application(
                    responder: responder, server: .tls(.http1(), tlsConfiguration: tls),
                    configuration: ApplicationConfiguration(
                        address: .hostname(listener.ip.description, port: Int(listener.port)), serverName: nil,
                        backlog: 1024),
                    onServerRunning: { channel in
                        guard let port = channel.localAddress?.port, let number = UInt16(exactly: port) else { return }
                        onListening(SocketAddress(listener.ip, number))
                    }, logger: quiet)
                group.addTask { [quiet] in try await serveUntilCancelled(application, logger: quiet) }
            }
            group.addTask { [store = api.store] in
                while !Task.isCancelled {
                    try await Task.sleep(for: .seconds(Self.bookmarkSeconds))
                    store.sendBookmarks()
                }
            }
            defer {
                group.cancelAll()
                api.store.endWatches()
            }
            try await group.next()
        }
    }

    /// Writes the file with which clients of the administrator find the server.
    package func writeKubeconfig(to path: String, server: SocketAddress) throws {
        try KubeconfigFile.write(
            KubeconfigFile.text(server: "https://\(server)", authorityPEM: authorityPEM, token: administratorToken),
            to: path)
    }
}
