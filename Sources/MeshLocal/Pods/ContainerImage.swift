import Glibc
import MeshKubernetes

/// What an image name means on this machine. Nothing is pulled.
struct ContainerImage {
    /// Of the image, for a container without a command.
    var entrypoint: [String]
    var mounts: [ContainerMount]

    static let binaryDirectory = "/usr/local/bin"

    /// `host` is the machine's own files; `apus/proxy` and `apus/control`, with any tag, are these and the built binary.
    init(_ container: Kubernetes.Container, platform: PodPlatform) throws {
        let name = container.image.prefix { $0 != ":" && $0 != "@" }
        switch name {
        case "host":
            guard !container.command.isEmpty else {
                throw ContainerConfigError(
                    reason: "RunContainerError",
                    message: "container \(container.name): the image 'host' has no command of its own; set command")
            }
            (entrypoint, mounts) = ([], [])
        case "apus/proxy", "apus/control":
            let binary = name == "apus/proxy" ? "apus-proxy" : "apus-control"
            let source = "\(platform.binaryDirectory)/\(binary)"
            guard access(source, X_OK) == 0 else {
                throw ContainerConfigError(
                    reason: "ErrImageNeverPull",
                    message:
                        "container \(container.name): the image '\(container.image)' is the program \(source), which is missing; "
                        + "build it beside apus")
            }
            // At a place of its own, because the directory it was built in may be closed to the container's user.
            let target = "\(ContainerImage.binaryDirectory)/\(binary)"
            entrypoint = [target]
            mounts = [ContainerMount(source: source, target: target, isFile: true, isReadOnly: true)]
        default:
            throw ContainerConfigError(
                reason: "ErrImageNeverPull",
                message:
                    "container \(container.name): image '\(container.image)' is not on this platform, which pulls none; expected "
                    + "host, apus/proxy or apus/control")
        }
    }
}

/// As whom a container runs and what it may do.
struct ContainerIdentity {
    var user: UInt32
    var group: UInt32
    var supplementary: [UInt32]
    var capabilities: UInt64
    var forbidsNewPrivileges: Bool

    init(_ container: Kubernetes.Container, _ pod: Kubernetes.PodSpec) throws {
        let own = container.securityContext
        let shared = pod.securityContext
        func id(_ value: Int, _ field: String) throws -> UInt32 {
            guard let id = UInt32(exactly: value), id < UInt32.max else {
                throw ContainerConfigError(
                    message: "container \(container.name): \(field) \(value): expected 0 to 4294967294")
            }
            return id
        }
        user = try id(own?.runAsUser ?? shared?.runAsUser ?? 0, "runAsUser")
        group = try id(own?.runAsGroup ?? shared?.runAsGroup ?? 0, "runAsGroup")
        supplementary = try (shared?.supplementalGroups ?? []).map { try id($0, "supplementalGroups") }
        if let volumes = shared?.fsGroup { supplementary.append(try id(volumes, "fsGroup")) }
        if own?.runAsNonRoot ?? shared?.runAsNonRoot ?? false, user == 0 {
            throw ContainerConfigError(
                message:
                    "container \(container.name): container has runAsNonRoot and image will run as root; set runAsUser")
        }
        do {
            capabilities = try LinuxCapabilities.effective(
                add: own?.capabilities?.add ?? [], drop: own?.capabilities?.drop ?? [])
        } catch {
            throw ContainerConfigError(message: "container \(container.name): \(error)")
        }
        forbidsNewPrivileges = own?.allowPrivilegeEscalation == false
    }

    func append(to launch: inout LaunchSpecification) {
        launch.user(user, group: group, supplementary: supplementary)
        launch.capabilities(capabilities)
        if forbidsNewPrivileges { launch.forbidNewPrivileges() }
    }
}
