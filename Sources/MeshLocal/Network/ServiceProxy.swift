import MeshKubernetes

/// Turns each Service's rules into the network's.
actor ServiceProxy {
    private let network: BridgeNetwork
    private var chains: [ServiceCatalog.Key: Set<String>] = [:]

    init(_ network: BridgeNetwork) { self.network = network }

    func changed(_ key: ServiceCatalog.Key, _ entry: ServiceCatalog.Entry?) async {
        let rules =
            entry?.service.map { ServiceRules.rules($0, slices: Array(entry?.slices.values ?? [:].values)) } ?? []
        let former = chains[key] ?? []
        chains[key] = rules.isEmpty ? nil : Set(rules.map(\.chain))
        guard !rules.isEmpty || !former.isEmpty else { return }
        await network.setRules(rules, formerChains: former)
    }
}
