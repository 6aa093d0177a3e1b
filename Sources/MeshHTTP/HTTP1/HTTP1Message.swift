package import MeshAddress

/// A whole request as `HTTP1Server` hands it over.
package struct HTTP1Request: Sendable {
    package struct Field: Sendable, Equatable {
        package var name: String
        package var value: String
    }

    package var method: String
    /// Without the query, as sent; `/` when the target has none.
    package var path: String
    /// The query's `name=value` pairs, percent-decoded; of a name that is repeated, the last.
    package var query: [String: String]
    package var fields: [Field]
    package var body: [UInt8]
    package var peer: SocketAddress
    /// The URI subject alternative names of the peer's certificate; empty without TLS or without a certificate.
    package var peerURISANs: [String]

    /// The first value of the field of that name, in any case.
    package func value(of name: String) -> String? {
        let name = name.lowercased()
        return fields.first { $0.name.lowercased() == name }?.value
    }
}

/// A whole response, for `HTTP1Server` to send or received by `HTTP1Client`.
package struct HTTP1Response: Sendable, Equatable {
    package var status: Int
    package var contentType: String
    package var body: [UInt8]
    /// The client received more than its limit and kept the first part only.
    package var isBodyTruncated = false

    package init(status: Int, contentType: String = "text/plain; charset=utf-8", body: [UInt8] = []) {
        self.status = status
        self.contentType = contentType
        self.body = body
    }

    package static func text(_ status: Int, _ text: String) -> HTTP1Response {
        HTTP1Response(status: status, body: Array(text.utf8))
    }

    package static func json(_ status: Int, _ body: [UInt8]) -> HTTP1Response {
        HTTP1Response(status: status, contentType: "application/json", body: body)
    }
}

/// The parts of a message that a whole-message server or client wants as text.
enum MessageText {
    /// The fields of a head that `parse` has accepted.
    static func fields(_ base: UnsafeRawPointer, _ section: FieldSection) -> [HTTP1Request.Field] {
        func text(_ from: Int, _ to: Int) -> String {
            String(decoding: UnsafeRawBufferPointer(start: base + from, count: to &- from), as: UTF8.self)
        }
        var fields: [HTTP1Request.Field] = []
        var position = section.start
        while position < section.emptyLine,
            case .complete(let line) = FieldLine.parse(base, from: position, count: section.emptyLine)
        {
            fields.append(
                HTTP1Request.Field(name: text(position, line.nameEnd), value: text(line.valueStart, line.valueEnd)))
            position = line.end
        }
        return fields
    }

    static func query(_ target: some StringProtocol) -> [String: String] {
        guard let mark = target.firstIndex(of: "?") else { return [:] }
        var query: [String: String] = [:]
        for pair in target[target.index(after: mark)...].split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            query[percentDecoded(parts[0])] = parts.count == 2 ? percentDecoded(parts[1]) : ""
        }
        return query
    }

    /// `%xx` and `+` decoded; a malformed escape stays as it is.
    static func percentDecoded(_ text: some StringProtocol) -> String {
        let bytes = Array(text.utf8)
        var decoded: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == 0x25, index + 2 < bytes.count, let high = hexValue(bytes[index + 1]),
                let low = hexValue(bytes[index + 2])
            {
                decoded.append(high << 4 | low)
                index += 3
            } else {
                decoded.append(bytes[index] == 0x2b ? 0x20 : bytes[index])
                index += 1
            }
        }
        return String(decoding: decoded, as: UTF8.self)
    }

    private static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }

    /// The payload of a chunked body that `BodyScanner` has accepted to its end; of one that was cut off, what is there.
    static func payload(ofChunked raw: [UInt8]) -> [UInt8] {
        var payload: [UInt8] = []
        var position = 0
        while position < raw.count {
            var size = 0
            while position < raw.count, let digit = hexValue(raw[position]) {
                size = size << 4 | Int(digit)
                position += 1
            }
            guard size > 0, let lineEnd = raw[position...].firstIndex(of: 0x0a) else { break }
            let start = lineEnd + 1
            let end = size < raw.count - start ? start + size : raw.count
            payload += raw[start..<end]
            position = end + 2
        }
        return payload
    }
}
