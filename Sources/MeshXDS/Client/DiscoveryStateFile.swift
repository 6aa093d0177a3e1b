internal import Glibc
package import MeshAPI
internal import SwiftProtobuf

/// The last known state of a sidecar on disk: a header, then a DeltaDiscoveryResponse for each type, each with its
/// length.
///
/// Written beside and renamed, so that a reader sees the old or the new one; what is torn all the same is told by its
/// checksum.
package enum DiscoveryStateFile {
    /// Of a file that is read or written; a larger state is not kept.
    package static let sizeLimit = 64 * 1024 * 1024
    private static let magic: [UInt8] = Array("APUSDSC1".utf8)
    private static let headerLength = 24

    package struct Problem: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    package static func encode(_ view: DiscoveryView) -> [UInt8] {
        var payload = ProtobufWriter()
        for type in ResourceType.allCases {
            let resources = view.resources(type)
            guard !resources.isEmpty else { continue }
            var response = ProtobufWriter()
            response.string(4, type.typeURL)
            for resource in resources.sorted(by: { $0.name < $1.name }) { response.field(resource.field) }
            payload.varint(UInt64(response.output.count))
            payload.field(response.output)
        }
        return magic + littleEndian(UInt64(payload.output.count)) + littleEndian(checksum(payload.output[...]))
            + payload.output
    }

    package static func decode(_ bytes: [UInt8]) throws(Problem) -> [Envoy_Service_Discovery_V3_DeltaDiscoveryResponse]
    {
        guard bytes.count >= headerLength, Array(bytes[..<8]) == magic else {
            throw Problem(description: "it is not a discovery state of this version")
        }
        let payload = bytes[headerLength...]
        guard number(bytes[8..<16]) == UInt64(payload.count), number(bytes[16..<24]) == checksum(payload) else {
            throw Problem(description: "it is torn or damaged")
        }
        var responses: [Envoy_Service_Discovery_V3_DeltaDiscoveryResponse] = []
        var rest = payload
        while !rest.isEmpty {
            guard let length = varint(&rest), let count = Int(exactly: length), count <= rest.count,
                let response = try? Envoy_Service_Discovery_V3_DeltaDiscoveryResponse(
                    serializedBytes: Array(rest.prefix(count)))
            else { throw Problem(description: "its content cannot be read") }
            responses.append(response)
            rest = rest.dropFirst(count)
        }
        return responses
    }

    /// Nil when there is no file.
    package static func read(_ path: String) throws(Problem) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw problem("open")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw problem("fstat") }
        guard status.st_size <= sizeLimit else {
            throw Problem(description: "it has \(status.st_size) bytes, \(sizeLimit) are permitted")
        }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var filled = 0
        while filled < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                Glibc.read(descriptor, $0.baseAddress! + filled, $0.count - filled)
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { break }
            filled += count
        }
        return Array(bytes[..<filled])
    }

    package static func write(_ bytes: [UInt8], _ path: String) throws(Problem) {
        guard bytes.count <= sizeLimit else {
            throw Problem(description: "the state has \(bytes.count) bytes, \(sizeLimit) are permitted")
        }
        let temporary = path + ".new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw problem("open \(temporary)") }
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + written, $0.count - written) }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                let failure = problem("write \(temporary)")
                close(descriptor)
                unlink(temporary)
                throw failure
            }
            written += count
        }
        guard close(descriptor) == 0, rename(temporary, path) == 0 else {
            let failure = problem("rename \(temporary)")
            unlink(temporary)
            throw failure
        }
    }

    private static func problem(_ operation: String) -> Problem {
        Problem(description: "\(operation): \(String(cString: strerror(errno)))")
    }

    private static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
    }

    private static func littleEndian(_ value: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) }
    }

    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private static func varint(_ bytes: inout ArraySlice<UInt8>) -> UInt64? {
        var value: UInt64 = 0
        for shift in stride(from: 0 as UInt64, to: 63, by: 7) {
            guard let byte = bytes.popFirst() else { return nil }
            value |= UInt64(byte & 0x7f) << shift
            if byte & 0x80 == 0 { return value }
        }
        return nil
    }
}
