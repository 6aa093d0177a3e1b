/// The sidecar's own ports and user (docs/ARCHITECTURE.md).
enum SidecarPorts {
    static let admin: UInt16 = 15000
    static let outbound: UInt16 = 15001
    static let inbound: UInt16 = 15006
    static let metrics: UInt16 = 15020
    static let health: UInt16 = 15021

    static let all: [UInt16] = [admin, outbound, inbound, metrics, health]
    static let user = 1337
}

/// The names of what the injector adds to a pod.
enum SidecarNames {
    static let capture = "apus-capture"
    static let proxy = "apus-proxy"
    static let identityVolume = "apus-identity"
    static let stateVolume = "apus-state"

    static let containers = [capture, proxy]
    static let volumes = [identityVolume, stateVolume]
}
