import Glibc

/// One directory or file of the host at a place in a container.
struct ContainerMount: Hashable, Sendable {
    /// On the host.
    var source: String
    var target: String
    var isFile: Bool
    var isReadOnly: Bool
}

/// A container's view of the machine: its files in an overlay whose writes go to memory and end with the container, so
/// that nothing of the host is changed and any mount point can be made; `/proc`, `/sys` and `/dev` of its own; the
/// platform's data directory hidden.
struct RootFileSystem: Sendable {
    /// An empty directory of the host, over which each container mounts privately.
    var stage: String
    /// Emptied, so that a container cannot read the platform's keys.
    var hiddenDirectories: [String]
    var mounts: [ContainerMount]
    var isReadOnly: Bool
    /// Made when it is missing, as container runtimes do.
    var workingDirectory: String
    /// What a container may write to its root file system, in bytes of memory.
    var writableBytes: Int

    private static let oldRoot = "/.apus-old"

    /// Links in many a root file system, for which a mount needs a file.
    private static let written = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]

    private static let noSuid = UInt(MS_NOSUID)
    private static let quiet = UInt(MS_NOSUID) | UInt(MS_NODEV) | UInt(MS_NOEXEC)

    /// Appends the steps that make it and move into it.
    func append(to launch: inout LaunchSpecification, hostMounts: [HostMount]) {
        let root = stage + "/root"
        launch.mount("tmpfs", on: stage, type: "tmpfs", data: "size=\(writableBytes),mode=0755", flags: Self.noSuid)
        layer("/", number: 0, on: root, &launch)
        for (index, mount) in hostMounts.enumerated() {
            if mount.isDirectory {
                layer(mount.path, number: index + 1, on: root + mount.path, &launch)
            } else {
                launch.mountIfPossible(mount.path, on: root + mount.path, flags: UInt(MS_BIND))
            }
        }
        launch.makeDirectory(root + Self.oldRoot, mode: 0o700)
        launch.pivot(to: root, keepingOldAt: root + Self.oldRoot)
        appendKernelFileSystems(&launch)
        for directory in hiddenDirectories {
            launch.mountIfPossible(
                "tmpfs", on: directory, type: "tmpfs", data: "size=4k,mode=0700", flags: Self.quiet | UInt(MS_RDONLY))
        }
        let mounts = mounts.sorted { $0.target < $1.target }
        for path in Self.written where mounts.contains(where: { $0.target == path }) { launch.makeRegularFile(path) }
        for mount in mounts { makePlace(for: mount, &launch) }
        if workingDirectory.hasPrefix("/") { launch.makeDirectory(workingDirectory) }
        if isReadOnly { readOnly("/", &launch) }
        for mount in mounts {
            // Within another mount the place made above is covered by now.
            makePlace(for: mount, &launch)
            launch.bind(Self.oldRoot + mount.source, on: mount.target, isReadOnly: mount.isReadOnly)
        }
        launch.unmount(Self.oldRoot)
    }

    private func layer(_ path: String, number: Int, on target: String, _ launch: inout LaunchSpecification) {
        let (upper, work) = ("\(stage)/u\(number)", "\(stage)/w\(number)")
        launch.makeDirectory(upper)
        launch.makeDirectory(work)
        if number == 0 { launch.makeDirectory(target) }
        launch.overlay(path, upper: upper, work: work, on: target)
    }

    private func makePlace(for mount: ContainerMount, _ launch: inout LaunchSpecification) {
        if mount.isFile { launch.makeFile(mount.target) } else { launch.makeDirectory(mount.target) }
    }

    private func readOnly(_ path: String, _ launch: inout LaunchSpecification) {
        launch.mount("", on: path, flags: UInt(MS_REMOUNT) | UInt(MS_BIND) | UInt(MS_RDONLY))
    }

    private func appendKernelFileSystems(_ launch: inout LaunchSpecification) {
        launch.mount("proc", on: "/proc", type: "proc", flags: Self.quiet)
        launch.mount("sysfs", on: "/sys", type: "sysfs", flags: Self.quiet | UInt(MS_RDONLY))
        launch.mount("tmpfs", on: "/dev", type: "tmpfs", data: "size=64k,mode=0755", flags: Self.noSuid)
        for device in ["null", "zero", "full", "random", "urandom", "tty"] {
            launch.makeFile("/dev/" + device)
            launch.mount(Self.oldRoot + "/dev/" + device, on: "/dev/" + device, flags: UInt(MS_BIND))
        }
        launch.makeDirectory("/dev/pts")
        launch.makeDirectory("/dev/shm", mode: 0o1777)
        launch.mount(
            "devpts", on: "/dev/pts", type: "devpts", data: "newinstance,ptmxmode=0666,mode=0620",
            flags: Self.noSuid | UInt(MS_NOEXEC))
        launch.mount("tmpfs", on: "/dev/shm", type: "tmpfs", data: "size=64m,mode=1777", flags: Self.quiet)
        for (path, target) in [
            ("/dev/ptmx", "pts/ptmx"), ("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0"),
            ("/dev/stdout", "/proc/self/fd/1"), ("/dev/stderr", "/proc/self/fd/2"),
        ] {
            launch.link(path, to: target)
        }
        for path in ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"] {
            launch.mountIfPossible(path, on: path, flags: UInt(MS_BIND) | UInt(MS_REC))
            launch.mountIfPossible("", on: path, flags: UInt(MS_REMOUNT) | UInt(MS_BIND) | UInt(MS_RDONLY))
        }
        for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
            launch.mountIfPossible("/dev/null", on: path, flags: UInt(MS_BIND))
        }
    }
}
