import MeshKubernetes

/// Sends the platform's probes to the sidecar, which performs them inside the pod: under strict mTLS the application's
/// ports answer nobody without an identity, and the platform has none.
///
/// Works on documents rather than on views, so that a probe reaches the sidecar as its author wrote it.
struct ProbeRewrite {
    /// Container → `startup`, `liveness` or `readiness` → the probe, its port a number.
    private(set) var originals: [String: JSONValue] = [:]

    private static let kinds = ["startup", "liveness", "readiness"]
    private static let network = ["httpGet", "tcpSocket", "grpc"]

    /// - Parameter earlier: what an earlier rewrite of the same pod kept, for containers that it has changed already.
    mutating func rewrite(_ container: inout JSONValue, field: String, earlier: JSONValue) throws(Refusal) {
        guard let name = container["name"]?.string else { return }
        var kept: [String: JSONValue] = [:]
        for kind in ProbeRewrite.kinds {
            guard let probe = container["\(kind)Probe"],
                let action = ProbeRewrite.network.first(where: { probe[$0] != nil })
            else { continue }
            let path = "/apus/probe/\(name)/\(kind)"
            if probe[path: "httpGet", "path"]?.string == path,
                probe[path: "httpGet", "port"]?.int == Int(SidecarPorts.health)
            {
                kept[kind] = earlier[name]?[kind]
                continue
            }
            // A probe of another host does not come to this pod at all.
            if let host = probe[path: action, "host"]?.string, !host.isEmpty { continue }
            var original = probe
            let place = "\(field).\(kind)Probe.\(action).port"
            original[path: action, "port"] = .int(Int64(try port(probe[action]?["port"], of: container, place)))
            kept[kind] = original
            var rewritten = probe
            for action in ProbeRewrite.network { rewritten[action] = nil }
            rewritten["httpGet"] = ["path": .string(path), "port": .int(Int64(SidecarPorts.health)), "scheme": "HTTP"]
            container["\(kind)Probe"] = rewritten
        }
        if !kept.isEmpty { originals[name] = .object(kept) }
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
