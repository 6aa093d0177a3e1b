package import MeshAddress

/// A name in the DNS: its labels as they came, compared without regard to case (RFC 1035 §2.3.3). At most 255 bytes.
package struct DNSName: Hashable, Sendable, CustomStringConvertible {
    package let labels: [[UInt8]]

    /// From text such as `catalog.shop.svc.cluster.local`, with or without the last dot; nil for what is no name.
    package init?(_ text: String) {
        let trimmed = text.hasSuffix(".") ? String(text.dropLast()) : text
        self.init(
            labels: trimmed.isEmpty
                ? [] : trimmed.split(separator: ".", omittingEmptySubsequences: false).map { Array($0.utf8) })
    }

    package init?(labels: [[UInt8]]) {
        guard labels.allSatisfy({ (1...63).contains($0.count) }), labels.reduce(1, { $0 + $1.count + 1 }) <= 255 else {
            return nil
        }
        self.labels = labels
    }

    package static let root = DNSName(unchecked: [])

    private init(unchecked labels: [[UInt8]]) { self.labels = labels }

    /// In lower case, for looking up.
    package var folded: DNSName {
        DNSName(unchecked: labels.map { $0.map { (65...90).contains($0) ? $0 | 0x20 : $0 } })
    }

    package func hasSuffix(_ other: DNSName) -> Bool {
        labels.count >= other.labels.count && labels.suffix(other.labels.count) == other.labels[...]
    }

    /// The first labels as text, or nil when any is not ASCII text.
    package func texts() -> [String]? {
        labels.allSatisfy { $0.allSatisfy { (33...126).contains($0) } }
            ? labels.map { String(decoding: $0, as: UTF8.self) } : nil
    }

    package var description: String { labels.map { String(decoding: $0, as: UTF8.self) }.joined(separator: ".") + "." }
}

package enum DNSType {
    package static let a: UInt16 = 1
    package static let cname: UInt16 = 5
    package static let soa: UInt16 = 6
    package static let ptr: UInt16 = 12
    package static let aaaa: UInt16 = 28
    package static let srv: UInt16 = 33
    package static let opt: UInt16 = 41
    package static let any: UInt16 = 255
}

package enum DNSCode {
    package static let noError: UInt8 = 0
    package static let formatError: UInt8 = 1
    package static let serverFailure: UInt8 = 2
    package static let nameError: UInt8 = 3
    package static let notImplemented: UInt8 = 4
    package static let refused: UInt8 = 5
}

package struct DNSRecord: Hashable, Sendable {
    package enum Content: Hashable, Sendable {
        case address(IPAddress)
        case alias(DNSName)
        case pointer(DNSName)
        case service(priority: UInt16, weight: UInt16, port: UInt16, target: DNSName)
        case authority(primary: DNSName, responsible: DNSName, serial: UInt32, minimumSeconds: UInt32)
    }

    package var name: DNSName
    package var seconds: UInt32
    package var content: Content

    package var type: UInt16 {
        switch content {
        case .address(let address): address.isV4 ? DNSType.a : DNSType.aaaa
        case .alias: DNSType.cname
        case .pointer: DNSType.ptr
        case .service: DNSType.srv
        case .authority: DNSType.soa
        }
    }
}

/// What a client asks (RFC 1035 §4). Anything else in the message but the size of EDNS (RFC 6891) is passed over.
package struct DNSQuery: Sendable, Hashable {
    package var id: UInt16
    package var isRecursionDesired: Bool
    package var opcode: UInt8
    package var name: DNSName
    package var type: UInt16
    package var classCode: UInt16
    /// What the client takes over UDP, when it says so.
    package var payloadLimit: UInt16?

    package enum Failure: Error, Equatable {
        /// Not a query, or too short to be answered.
        case ignored
        /// To be answered with FORMERR.
        case malformed(id: UInt16)
    }

    package init(_ bytes: some RandomAccessCollection<UInt8>) throws(Failure) {
        var reader = DNSReader(Array(bytes))
        guard let id = reader.number(), let flags = reader.number(), flags & 0x8000 == 0 else { throw .ignored }
        self.id = id
        opcode = UInt8(flags >> 11 & 15)
        isRecursionDesired = flags & 0x0100 != 0
        guard let questions = reader.number(), let answers = reader.number(), let authorities = reader.number(),
            let additional = reader.number(), questions == 1, let name = reader.name(), let type = reader.number(),
            let classCode = reader.number()
        else { throw .malformed(id: id) }
        (self.name, self.type, self.classCode) = (name, type, classCode)
        // What follows the question is looked through for the client's size alone, and may be cut short.
        for _ in 0..<min(Int(answers) + Int(authorities) + Int(additional), 16) {
            guard reader.name() != nil, let type = reader.number(), let value = reader.number(), reader.skip(4),
                let length = reader.number(), reader.skip(Int(length))
            else { return }
            if type == DNSType.opt { payloadLimit = max(512, value) }
        }
    }
}

/// Reads a message; every read says no at its end instead of passing it.
package struct DNSReader {
    private let bytes: [UInt8]
    private(set) var position = 0

    package init(_ bytes: [UInt8], at position: Int = 0) {
        self.bytes = bytes
        self.position = position
    }

    package mutating func number() -> UInt16? {
        guard bytes.count - position >= 2 else { return nil }
        defer { position += 2 }
        return UInt16(bytes[position]) << 8 | UInt16(bytes[position + 1])
    }

    package mutating func longNumber() -> UInt32? {
        guard let high = number(), let low = number() else { return nil }
        return UInt32(high) << 16 | UInt32(low)
    }

    package mutating func skip(_ count: Int) -> Bool {
        guard count >= 0, bytes.count - position >= count else { return false }
        position += count
        return true
    }

    package mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
        let start = position
        return skip(count) ? bytes[start..<position] : nil
    }

    /// A name, possibly compressed (§4.1.4). A pointer must lead backwards, so that following them ends.
    package mutating func name() -> DNSName? {
        var labels: [[UInt8]] = []
        var length = 1
        var at = position
        var bound = position
        var end: Int?
        while at < bytes.count {
            let head = Int(bytes[at])
            switch head >> 6 {
            case 0:
                if head == 0 {
                    position = end ?? at + 1
                    return DNSName(labels: labels)
                }
                length += head + 1
                guard at + 1 + head <= bytes.count, length <= 255 else { return nil }
                labels.append(Array(bytes[(at + 1)..<(at + 1 + head)]))
                at += 1 + head
            case 3:
                guard at + 1 < bytes.count else { return nil }
                let target = (head & 0x3f) << 8 | Int(bytes[at + 1])
                guard target < bound else { return nil }
                end = end ?? at + 2
                bound = target
                at = target
            default: return nil
            }
        }
        return nil
    }
}

/// What a query is answered with.
package struct DNSAnswer: Sendable, Hashable {
    package var code: UInt8 = DNSCode.noError
    package var isAuthoritative = true
    package var answers: [DNSRecord] = []
    package var authorities: [DNSRecord] = []
    package var additional: [DNSRecord] = []

    /// The message. Records that do not fit into `limit` bytes are left out, and the client is told to ask again over TCP.
    package func encode(for query: DNSQuery, limit: Int) -> [UInt8] {
        var writer = DNSWriter()
        writer.number(query.id)
        var flags: UInt16 = 0x8000 | UInt16(query.opcode & 15) << 11 | UInt16(code & 15) | 0x0080
        if isAuthoritative { flags |= 0x0400 }
        if query.isRecursionDesired { flags |= 0x0100 }
        writer.number(flags)
        for count in [1, 0, 0, 0] as [UInt16] { writer.number(count) }
        writer.name(query.name)
        writer.number(query.type)
        writer.number(query.classCode)
        let reserve = query.payloadLimit == nil ? 0 : 11
        var isTruncated = false
        for (section, records) in [answers, authorities, additional].enumerated() where !isTruncated {
            var count: UInt16 = 0
            for record in records where count < 4096 {
                let mark = writer
                writer.record(record)
                if writer.bytes.count + reserve > limit {
                    writer = mark
                    // Additional records are a courtesy: without them the answer is still whole.
                    isTruncated = section < 2
                    break
                }
                count += 1
            }
            writer.set(count, at: 6 + 2 * section)
        }
        if isTruncated { writer.set(flags | 0x0200, at: 2) }
        if query.payloadLimit != nil {
            writer.edns(payloadLimit: 1232)
            writer.set((writer.number(at: 10) ?? 0) &+ 1, at: 10)
        }
        return writer.bytes
    }
}

package struct DNSWriter {
    private(set) var bytes: [UInt8] = []
    /// Where a name's rest has been written before, for compression.
    private var places: [DNSName: Int] = [:]

    package mutating func number(_ value: UInt16) { bytes += [UInt8(value >> 8), UInt8(truncatingIfNeeded: value)] }

    package mutating func longNumber(_ value: UInt32) {
        number(UInt16(value >> 16))
        number(UInt16(truncatingIfNeeded: value))
    }

    package mutating func set(_ value: UInt16, at position: Int) {
        guard position + 1 < bytes.count else { return }
        bytes[position] = UInt8(value >> 8)
        bytes[position + 1] = UInt8(truncatingIfNeeded: value)
    }

    package func number(at position: Int) -> UInt16? {
        position + 1 < bytes.count ? UInt16(bytes[position]) << 8 | UInt16(bytes[position + 1]) : nil
    }

    /// Compressed, unless within the target of a SRV record, where clients need not understand it (RFC 2782).
    package mutating func name(_ name: DNSName, isCompressed: Bool = true) {
        var labels = name.labels[...]
        while !labels.isEmpty {
            if let rest = DNSName(labels: Array(labels)) {
                if isCompressed, let place = places[rest] { return number(0xc000 | UInt16(place)) }
                if bytes.count < 0x3fff { places[rest] = places[rest] ?? bytes.count }
            }
            let label = labels.removeFirst()
            bytes.append(UInt8(label.count))
            bytes += label
        }
        bytes.append(0)
    }

    package mutating func record(_ record: DNSRecord) {
        name(record.name)
        number(record.type)
        number(1)
        longNumber(record.seconds)
        let start = bytes.count
        number(0)
        switch record.content {
        case .address(let address): bytes += address.isV4 ? Array(address.bytes.suffix(4)) : address.bytes
        case .alias(let target), .pointer(let target): name(target)
        case .service(let priority, let weight, let port, let target):
            [priority, weight, port].forEach { number($0) }
            name(target, isCompressed: false)
        case .authority(let primary, let responsible, let serial, let minimum):
            name(primary)
            name(responsible)
            [serial, 7200, 1800, 86_400, minimum].forEach { longNumber($0) }
        }
        set(UInt16(clamping: bytes.count - start - 2), at: start)
    }

    package mutating func edns(payloadLimit: UInt16) {
        bytes.append(0)
        number(DNSType.opt)
        number(payloadLimit)
        longNumber(0)
        number(0)
    }
}
