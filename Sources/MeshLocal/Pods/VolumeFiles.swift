import Crypto
import Foundation

/// One file of a ConfigMap, Secret, token or downward API volume.
struct VolumeFile: Hashable, Sendable {
    /// Relative, without `..`.
    var path: String
    var content: Data
    var mode: mode_t
}

/// Files that change all at once: they stand in a directory of their own, and `..data` is a link to it that is replaced
/// by renaming, so that a reader never sees a part of the old and a part of the new (the layout that Kubernetes has).
struct VolumeDirectory: Sendable {
    let path: String
    /// Of the files, when the pod has one.
    let group: gid_t?

    /// Nothing happens when the content is the same as it was.
    func write(_ files: [VolumeFile]) throws {
        let version = "..v-" + Self.digest(files)
        let current = try? FileManager.default.destinationOfSymbolicLink(atPath: path + "/..data")
        guard current != version else { return }
        let directory = "\(path)/\(version)"
        removeTree(directory)
        try makeDirectory(directory)
        for file in files {
            guard Self.isContained(file.path) else {
                throw PlatformError("volume file path '\(file.path)': expected a relative path without '..'")
            }
            let target = "\(directory)/\(file.path)"
            if let slash = target.lastIndex(of: "/") { try makeDirectory(String(target[..<slash])) }
            // A pod's group gets to read what its owner may.
            let mode = group == nil ? file.mode : file.mode | (file.mode & 0o400) >> 3
            try writeFile(target, file.content, mode: mode)
            if let group { chown(target, 0, group) }
        }
        let link = path + "/..data.new"
        unlink(link)
        guard symlink(version, link) == 0, rename(link, path + "/..data") == 0 else {
            throw PlatformError("cannot switch \(path)/..data: \(lastError())")
        }
        try arrange(files)
        for entry in (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        where entry.hasPrefix("..v-") && entry != version {
            removeTree("\(path)/\(entry)")
        }
    }

    /// The visible names are links through `..data`.
    private func arrange(_ files: [VolumeFile]) throws {
        let names = Set(files.compactMap { $0.path.split(separator: "/").first.map(String.init) })
        for entry in (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        where !entry.hasPrefix("..") && !names.contains(entry) {
            unlink("\(path)/\(entry)")
        }
        for name in names where symlink("..data/\(name)", "\(path)/\(name)") != 0 && errno != EEXIST {
            throw PlatformError("cannot link \(path)/\(name): \(lastError())")
        }
    }

    static func isContained(_ path: String) -> Bool {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        return !path.isEmpty && !parts.contains("") && !parts.contains(".") && !parts.contains { $0.hasPrefix("..") }
    }

    private static func digest(_ files: [VolumeFile]) -> String {
        var hash = SHA256()
        for file in files.sorted(by: { $0.path < $1.path }) {
            hash.update(data: Data("\(file.path)\n\(file.mode)\n\(file.content.count)\n".utf8))
            hash.update(data: file.content)
        }
        return hash.finalize().prefix(12).map { String(UInt16($0) + 0x100, radix: 16).dropFirst() }.joined()
    }
}
