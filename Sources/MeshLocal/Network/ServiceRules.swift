package import MeshAddress
package import MeshKubernetes

/// What one address and port of a Service is turned into.
package struct ServicePortRule: Hashable, Sendable {
    package var address: IPAddress
    package var port: UInt16
    /// `tcp`, `udp` or `sctp`.
    package var transport: String
    /// The same client gets the same endpoint, as long as the endpoints stay.
    package var isSticky: Bool
    /// In the order of their text, so that equal sets give equal rules. Empty: connections are refused.
    package var endpoints: [SocketAddress]
}

/// From Services and EndpointSlices to rules. Pure.
package enum ServiceRules {
    /// The rules of one Service; empty for a headless one, one without address and one of type ExternalName.
    package static func rules(_ service: Kubernetes.Service, slices: [Kubernetes.EndpointSlice]) -> [ServicePortRule] {
        guard service.spec.type != "ExternalName" else { return [] }
        let texts = service.spec.clusterIPs.isEmpty ? [service.spec.clusterIP ?? ""] : service.spec.clusterIPs
        let addresses = texts.compactMap { IPAddress($0) }.filter(\.isV4)
        return addresses.flatMap { address in
            service.spec.ports.compactMap { port in
                guard let number = UInt16(exactly: port.port), number > 0, let transport = transport(port.protocol)
                else { return nil }
                let publishes = service.spec.publishNotReadyAddresses == true
                return ServicePortRule(
                    address: address, port: number, transport: transport,
                    isSticky: service.spec.sessionAffinity == "ClientIP",
                    endpoints: endpoints(of: port, transport, slices, publishesNotReady: publishes))
            }
        }
    }

    /// Ready endpoints; without any, those that still serve while they terminate.
    private static func endpoints(
        of port: Kubernetes.ServicePort, _ transport: String, _ slices: [Kubernetes.EndpointSlice],
        publishesNotReady: Bool
    ) -> [SocketAddress] {
        var ready: Set<SocketAddress> = []
        var leaving: Set<SocketAddress> = []
        for slice in slices where slice.addressType == "IPv4" {
            let matching = slice.ports.first { $0.name == port.name && self.transport($0.protocol) == transport }
            guard let number = matching?.port.flatMap({ UInt16(exactly: $0) }), number > 0 else { continue }
            for endpoint in slice.endpoints {
                guard let text = endpoint.addresses.first, let address = IPAddress(text), address.isV4 else { continue }
                let conditions = endpoint.conditions
                if conditions.ready ?? true || publishesNotReady {
                    ready.insert(SocketAddress(address, number))
                } else if conditions.terminating == true && conditions.serving ?? true {
                    leaving.insert(SocketAddress(address, number))
                }
            }
        }
        return (ready.isEmpty ? leaving : ready).sorted { ($0.ip.low, $0.port) < ($1.ip.low, $1.port) }
    }

    private static func transport(_ name: String?) -> String? {
        switch name ?? "TCP" {
        case "TCP": "tcp"
        case "UDP": "udp"
        case "SCTP": "sctp"
        default: nil
        }
    }
}

extension ServicePortRule {
    /// The name of the rule's chain, unique in the table.
    package var chain: String { "service-\(address)-\(transport)-\(port)" }

    /// The key in the map of services.
    package var key: String { "\(address) . \(transport) . \(port)" }

    /// The one statement of the chain; nil without endpoints.
    package var statement: String? {
        guard !endpoints.isEmpty else { return nil }
        let choice =
            isSticky ? "jhash ip saddr mod \(endpoints.count) seed 0x61707573" : "numgen random mod \(endpoints.count)"
        let elements = endpoints.enumerated().map { "\($0) : \($1.ip) . \($1.port)" }.joined(separator: ", ")
        return "meta l4proto \(transport) dnat ip to \(choice) map { \(elements) }"
    }
}

/// The table of one platform, and the scripts that change it, each one transaction. Pure.
package struct ServiceTable {
    /// `inet <name>`.
    package let name: String
    package let bridge: String
    package let podSubnet: IPv4Subnet
    package let serviceSubnet: IPv4Subnet
    private(set) var rules: [String: ServicePortRule] = [:]

    package init(name: String, bridge: String, podSubnet: IPv4Subnet, serviceSubnet: IPv4Subnet) {
        self.name = name
        self.bridge = bridge
        self.podSubnet = podSubnet
        self.serviceSubnet = serviceSubnet
    }

    /// The table from nothing, in place of what may be there.
    ///
    /// What is sent to a Service's address and not translated is refused at once, because it has no ready endpoint or no such
    /// port. A pod that reaches itself through its own Service must not see its own address as the sender, so that is
    /// masqueraded. Redirects are dropped: all pods are behind one bridge, but their traffic must pass this host, where the
    /// answers are translated back.
    package func creation(pods: [IPAddress]) -> String {
        let hairpins = pods.isEmpty ? "" : "elements = { \(pods.map { "\($0) . \($0)" }.joined(separator: ", ")) }"
        return """
            add table inet \(name)
            delete table inet \(name)
            table inet \(name) {
                map services { type ipv4_addr . inet_proto . inet_service : verdict; }
                set pods { type ipv4_addr . ipv4_addr; \(hairpins) }
                chain translate { ip daddr . meta l4proto . th dport vmap @services; }
                chain prerouting {
                    type nat hook prerouting priority dstnat; policy accept;
                    ip daddr \(serviceSubnet) jump translate
                }
                chain output {
                    type nat hook output priority -100; policy accept;
                    ip daddr \(serviceSubnet) jump translate
                }
                chain postrouting {
                    type nat hook postrouting priority srcnat; policy accept;
                    ip saddr . ip daddr @pods masquerade
                    ip saddr \(podSubnet) oifname != "\(bridge)" ip daddr != \(podSubnet) masquerade
                }
                chain refuse {
                    meta l4proto tcp reject with tcp reset
                    reject with icmp type port-unreachable
                }
                chain forward {
                    type filter hook forward priority filter; policy accept;
                    ip daddr \(serviceSubnet) jump refuse
                }
                chain local {
                    type filter hook output priority filter; policy accept;
                    ip daddr \(serviceSubnet) jump refuse
                    oifname "\(bridge)" icmp type redirect drop
                }
            }

            """
    }

    /// The script from the rules applied so far to those wanted; nil when nothing changes.
    package mutating func change(to wanted: [String: ServicePortRule]) -> String? {
        var lines: [String] = []
        for (chain, rule) in wanted where rules[chain] != rule {
            guard let statement = rule.statement else {
                if rules[chain]?.statement != nil { lines += removal(chain, rules[chain]) }
                continue
            }
            if rules[chain]?.statement == nil {
                lines += ["add chain inet \(name) \(chain)", "add rule inet \(name) \(chain) \(statement)"]
                lines.append("add element inet \(name) services { \(rule.key) : goto \(chain) }")
            } else {
                lines += ["flush chain inet \(name) \(chain)", "add rule inet \(name) \(chain) \(statement)"]
            }
        }
        for (chain, rule) in rules where wanted[chain] == nil && rule.statement != nil {
            lines += removal(chain, rule)
        }
        rules = wanted
        return lines.isEmpty ? nil : lines.joined(separator: "\n") + "\n"
    }

    private func removal(_ chain: String, _ rule: ServicePortRule?) -> [String] {
        guard let rule else { return [] }
        return ["delete element inet \(name) services { \(rule.key) }", "delete chain inet \(name) \(chain)"]
    }

    package func podAddition(_ address: IPAddress) -> String {
        "add element inet \(name) pods { \(address) . \(address) }\n"
    }
    package func podRemoval(_ address: IPAddress) -> String {
        "delete element inet \(name) pods { \(address) . \(address) }\n"
    }

    /// Forgets what was applied: after a failed script the next one starts with the table's creation.
    package mutating func forget() { rules = [:] }
}
