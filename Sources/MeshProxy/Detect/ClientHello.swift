/// What an inbound connection's first bytes say: whether a sidecar of the mesh is calling.
///
/// Only the ClientHello's ALPN extension is read (RFC 8446 §4.1.2, RFC 7301 §3.1); nothing is verified here. The handshake
/// that follows decides who it is.
package enum ClientHello {
    package enum Result: Sendable, Equatable {
        case needsMore
        /// A ClientHello that offers `apus/1`.
        case mesh
        /// A ClientHello without it: the application's own TLS.
        case otherTLS
        case notTLS
    }

    /// A ClientHello of post-quantum key shares takes about 1.8 KB; one longer than this is not of our making.
    private static let longest = 16 * 1024

    package static func inspect(_ bytes: UnsafeRawBufferPointer) -> Result {
        guard let first = bytes.first else { return .needsMore }
        guard first == 0x16 else { return .notTLS }
        guard bytes.count < 2 || bytes[1] == 3 else { return .notTLS }
        guard bytes.count < 6 || bytes[5] == 1 else { return .notTLS }
        var message = RecordReader(bytes: bytes)
        switch offersMesh(&message) {
        case .yes: return .mesh
        case .no: return .otherTLS
        case .incomplete: return bytes.count >= longest ? .otherTLS : .needsMore
        }
    }

    private enum Offer {
        case yes, no, incomplete
    }

    private static func offersMesh(_ reader: inout RecordReader) -> Offer {
        func failure(_ reader: RecordReader) -> Offer { reader.isMalformed ? .no : .incomplete }
        guard let type = reader.integer(bytes: 1) else { return failure(reader) }
        guard type == 1, let length = reader.integer(bytes: 3) else { return type == 1 ? failure(reader) : .no }
        reader.limit = reader.consumed + length
        // Version and random, session ID, cipher suites, compression methods.
        guard reader.skip(34), let session = reader.integer(bytes: 1), reader.skip(session),
            let suites = reader.integer(bytes: 2), reader.skip(suites),
            let compressions = reader.integer(bytes: 1), reader.skip(compressions),
            let extensionsLength = reader.integer(bytes: 2)
        else { return failure(reader) }
        let end = reader.consumed + extensionsLength
        guard end <= length + 4 else { return .no }
        while reader.consumed + 4 <= end {
            guard let kind = reader.integer(bytes: 2), let size = reader.integer(bytes: 2) else {
                return failure(reader)
            }
            guard kind == 16 else {
                guard reader.skip(size) else { return failure(reader) }
                continue
            }
            let extensionEnd = reader.consumed + size
            guard reader.skip(2) else { return failure(reader) }
            while reader.consumed < extensionEnd {
                guard let count = reader.integer(bytes: 1), count > 0 else { return failure(reader) }
                guard let isMesh = reader.matches(count: count, MeshProtocol.alpnBytes) else { return failure(reader) }
                if isMesh { return .yes }
            }
            return .no
        }
        return .no
    }
}

/// Reads a handshake message that may lie across several TLS records.
private struct RecordReader {
    let bytes: UnsafeRawBufferPointer
    private var position = 0
    private var leftInRecord = 0
    /// Bytes of the handshake message read so far.
    private(set) var consumed = 0
    /// Where the message ends, once its length is known.
    var limit = Int.max
    private(set) var isMalformed = false

    init(bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    private mutating func next() -> UInt8? {
        guard consumed < limit else {
            isMalformed = true
            return nil
        }
        while leftInRecord == 0 {
            guard bytes.count - position >= 5 else { return nil }
            guard bytes[position] == 0x16 else {
                isMalformed = true
                return nil
            }
            leftInRecord = Int(bytes[position + 3]) << 8 | Int(bytes[position + 4])
            position += 5
            if leftInRecord == 0 {
                isMalformed = true
                return nil
            }
        }
        guard position < bytes.count else { return nil }
        defer {
            position += 1
            leftInRecord -= 1
            consumed += 1
        }
        return bytes[position]
    }

    mutating func integer(bytes count: Int) -> Int? {
        var value = 0
        for _ in 0..<count {
            guard let byte = next() else { return nil }
            value = value << 8 | Int(byte)
        }
        return value
    }

    mutating func skip(_ count: Int) -> Bool {
        for _ in 0..<count where next() == nil { return false }
        return true
    }

    /// Reads `count` bytes and compares them; nil when they are not all there.
    mutating func matches(count: Int, _ expected: StaticString) -> Bool? {
        var isEqual = count == expected.utf8CodeUnitCount
        for index in 0..<count {
            guard let byte = next() else { return nil }
            if isEqual, byte != expected.utf8Start[index] { isEqual = false }
        }
        return isEqual
    }
}
