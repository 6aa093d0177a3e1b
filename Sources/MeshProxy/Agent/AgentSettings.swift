package import MeshAddress
package import MeshCore
package import MeshTelemetry

/// What a sidecar is told by its environment (docs/ARCHITECTURE.md, «The sidecar's environment»).
package struct AgentSettings: Sendable {
    package static var version: String { ApusVersion.current }

    package enum AccessLog: String, Sendable, CaseIterable {
        case off
        case text
        case json
    }

    package var pod: ObjectName
    package var podAddresses: [IPAddress]
    package var serviceAccount: String
    package var node: String
    package var owner: String
    package var trustDomain: String
    /// A host name or address and a port.
    package var controlHost: String
    package var controlPort: UInt16
    /// PEM.
    package var trustBundle: String
    package var tokenPath: String
    /// Nil keeps nothing across restarts.
    package var statePath: String?
    package var opaquePorts: Set<UInt16>
    package var logLevel: LogLevel
    package var accessLog: AccessLog
    package var drainSeconds: Int
    package var probes: ProbeTable
    package var loops: Int

    /// What is wrong with a variable: its name, its value, what was expected.
    package struct Invalid: Error, Equatable, CustomStringConvertible {
        package let variable: String
        package let value: String?
        package let expected: String
        package var description: String {
            "\(variable): \(value.map { "'\($0)' is not \(expected)" } ?? "it is not set; expected \(expected)")"
        }
    }

    /// - Parameter variable: the environment; nil for what is not set.
    package init(environment variable: (String) -> String?) throws(Invalid) {
        func text(_ name: String, _ expected: String, default fallback: String? = nil) throws(Invalid) -> String {
            if let value = variable(name), !value.isEmpty { return value }
            guard let fallback else { throw Invalid(variable: name, value: nil, expected: expected) }
            return fallback
        }
        func choice<Choice: RawRepresentable & CaseIterable>(_ name: String, default fallback: Choice) throws(Invalid)
            -> Choice
        where Choice.RawValue == String {
            guard let value = variable(name), !value.isEmpty else { return fallback }
            guard let choice = Choice(rawValue: value) else {
                throw Invalid(
                    variable: name, value: value,
                    expected: "one of \(Choice.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            return choice
        }
        func number(_ name: String, _ range: ClosedRange<Int>, default fallback: Int) throws(Invalid) -> Int {
            guard let value = variable(name), !value.isEmpty else { return fallback }
            guard let number = Int(value), range.contains(number) else {
                throw Invalid(
                    variable: name, value: value, expected: "a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
        pod = ObjectName(
            namespace: try text("APUS_POD_NAMESPACE", "the pod's namespace"),
            name: try text("APUS_POD_NAME", "the pod's name"))
        let addresses = try text("APUS_POD_IP", "the pod's address")
        podAddresses = []
        for word in addresses.split(separator: ",") {
            guard let address = IPAddress(word) else {
                throw Invalid(
                    variable: "APUS_POD_IP", value: addresses, expected: "an IP address, or several with commas")
            }
            podAddresses.append(address)
        }
        serviceAccount = try text("APUS_SERVICE_ACCOUNT", "the pod's service account", default: "default")
        node = try text("APUS_NODE_NAME", "the node's name", default: "")
        owner = try text("APUS_OWNER", "the name of what owns the pod", default: pod.name)
        trustDomain = try text("APUS_TRUST_DOMAIN", "a trust domain", default: "cluster.local")
        let control = try text(
            "APUS_CONTROL_ADDRESS", "HOST:PORT", default: "apus-control.apus-system.svc.cluster.local:15010")
        guard let colon = control.lastIndex(of: ":"), let port = UInt16(control[control.index(after: colon)...]),
            port > 0,
            colon > control.startIndex
        else { throw Invalid(variable: "APUS_CONTROL_ADDRESS", value: control, expected: "HOST:PORT") }
        controlHost = String(control[..<colon])
        controlPort = port
        trustBundle = try text("APUS_TRUST_BUNDLE", "the mesh's roots in PEM")
        tokenPath = try text("APUS_TOKEN_PATH", "a file", default: "/var/run/apus/identity/token")
        statePath = try text("APUS_STATE_PATH", "a folder", default: "/var/run/apus/state")
        do {
            opaquePorts = Set(try parsePortList(variable("APUS_OPAQUE_PORTS") ?? "", setting: "APUS_OPAQUE_PORTS"))
        } catch {
            throw Invalid(
                variable: error.setting, value: error.value, expected: "ports from 1 to 65535, separated by commas")
        }
        logLevel = try choice("APUS_LOG_LEVEL", default: .info)
        accessLog = try choice("APUS_ACCESS_LOG", default: .off)
        drainSeconds = try number("APUS_DRAIN_SECONDS", 0...3600, default: 30)
        loops = try number("APUS_LOOPS", 1...64, default: 1)
        do {
            probes = try ProbeTable(json: variable("APUS_PROBES") ?? "")
        } catch {
            throw Invalid(variable: "APUS_PROBES", value: error.description, expected: "the probes as JSON")
        }
    }

    package var identity: SPIFFEID {
        SPIFFEID(trustDomain: trustDomain, namespace: pod.namespace, serviceAccount: serviceAccount)
    }
}
