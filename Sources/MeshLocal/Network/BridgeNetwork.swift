import CApus
import Foundation
import Logging
import MeshAddress
import MeshKubernetes

/// Names and address pools of one platform's network. Two platforms on one machine need different bridges and subnets.
package struct NetworkSettings: Hashable, Sendable {
    /// At most 15 bytes, as for any interface.
    package var bridge: String
    package var podSubnet: String
    package var serviceSubnet: String
    /// Of the pods' interfaces, in bytes.
    package var mtu: Int

    package init(
        bridge: String = "apus0", podSubnet: String = "10.97.0.0/16", serviceSubnet: String = "10.96.0.0/16",
        mtu: Int = 1500
    ) {
        self.bridge = bridge
        self.podSubnet = podSubnet
        self.serviceSubnet = serviceSubnet
        self.mtu = mtu
    }
}

/// A pod's place in the network.
struct PodSandbox: Sendable, Hashable {
    /// Of the network namespace, and of the host's end of its link.
    var name: String
    var address: IPAddress
    /// The namespace's file.
    var path: String { BridgeNetwork.namespaceDirectory + "/" + name }
}

/// The bridge, the pods' network namespaces and links, and the translation of Service addresses.
///
/// A pod has its address alone (/32) and reaches everything through the bridge's own address, so that traffic between pods
/// is routed by the host and passes its translation in both directions. Where a host lets bridged frames pass its IP rules
/// (`bridge-nf-call-iptables`), the first packet of a connection to a Service may instead be translated and bridged at
/// once; the answer is routed all the same. Both ways work; therefore ports are not isolated, and reflect to themselves.
actor BridgeNetwork {
    static let namespaceDirectory = "/run/netns"

    nonisolated let settings: NetworkSettings
    nonisolated let podSubnet: IPv4Subnet
    nonisolated let serviceSubnet: IPv4Subnet
    private let ip: SystemTool
    private let nft: SystemTool
    private let spawner: ContainerSpawner
    private let journal: PlatformJournal
    private let log: Logger
    private var pool: AddressPool
    private var table: ServiceTable
    private var attached: [String: IPAddress] = [:]
    private var wanted: [String: ServicePortRule] = [:]
    /// What brings nftables up to date, while there is something to do.
    private var applying: Task<Void, Never>?
    private var isClosed = false
    /// Nil until the table stands; afterwards whether it has to be made anew, because a change failed.
    private var mustCreateTable: Bool?

    /// The gateway of the pods; the node's and the DNS server's address.
    nonisolated var gateway: IPAddress { podSubnet.gateway }

    init(_ settings: NetworkSettings, spawner: ContainerSpawner, journal: PlatformJournal, log: Logger) throws {
        guard let pods = IPv4Subnet(settings.podSubnet) else {
            throw PlatformError("pod subnet '\(settings.podSubnet)': expected an IPv4 network such as 10.97.0.0/16")
        }
        guard let services = IPv4Subnet(settings.serviceSubnet) else {
            throw PlatformError(
                "service subnet '\(settings.serviceSubnet)': expected an IPv4 network such as 10.96.0.0/16")
        }
        guard !pods.overlaps(services) else {
            throw PlatformError("pod subnet \(pods) and service subnet \(services) overlap; choose two that do not")
        }
        guard BridgeNetwork.isInterfaceName(settings.bridge) else {
            throw PlatformError("bridge '\(settings.bridge)': expected 1 to 15 letters, digits, '-' or '_'")
        }
        self.settings = settings
        podSubnet = pods
        serviceSubnet = services
        ip = try BridgeNetwork.tool("ip", package: "iproute2")
        nft = try BridgeNetwork.tool("nft", package: "nftables")
        self.spawner = spawner
        self.journal = journal
        self.log = log
        pool = AddressPool(pods)
        table = ServiceTable(
            name: BridgeNetwork.tableName(settings.bridge), bridge: settings.bridge, podSubnet: pods,
            serviceSubnet: services)
    }

    static func isInterfaceName(_ name: String) -> Bool {
        (1...15).contains(name.utf8.count)
            && name.utf8.allSatisfy { byte in
                (97...122).contains(byte | 0x20) || (48...57).contains(byte) || byte == UInt8(ascii: "-")
                    || byte == UInt8(ascii: "_")
            }
    }

    static func tableName(_ bridge: String) -> String { "apus_" + bridge.replacing("-", with: "_") }

    private static func tool(_ name: String, package: String) throws -> SystemTool {
        guard let tool = SystemTool.find(name) else {
            throw PlatformError("the program '\(name)' is missing; install it with: apt-get install \(package)")
        }
        return tool
    }

    // MARK: The host's side

    /// Makes the bridge and the table. What a former run left must have been cleaned up.
    func setUp() async throws {
        let bridge = settings.bridge
        if let existing = try? await ip.run(["-o", "addr", "show"]), let taken = conflict(in: existing) {
            throw PlatformError(taken)
        }
        try journal.change { record in
            record.bridge = bridge
            record.table = table.name
            record.networkNamespace = BridgeNetwork.namespaceInode()
        }
        try makeDirectory(BridgeNetwork.namespaceDirectory)
        // Without an address of its own a bridge takes the lowest of its ports', so that it would change with every pod, and
        // what the pods know of their neighbour would be wrong for a while.
        let hardware = (gateway.bytes.suffix(4)).map { ":" + String(UInt16($0) + 0x100, radix: 16).dropFirst() }
            .joined()
        try await ip.run(
            ["-batch", "-"],
            input: """
                link add name \(bridge) mtu \(settings.mtu) address 0a:58\(hardware) type bridge stp_state 0 forward_delay 0 mcast_snooping 0
                addr add \(gateway)/\(podSubnet.prefixLength) dev \(bridge)
                link set dev \(bridge) up
                route add \(serviceSubnet) dev \(bridge) src \(gateway)

                """)
        try KernelSetting.set("net/ipv4/ip_forward", "1", journal)
        _ = KernelSetting.write("net/ipv4/conf/\(bridge)/send_redirects", "0")
        _ = KernelSetting.write("net/ipv6/conf/\(bridge)/accept_ra", "0")
        try await HostFirewall(nft: nft).open(bridge: bridge, journal)
        mustCreateTable = true
        let first = Task { await apply() }
        applying = first
        await first.value
        applying = nil
        if mustCreateTable == true {
            throw PlatformError("the nftables rules could not be installed; the log has nft's complaint")
        }
    }

    private func conflict(in listing: String) -> String? {
        for line in listing.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count > 3, fields[2] == "inet", let slash = fields[3].firstIndex(of: "/"),
                let address = IPAddress(fields[3][..<slash])
            else { continue }
            if fields[1] == settings.bridge {
                return
                    "the interface \(settings.bridge) exists already and is not this platform's; stop what made it or choose another bridge name"
            }
            for subnet in [podSubnet, serviceSubnet] where subnet.contains(address) {
                return
                    "the interface \(fields[1]) has the address \(fields[3]) in \(subnet); choose another subnet for pods or services"
            }
        }
        return nil
    }

    /// Of the namespace in which this process is.
    static func namespaceInode() -> UInt64 { apus_inode("/proc/self/ns/net") }

    // MARK: Pods

    /// Makes a network namespace with an address of its own.
    func attach() async throws -> PodSandbox {
        guard let address = pool.take() else {
            throw PlatformError(
                "every address of the pod subnet \(podSubnet) is taken; delete pods or choose a larger subnet")
        }
        let random = String(UInt32.random(in: .min ... .max), radix: 16)
        let name = "apus-" + String(repeating: "0", count: 8 - random.utf8.count) + random
        let sandbox = PodSandbox(name: name, address: address)
        do {
            try journal.change { $0.sandboxes.insert(name) }
            var namespace = LaunchSpecification()
            for (path, value) in BridgeNetwork.podSettings { namespace.write(value, to: "/proc/sys/net/" + path) }
            namespace.nameNetworkNamespace(sandbox.path)
            try await spawner.makeNetworkNamespace(namespace)
            try await ip.run(
                ["-batch", "-"],
                input: """
                    link add name \(name) mtu \(settings.mtu) type veth peer name eth0 mtu \(settings.mtu) netns \(name)
                    link set dev \(name) master \(settings.bridge)
                    link set dev \(name) type bridge_slave hairpin on
                    link set dev \(name) up

                    """)
            try await ip.run(
                ["-n", name, "-batch", "-"],
                input: """
                    addr add \(address)/32 dev eth0
                    link set dev eth0 up
                    route add default via \(gateway) dev eth0 onlink

                    """)
            attached[name] = address
            try await nft.run(["-f", "-"], input: table.podAddition(address))
            return sandbox
        } catch {
            await detach(sandbox)
            throw error
        }
    }

    /// Ports below 1024 and echo sockets are for every user of a pod, as in a cluster; the rest keeps the link quiet.
    private static let podSettings = [
        ("ipv4/ip_unprivileged_port_start", "0"), ("ipv4/ping_group_range", "0 2147483647"),
        ("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0"), ("ipv4/conf/all/accept_redirects", "0"),
        ("ipv4/conf/default/accept_redirects", "0"), ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/addr_gen_mode", "1"),
    ]

    /// Removes a pod's namespace, and with it the link; the address may be given again.
    ///
    /// The kernel takes its time to remove a link, during which it changes no other. Without its name the namespace ends with
    /// its last process, and the kernel then removes the links of many at once; so nobody waits for it here.
    func detach(_ sandbox: PodSandbox) async {
        if attached.removeValue(forKey: sandbox.name) != nil {
            _ = try? await nft.run(["-f", "-"], input: table.podRemoval(sandbox.address))
        }
        BridgeNetwork.removeNamespace(sandbox.name)
        pool.giveBack(sandbox.address)
        Task {
            for _ in 0..<50 where BridgeNetwork.hasLink(sandbox.name) { try? await Task.sleep(for: .milliseconds(100)) }
            // Something else of the machine holds the namespace, such as a copy of the mounts.
            if BridgeNetwork.hasLink(sandbox.name) { _ = try? await ip.run(["link", "delete", "dev", sandbox.name]) }
            try? journal.change { $0.sandboxes.remove(sandbox.name) }
        }
    }

    /// Also for what a killed platform left: nothing of it needs to exist. Returns when nothing does.
    static func removeSandbox(_ name: String, ip: SystemTool) {
        removeNamespace(name)
        if hasLink(name) { _ = try? ip.runAndWait(["link", "delete", "dev", name]) }
        // The kernel may be about to remove it by itself.
        for _ in 0..<200 where hasLink(name) { usleep(10_000) }
    }

    private static func removeNamespace(_ name: String) {
        let path = namespaceDirectory + "/" + name
        _ = apus_unmount(path)
        unlink(path)
    }

    static func hasLink(_ name: String) -> Bool { if_nametoindex(name) != 0 }

    // MARK: Services

    /// Replaces the rules of one Service. Returns before they are applied: changes that arrive while nftables works on
    /// earlier ones are applied together, so that a burst costs a few transactions.
    func setRules(_ rules: [ServicePortRule], formerChains: Set<String>) {
        for chain in formerChains { wanted[chain] = nil }
        for rule in rules { wanted[rule.chain] = rule }
        guard applying == nil, mustCreateTable != nil, !isClosed else { return }
        applying = Task {
            await apply()
            applying = nil
        }
    }

    /// Changes nothing in nftables from now on, and returns when nothing is being changed: a change that came after the table's removal would
    /// bring the table back.
    func close() async {
        isClosed = true
        await applying?.value
    }

    /// Returns when nothing is left to change, or when nftables refuses even the whole table; then the next change tries again.
    private func apply() async {
        while !isClosed {
            let isWhole = mustCreateTable == true
            if isWhole { table.forget() }
            let change = table.change(to: wanted)
            guard isWhole || change != nil else { return }
            let script = (isWhole ? table.creation(pods: Array(attached.values)) : "") + (change ?? "")
            do {
                try await nft.run(["-f", "-"], input: script)
                mustCreateTable = false
            } catch {
                log.error("nftables refused the rules of the Services", metadata: ["reason": "\(error)"])
                mustCreateTable = true
                if isWhole { return }
            }
        }
    }
}
