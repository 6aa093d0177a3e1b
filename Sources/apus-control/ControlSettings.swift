import Logging
import MeshCore
import MeshInjector
import MeshKubernetes
import MeshTelemetry

/// What flags and environment amount to, checked.
struct ControlSettings {
    /// Names the setting, its value and what was expected.
    struct InvalidSetting: Error, CustomStringConvertible {
        let description: String
    }

    let access: ClusterAccess
    let namespace: String
    let mesh: MeshSettings
    let injection: InjectionSettings
    let install: InstallSettings
    let leafLifetimeSeconds: Int64
    let rootLifetimeSeconds: Int64
    let discoveryPort: UInt16
    let webhookPort: UInt16
    let queryPort: UInt16
    let logLevel: Logger.Level

    init(_ flags: ApusControl, environment: [String: String]) throws {
        func setting(_ flag: String?, _ variable: String, _ fallback: String) -> String {
            if let flag { return flag }
            guard let value = environment[variable], !value.isEmpty else { return fallback }
            return value
        }
        func choice<Value: RawRepresentable & CaseIterable>(
            _ flag: String?, _ name: String, _ variable: String, _ fallback: Value
        ) throws -> Value where Value.RawValue == String {
            let text = setting(flag, variable, fallback.rawValue)
            guard let value = Value(rawValue: text) else {
                let expected = Value.allCases.map { "'\($0.rawValue)'" }.joined(separator: " or ")
                throw InvalidSetting(description: "--\(name) (\(variable)) is '\(text)', expected \(expected)")
            }
            return value
        }
        func range(_ value: Int64, _ name: String, _ allowed: ClosedRange<Int64>) throws -> Int64 {
            guard allowed.contains(value) else {
                throw InvalidSetting(
                    description: "--\(name) is \(value), expected \(allowed.lowerBound) to \(allowed.upperBound)")
            }
            return value
        }
        let trustDomain = setting(flags.trustDomain, "APUS_TRUST_DOMAIN", "cluster.local")
        guard (try? SPIFFEID(parsing: "spiffe://\(trustDomain)"))?.path.isEmpty == true else {
            throw InvalidSetting(
                description:
                    "--trust-domain (APUS_TRUST_DOMAIN) is '\(trustDomain)', expected a name such as cluster.local")
        }
        mesh = MeshSettings(
            trustDomain: trustDomain, plaintext: try choice(flags.plaintext, "plaintext", "APUS_PLAINTEXT", .strict),
            unknownDestinations: try choice(
                flags.unknownDestinations, "unknown-destinations", "APUS_UNKNOWN_DESTINATIONS", .allow))
        namespace = setting(flags.namespace, "APUS_POD_NAMESPACE", MeshInstallation.namespace)
        let image = setting(flags.proxyImage, "APUS_PROXY_IMAGE", "apus/proxy:\(ApusVersion.current)")
        let control = setting(
            flags.controlAddress, "APUS_CONTROL_ADDRESS",
            "\(MeshInstallation.controlName).\(namespace).svc.cluster.local:\(flags.discoveryPort)")
        injection = InjectionSettings(image: image, trustDomain: trustDomain, controlAddress: control)
        install = InstallSettings(proxyImage: image, mesh: mesh)
        leafLifetimeSeconds = try range(flags.leafLifetimeSeconds, "leaf-lifetime-seconds", 60...86_400)
        rootLifetimeSeconds = try range(flags.rootLifetimeDays, "root-lifetime-days", 2...36_500) * 86_400
        (discoveryPort, webhookPort, queryPort) = (flags.discoveryPort, flags.webhookPort, flags.queryPort)
        logLevel = try choice(flags.logLevel, "log-level", "APUS_LOG_LEVEL", LogLevel.info).level
        if let path = flags.kubeconfig {
            access = try Kubeconfig.load(path: path, context: flags.context)
        } else {
            access = try ClusterAccess.inCluster(environment: environment)
        }
    }
}
