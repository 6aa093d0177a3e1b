internal import MeshCore

/// A resource as it travels in a response: encoded once, and shared by all who are sent it.
package final class EncodedResource: Sendable {
    package let type: ResourceType
    package let name: String
    /// From the content, so that it is the same after a restart, and on another replica.
    package let version: String
    /// The field `resources` of a DeltaDiscoveryResponse, with its tag.
    package let field: [UInt8]

    /// - Parameter version: nil makes it from the content.
    package init(_ type: ResourceType, name: String, message: [UInt8], version: String? = nil) {
        self.type = type
        self.name = name
        let version = version ?? EncodedResource.version(of: message)
        self.version = version
        var any = ProtobufWriter()
        any.string(1, type.typeURL)
        any.bytes(2, message)
        var resource = ProtobufWriter()
        resource.string(1, version)
        resource.bytes(2, any.output)
        resource.string(3, name)
        var field = ProtobufWriter()
        field.bytes(2, resource.output)
        self.field = field.output
    }

    /// 64 bits of FNV-1a, in hexadecimal.
    package static func version(of bytes: [UInt8]) -> String {
        let hash = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
        let digits = String(hash, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// Writes the few fields of a protobuf message that the hot path of the discovery stream needs, without making the
/// message.
package struct ProtobufWriter {
    package private(set) var output: [UInt8] = []

    package mutating func removeAll() {
        output.removeAll(keepingCapacity: true)
    }

    package mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            output.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        output.append(UInt8(truncatingIfNeeded: rest))
    }

    package mutating func bytes(_ field: UInt64, _ bytes: [UInt8]) {
        varint(field << 3 | 2)
        varint(UInt64(bytes.count))
        output.append(contentsOf: bytes)
    }

    package mutating func string(_ field: UInt64, _ text: String) {
        varint(field << 3 | 2)
        varint(UInt64(text.utf8.count))
        output.append(contentsOf: text.utf8)
    }

    /// A field with its tag, as it was written before.
    package mutating func field(_ encoded: [UInt8]) {
        output.append(contentsOf: encoded)
    }
}
