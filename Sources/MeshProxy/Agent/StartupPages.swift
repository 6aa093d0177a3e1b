import Glibc

/// Gives back the program pages that only the start needed: parsing of arguments, the first certificate, the first discovery. The kernel
/// keeps them in its page cache, maps again at a touch those that are in use, and is free to reclaim the others.
package enum StartupPages {
    private static let mapsLimitBytes = 256 * 1024

    /// Safe while other threads run: the mappings concerned are never written, so that every page can be had from its file again.
    package static func release() {
        for range in programText(inMaps: readMaps()) {
            _ = madvise(
                UnsafeMutableRawPointer(bitPattern: range.lowerBound), Int(range.upperBound - range.lowerBound),
                MADV_DONTNEED)
        }
    }

    /// The file mappings that are executable and not writable, out of the text of `/proc/self/maps` (proc(5)). Constants are left out: they
    /// cannot be told there from data that the loader relocated and then protected, whose pages no file has.
    package static func programText(inMaps maps: String) -> [Range<UInt>] {
        maps.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            guard fields.count == 6, fields[1] == "r-xp", fields[5].drop(while: { $0 == " " }).hasPrefix("/") else {
                return nil
            }
            let bounds = fields[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
            guard bounds.count == 2, bounds[0] < bounds[1] else { return nil }
            return bounds[0]..<bounds[1]
        }
    }

    /// Empty when it cannot be read.
    private static func readMaps() -> String {
        let descriptor = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while bytes.count < mapsLimitBytes {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += chunk.prefix(count)
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
