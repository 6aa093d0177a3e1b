import MeshKubernetes

/// The small files that every container of a pod finds in `/etc`. Pure, but for the host's resolvers.
struct PodFiles {
    let fields: DownwardFields
    let platform: PodPlatform

    /// At most 63 bytes, as the API has it.
    var hostname: String { String((fields.spec.hostname ?? fields.metadata.name).prefix(63)) }

    /// With the subdomain, under which a headless Service publishes the name.
    private var qualifiedName: String? {
        fields.spec.subdomain.map { "\(hostname).\($0).\(fields.metadata.namespace).svc.\(platform.clusterDomain)" }
    }

    var hosts: String {
        var text = """
            127.0.0.1\tlocalhost
            ::1\tlocalhost ip6-localhost ip6-loopback
            \(fields.podAddress)\t\(qualifiedName.map { "\($0) " } ?? "")\(hostname)

            """
        for alias in fields.spec.hostAliases { text += "\(alias.ip)\t\(alias.hostnames.joined(separator: " "))\n" }
        return text
    }

    var resolvers: String {
        var servers: [String] = []
        var searches: [String] = []
        var options: [String] = []
        switch fields.spec.dnsPolicy ?? "ClusterFirst" {
        case "None": break
        case "Default":
            let host = platform.hostResolvers.read()
            servers = host.servers.map { "\($0)" }
            searches = host.searches
        default:
            let domain = platform.clusterDomain
            servers = ["\(platform.network.gateway)"]
            searches = ["\(fields.metadata.namespace).svc.\(domain)", "svc.\(domain)", domain]
            searches += platform.hostResolvers.read().searches.filter { $0 != "." && !searches.contains($0) }
            options = ["ndots:5"]
        }
        if let own = fields.spec.dnsConfig {
            servers += own.nameservers
            searches += own.searches
            for option in own.options {
                options.removeAll { $0 == option.name || $0.hasPrefix(option.name + ":") }
                options.append(option.value.map { "\(option.name):\($0)" } ?? option.name)
            }
        }
        var lines: [String] = []
        if !searches.isEmpty { lines.append("search \(searches.prefix(32).joined(separator: " "))") }
        lines += servers.prefix(3).map { "nameserver \($0)" }
        if !options.isEmpty { lines.append("options \(options.joined(separator: " "))") }
        return lines.joined(separator: "\n") + "\n"
    }
}
