import Dispatch
package import Logging
import MeshCore
import MeshIO
import MeshIdentity
import MeshTelemetry

/// A sidecar that believes a file instead of a control plane.
package struct StaticSidecar: Sendable {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    package let plane: DataPlane
    private let admin: StaticAdmin?

    /// Starts listening; throws when the configuration cannot be used.
    ///
    /// - Parameter read: the text of a file that the configuration names.
    package static func start(
        _ configuration: StaticConfiguration, logger: Logger, read: (_ path: String) throws -> String
    ) throws -> StaticSidecar {
        var settings = DataPlane.Configuration(logger: logger)
        settings.loops = min(max(configuration.loops ?? 1, 1), 64)
        settings.trustDomain = try configuration.mesh.trustDomain
        settings.outbound = try configuration.listeners(configuration.outbound, field: "outbound")
        settings.inbound = try configuration.listeners(configuration.inbound, field: "inbound")
        if let format = try configuration.accessLogFormat { settings.accessLog = (format, StandardOutputLog()) }
        guard !settings.outbound.isEmpty || !settings.inbound.isEmpty else {
            throw Failure(description: "there is nothing to listen on: give 'outbound' or 'inbound'")
        }
        let changes = try configuration.changes()
        let plane = try DataPlane(settings)
        if let files = configuration.identity {
            try plane.use(
                TLSContext.Identity(
                    chain: try PEM.certificates(in: read(files.certificate)),
                    privateKeyDER: try PEM.privateKey(in: read(files.key))),
                trustRoots: try PEM.certificates(in: read(files.roots)))
        }
        plane.apply(changes)
        let admin = try configuration.admin.map { text in
            try StaticAdmin(plane, address: configuration.socketAddress(text, "admin"))
        }
        return StaticSidecar(plane: plane, admin: admin)
    }

    /// Ends requests in flight within the deadline, then everything.
    package func stop(drainMilliseconds: Int) {
        let done = DispatchSemaphore(value: 0)
        plane.drain(deadlineMilliseconds: drainMilliseconds) { _ in done.signal() }
        done.wait()
        plane.stop()
        admin?.stop()
    }
}

extension StaticConfiguration {
    /// Nil leaves requests unlogged.
    var accessLogFormat: AccessLogFormat? {
        get throws(Invalid) {
            guard let accessLog, accessLog != "off" else { return nil }
            guard let format = AccessLogFormat(rawValue: accessLog) else {
                throw Invalid(field: "accessLog", value: accessLog, expected: "one of off, text, json")
            }
            return format
        }
    }
}
