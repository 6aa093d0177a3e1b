import MeshKubernetes

/// Sends the platform's probes and HTTP hooks to the sidecar, which performs them inside the pod: under strict mTLS the
/// application's ports answer nobody without an identity, and the platform has none.
///
/// Works on documents rather than on views, so that a probe reaches the sidecar as its author wrote it.
struct ProbeRewrite {
    /// Container → `startup`, `liveness`, `readiness`, `postStart` or `preStop` → the probe, its port a number.
    private(set) var originals: [String: JSONValue] = [:]

    private static let probes = ["startup", "liveness", "readiness"]
    private static let probeActions = ["httpGet", "tcpSocket", "grpc"]
    private static let hooks = ["postStart", "preStop"]
    /// A hook has no time limit of its own but the pod's grace; the sidecar waits no longer than this.
    private static let hookTimeoutSeconds: Int64 = 300

    /// - Parameter earlier: what an earlier rewrite of the same pod kept, for containers that it has changed already.
    mutating func rewrite(_ container: inout JSONValue, field: String, earlier: JSONValue) throws(Refusal) {
        guard let name = container["name"]?.string else { return }
        var kept: [String: JSONValue] = [:]
        for kind in ProbeRewrite.probes {
            let place = (path: "\(field).\(kind)Probe", kind: kind, name: name)
            guard let probe = container["\(kind)Probe"],
                let change = try rewritten(probe, ProbeRewrite.probeActions, place, container, earlier)
            else { continue }
            container["\(kind)Probe"] = change.probe
            kept[kind] = change.original
        }
        for kind in ProbeRewrite.hooks {
            let place = (path: "\(field).lifecycle.\(kind)", kind: kind, name: name)
            guard let hook = container[path: "lifecycle", kind],
                hook[path: "httpGet", "path"]?.string != ProbeRewrite.withdrawal,
                var change = try rewritten(hook, ["httpGet"], place, container, earlier)
            else { continue }
            change.original?["timeoutSeconds"] = .int(ProbeRewrite.hookTimeoutSeconds)
            container[path: "lifecycle", kind] = change.probe
            kept[kind] = change.original
        }
        if !kept.isEmpty { originals[name] = .object(kept) }
    }

    private static let withdrawal = "/apus/withdraw"

    /// A container that is to be stopped goes on until its callers have been told to go elsewhere: without a hook of its own it gets
    /// one that the sidecar answers when that is done.
    func addWithdrawal(to container: inout JSONValue) {
        guard container[path: "lifecycle", "preStop"] == nil else { return }
        var lifecycle = container["lifecycle"] ?? [:]
        lifecycle["preStop"] = [
            "httpGet": [
                "path": .string(ProbeRewrite.withdrawal), "port": .int(Int64(SidecarPorts.health)), "scheme": "HTTP",
            ]
        ]
        container["lifecycle"] = lifecycle
    }

    /// A probe as the platform is to see it and as the sidecar is to perform it; nil for one that stays as it is.
    private func rewritten(
        _ probe: JSONValue, _ actions: [String], _ place: (path: String, kind: String, name: String),
        _ container: JSONValue, _ earlier: JSONValue
    ) throws(Refusal) -> (probe: JSONValue, original: JSONValue?)? {
        guard let action = actions.first(where: { probe[$0]?.object != nil }) else { return nil }
        let path = "/apus/probe/\(place.name)/\(place.kind)"
        if probe[path: "httpGet", "path"]?.string == path,
            probe[path: "httpGet", "port"]?.int == Int(SidecarPorts.health)
        {
            return (probe, earlier[place.name]?[place.kind])
        }
        // A probe of another host does not come to this pod at all.
        if let host = probe[path: action, "host"]?.string, !host.isEmpty { return nil }
        var original = probe
        let number = try port(probe[action]?["port"], of: container, "\(place.path).\(action).port")
        original[path: action, "port"] = .int(Int64(number))
        var rewritten = probe
        for action in actions { rewritten[action] = nil }
        rewritten["httpGet"] = ["path": .string(path), "port": .int(Int64(SidecarPorts.health)), "scheme": "HTTP"]
        return (rewritten, original)
    }

    private func port(_ value: JSONValue?, of container: JSONValue, _ field: String) throws(Refusal) -> UInt16 {
        if let number = value?.int {
            guard let port = UInt16(exactly: number), port > 0 else {
                throw Refusal(field: field, value: "\(number)", expected: "a port from 1 to 65535")
            }
            return port
        }
        let name = value?.string ?? ""
        let named = container["ports"]?.array?.first { $0["name"]?.string == name && !name.isEmpty }
        guard let number = named?["containerPort"]?.int ?? Int(name), let port = UInt16(exactly: number), port > 0
        else {
            throw Refusal(
                field: field, value: name,
                expected: "a port from 1 to 65535 or the name of one of the container's ports")
        }
        return port
    }
}
