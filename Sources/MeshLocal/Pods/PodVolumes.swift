import CApus
import Foundation
import MeshAddress
import MeshKubernetes

/// Issues the tokens of service accounts, bound to a pod.
protocol TokenIssuer: Sendable {
    func requestToken(
        namespace: String, serviceAccount: String, audiences: [String], expirationSeconds: Int, pod: PodReference?
    ) async throws -> (token: String, expires: KubernetesTime)
}

extension LocalAPI: TokenIssuer {}

/// A pod's volumes on the host: made before its containers, kept fresh while it runs, removed after it.
actor PodVolumes {
    private struct Token {
        var text: String
        var issued: KubernetesTime
        var expires: KubernetesTime
    }

    /// The one that every pod gets unless it declines.
    static let serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
    private static let serviceAccountVolume = "kube-api-access"

    private let directory: String
    private let pod: PodReference
    private let spec: Kubernetes.PodSpec
    private var fields: DownwardFields
    private let objects: PodObjects
    private let tokens: any TokenIssuer
    private let clusterCertificates: String
    private let freshness: VolumeRefresh
    private let node: NodeCapacity
    private let journal: PlatformJournal
    private let hasServiceAccountVolume: Bool
    private var issued: [String: Token] = [:]
    private var mounted: [String] = []

    init(
        directory: String, pod: PodReference, fields: DownwardFields, objects: PodObjects, platform: PodPlatform,
        hasServiceAccountVolume: Bool
    ) {
        self.directory = directory
        self.pod = pod
        spec = fields.spec
        self.fields = fields
        self.objects = objects
        tokens = platform.tokens
        clusterCertificates = platform.clusterCertificates
        freshness = platform.volumeRefresh
        node = platform.capacity
        journal = platform.journal
        self.hasServiceAccountVolume = hasServiceAccountVolume
    }

    /// Labels and annotations may change while a pod runs.
    func update(_ fields: DownwardFields) { self.fields = fields }

    private func path(_ volume: String) -> String { "\(directory)/volumes/\(volume)" }
    private var group: gid_t? { spec.securityContext?.fsGroup.flatMap { gid_t(exactly: $0) } }

    /// Makes every volume; fails with what is missing, and may be called again.
    func prepare() async throws {
        for volume in spec.volumes {
            try makeDirectory(path(volume.name))
            if let source = volume.emptyDir { try prepareEmpty(volume.name, source) }
        }
        if hasServiceAccountVolume { try makeDirectory(path(PodVolumes.serviceAccountVolume)) }
        try await refresh()
    }

    private func prepareEmpty(_ name: String, _ source: Kubernetes.EmptyDirVolumeSource) throws {
        let path = path(name)
        if source.medium == "Memory" && !mounted.contains(path) {
            try journal.change { $0.mounts.insert(path) }
            let size = source.sizeLimit?.wholeUnits.map { "size=\(max($0, 4096))," } ?? ""
            let flags = UInt(MS_NOSUID) | UInt(MS_NODEV)
            let result = apus_mount("tmpfs", path, "tmpfs", flags, "\(size)mode=0777")
            guard result == 0 else {
                throw PlatformError("volume \(name): cannot mount a tmpfs: \(errorText(-result))")
            }
            mounted.append(path)
        }
        chmod(path, 0o777)
        if let group {
            chown(path, 0, group)
            chmod(path, 0o2777)
        }
    }

    /// Brings the contents up to date: changed ConfigMaps and Secrets, tokens near their end.
    func refresh() async throws {
        for volume in spec.volumes {
            if let files = try await files(volume) {
                try VolumeDirectory(path: path(volume.name), group: group).write(files)
            }
        }
        guard hasServiceAccountVolume else { return }
        let files = [
            VolumeFile(path: "token", content: try await token("", 3607, PodVolumes.serviceAccountVolume), mode: 0o644),
            VolumeFile(path: "ca.crt", content: Data(clusterCertificates.utf8), mode: 0o644),
            VolumeFile(path: "namespace", content: Data(pod.namespace.utf8), mode: 0o644),
        ]
        try VolumeDirectory(path: path(PodVolumes.serviceAccountVolume), group: group).write(files)
    }

    /// Nil for a volume whose content is the pod's own.
    private func files(_ volume: Kubernetes.Volume) async throws -> [VolumeFile]? {
        if let source = volume.configMap {
            let values = try await objects.configMap(source.name, optional: source.optional) ?? [:]
            return try select(values, source.items, source.defaultMode, source.optional, "configMap \(source.name)")
        }
        if let source = volume.secret {
            let values = try await objects.secret(source.secretName, optional: source.optional) ?? [:]
            return try select(values, source.items, source.defaultMode, source.optional, "secret \(source.secretName)")
        }
        if let source = volume.downwardAPI { return try downward(source, nil) }
        guard let projected = volume.projected else { return nil }
        var files: [String: VolumeFile] = [:]
        for (index, source) in projected.sources.enumerated() {
            for file in try await self.files(source, projected.defaultMode, "\(volume.name)/\(index)") {
                files[file.path] = file
            }
        }
        return files.values.sorted { $0.path < $1.path }
    }

    private func files(_ source: Kubernetes.VolumeProjection, _ mode: Int?, _ key: String) async throws -> [VolumeFile]
    {
        if let wanted = source.serviceAccountToken {
            let content = try await token(wanted.audience ?? "", wanted.expirationSeconds ?? 3600, key)
            return [VolumeFile(path: wanted.path, content: content, mode: self.mode(nil, mode))]
        }
        if let items = source.configMap {
            let values = try await objects.configMap(items.name, optional: items.optional) ?? [:]
            return try select(values, items.items, mode, items.optional, "configMap \(items.name)")
        }
        if let items = source.secret {
            let values = try await objects.secret(items.name, optional: items.optional) ?? [:]
            return try select(values, items.items, mode, items.optional, "secret \(items.name)")
        }
        return try source.downwardAPI.map { try downward($0, mode) } ?? []
    }

    private func mode(_ own: Int?, _ general: Int?) -> mode_t {
        mode_t(truncatingIfNeeded: own ?? general ?? 0o644) & 0o777
    }

    private func select(
        _ values: [String: Data], _ items: [Kubernetes.KeyToPath], _ general: Int?, _ optional: Bool?, _ what: String
    ) throws -> [VolumeFile] {
        guard !items.isEmpty else {
            return values.map { VolumeFile(path: $0.key, content: $0.value, mode: mode(nil, general)) }
        }
        return try items.compactMap { item in
            guard let value = values[item.key] else {
                if optional == true { return nil }
                throw ContainerConfigError(message: "\(what) has no key \"\(item.key)\", which the volume asks for")
            }
            return VolumeFile(path: item.path, content: value, mode: mode(item.mode, general))
        }
    }

    private func downward(_ source: Kubernetes.DownwardAPIVolumeSource, _ general: Int?) throws -> [VolumeFile] {
        try source.items.map { item in
            let value =
                item.fieldRef.flatMap { fields.value($0.fieldPath) }
                ?? item.resourceFieldRef.flatMap { fields.resource($0, container: "", node) }
            guard let value else {
                throw ContainerConfigError(
                    message:
                        "downwardAPI file \(item.path): expected a fieldRef such as metadata.labels or a resourceFieldRef with containerName"
                )
            }
            return VolumeFile(
                path: item.path, content: Data(value.utf8), mode: mode(item.mode, source.defaultMode ?? general))
        }
    }

    private func token(_ audience: String, _ seconds: Int, _ key: String) async throws -> Data {
        if let known = issued[key],
            freshness.keepsToken(
                issued: known.issued.seconds, expires: known.expires.seconds, now: KubernetesTime.now.seconds)
        {
            return Data(known.text.utf8)
        }
        let issuedAt = KubernetesTime.now
        let (text, expires) = try await tokens.requestToken(
            namespace: pod.namespace, serviceAccount: spec.serviceAccountName ?? "default",
            audiences: audience.isEmpty ? [] : [audience], expirationSeconds: seconds, pod: pod)
        issued[key] = Token(text: text, issued: issuedAt, expires: expires)
        return Data(text.utf8)
    }

    // MARK: For containers

    /// Where a container's mounts come from.
    func mounts(_ container: Kubernetes.Container, _ environment: ContainerEnvironment) throws -> [ContainerMount] {
        var result: [ContainerMount] = []
        for mount in container.volumeMounts {
            guard let volume = spec.volumes.first(where: { $0.name == mount.name }) else {
                throw ContainerConfigError(message: "volumeMounts: no volume is named '\(mount.name)'")
            }
            guard mount.mountPath.hasPrefix("/"), !mount.mountPath.split(separator: "/").contains("..") else {
                throw ContainerConfigError(
                    message: "volumeMounts.mountPath '\(mount.mountPath)': expected an absolute path without '..'")
            }
            let part = mount.subPath ?? mount.subPathExpr.map(environment.expand) ?? ""
            let source =
                try part.isEmpty
                ? path(mount.name) : self.part(part, of: mount.name, isWritable: volume.emptyDir != nil)
            let isFile = apus_is_directory(source) == 0
            // Only the pod's own directories may be written, as in a cluster.
            result.append(
                ContainerMount(
                    source: source, target: mount.mountPath, isFile: isFile,
                    isReadOnly: mount.readOnly == true || volume.emptyDir == nil))
        }
        if hasServiceAccountVolume
            && !container.volumeMounts.contains(where: { $0.mountPath == PodVolumes.serviceAccountPath })
        {
            result.append(
                ContainerMount(
                    source: path(PodVolumes.serviceAccountVolume), target: PodVolumes.serviceAccountPath, isFile: false,
                    isReadOnly: true))
        }
        return result
    }

    /// A file or directory inside a volume, following links only as far as they stay inside.
    private func part(_ part: String, of volume: String, isWritable: Bool) throws -> String {
        let root = path(volume)
        guard VolumeDirectory.isContained(part) else {
            throw ContainerConfigError(message: "volumeMounts.subPath '\(part)': expected a relative path without '..'")
        }
        let wanted = "\(root)/\(part)"
        if isWritable && access(wanted, F_OK) != 0 { try makeDirectory(wanted, mode: 0o777) }
        guard let resolved = realpath(wanted, nil) else {
            throw ContainerConfigError(
                message: "volumeMounts.subPath '\(part)': the volume '\(volume)' has no such file")
        }
        defer { free(resolved) }
        let text = String(cString: resolved)
        let base = realpath(root, nil)
        defer { free(base) }
        guard let base, text.hasPrefix(String(cString: base) + "/") else {
            throw ContainerConfigError(
                message: "volumeMounts.subPath '\(part)': it leads out of the volume '\(volume)'")
        }
        return text
    }

    // MARK: Removal

    func remove() {
        for path in mounted { _ = apus_unmount(path) }
        let paths = mounted
        mounted = []
        if !paths.isEmpty { try? journal.change { $0.mounts.subtract(paths) } }
        removeTree(directory)
    }
}
