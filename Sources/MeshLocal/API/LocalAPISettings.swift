/// What the API server of `apus up` has to know of its platform.
package struct LocalAPISettings: Sendable, Hashable {
    /// The one node's name, given to every pod as `spec.nodeName`.
    package var nodeName: String
    /// The pool of Service addresses, in CIDR notation. The first address is that of the `kubernetes` Service, the tenth is free
    /// for the cluster's DNS, the rest is handed out.
    package var serviceSubnet: String
    package var clusterDomain: String
    /// `serverVersion.gitVersion` of `/version`.
    package var version: String

    package init(
        nodeName: String, serviceSubnet: String = "10.96.0.0/16", clusterDomain: String = "cluster.local",
        version: String = "v1.31.0+apus"
    ) {
        self.nodeName = nodeName
        self.serviceSubnet = serviceSubnet
        self.clusterDomain = clusterDomain
        self.version = version
    }
}
