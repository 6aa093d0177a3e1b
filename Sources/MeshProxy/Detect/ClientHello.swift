package import MeshCore

/// What a connection's first bytes say when they are TLS: whether a sidecar of the mesh is calling, and whom a client wants.
///
/// Only the ClientHello's extensions ALPN and server_name are read (RFC 8446 §4.1.2, RFC 7301 §3.1, RFC 6066 §3); nothing is
/// verified here. The handshake that follows decides who it is.
package enum ClientHello {
    package enum Result: Sendable, Equatable {
        case needsMore
        /// A ClientHello that offers `apus/1`.
        case mesh
        /// A ClientHello without it: the application's own TLS.
        case otherTLS
        case notTLS
    }

    package struct Contents: Sendable, Equatable {
        package var offersMesh = false
        package var serverName = TLSServerName.absent
    }

    package enum Reading: Sendable, Equatable {
        case needsMore
        case hello(Contents)
        case notTLS
    }

    /// A ClientHello of post-quantum key shares takes about 1.8 KB; one longer than this is not of our making.
    private static let longest = 16 * 1024

    package static func inspect(_ bytes: UnsafeRawBufferPointer) -> Result {
        switch read(bytes) {
        case .needsMore: .needsMore
        case .hello(let hello): hello.offersMesh ? .mesh : .otherTLS
        case .notTLS: .notTLS
        }
    }

    /// A hello that is damaged, or longer than any should be, offers nothing and has an invalid name.
    package static func read(_ bytes: UnsafeRawBufferPointer) -> Reading {
        guard let first = bytes.first else { return .needsMore }
        guard first == 0x16 else { return .notTLS }
        guard bytes.count < 2 || bytes[1] == 3 else { return .notTLS }
        // Until the message's type is there, also a damaged record is no ClientHello yet.
        guard bytes.count >= 6 else { return .needsMore }
        guard bytes[5] == 1 else { return .notTLS }
        var reader = RecordReader(bytes: bytes)
        if let contents = contents(&reader) { return .hello(contents) }
        if reader.isMalformed || bytes.count >= longest { return .hello(Contents(serverName: .invalid)) }
        return .needsMore
    }

    /// Nil when the bytes end, or turn out to be damaged, before the extensions do.
    private static func contents(_ reader: inout RecordReader) -> Contents? {
        guard let type = reader.integer(bytes: 1), type == 1, let length = reader.integer(bytes: 3) else { return nil }
        reader.limit = reader.consumed + length
        // Version and random, session ID, cipher suites, compression methods.
        guard reader.skip(34), let session = reader.integer(bytes: 1), reader.skip(session),
            let suites = reader.integer(bytes: 2), reader.skip(suites),
            let compressions = reader.integer(bytes: 1), reader.skip(compressions)
        else { return nil }
        var contents = Contents()
        // A hello of TLS 1.2 may end here.
        if reader.consumed == reader.limit { return contents }
        guard let extensionsLength = reader.integer(bytes: 2) else { return nil }
        let end = reader.consumed + extensionsLength
        guard end <= reader.limit else { return reader.fail() }
        while reader.consumed < end {
            guard let kind = reader.integer(bytes: 2), let size = reader.integer(bytes: 2) else { return nil }
            let extensionEnd = reader.consumed + size
            guard extensionEnd <= end else { return reader.fail() }
            switch kind {
            case 0:
                guard let name = serverName(&reader, end: extensionEnd) else { return nil }
                contents.serverName = name
            case 16:
                guard let isOffered = offersMesh(&reader, end: extensionEnd) else { return nil }
                contents.offersMesh = isOffered
            default:
                break
            }
            guard reader.consumed <= extensionEnd else { return reader.fail() }
            guard reader.skip(extensionEnd - reader.consumed) else { return nil }
        }
        return contents
    }

    private static func offersMesh(_ reader: inout RecordReader, end: Int) -> Bool? {
        guard reader.skip(2) else { return nil }
        var isOffered = false
        while reader.consumed < end {
            guard let count = reader.integer(bytes: 1), count > 0 else { return nil }
            guard let isMesh = reader.matches(count: count, MeshProtocol.alpnBytes) else { return nil }
            if isMesh { isOffered = true }
        }
        return isOffered
    }

    /// The first host name of the list; there is never more than one.
    private static func serverName(_ reader: inout RecordReader, end: Int) -> TLSServerName? {
        guard reader.skip(2) else { return nil }
        while reader.consumed + 3 <= end {
            guard let type = reader.integer(bytes: 1), let count = reader.integer(bytes: 2) else { return nil }
            guard count <= end - reader.consumed else { return .invalid }
            guard type == 0 else {
                guard reader.skip(count) else { return nil }
                continue
            }
            guard count <= TLSServerName.longest else { return .invalid }
            guard let bytes = reader.bytes(count: count) else { return nil }
            return TLSServerName(bytes)
        }
        return .absent
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

    mutating func bytes(count: Int) -> [UInt8]? {
        var value: [UInt8] = []
        value.reserveCapacity(count)
        for _ in 0..<count {
            guard let byte = next() else { return nil }
            value.append(byte)
        }
        return value
    }

    /// What is read cannot be a ClientHello.
    mutating func fail<Value>() -> Value? {
        isMalformed = true
        return nil
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
