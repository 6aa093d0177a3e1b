/// One call of `grpc.health.v1.Health/Check` in bytes: HTTP/2 frames (RFC 9113) with a header block of static and literal
/// fields (RFC 7541), and what the answer says. Pure.
package struct GRPCHealth {
    package enum Verdict: Hashable, Sendable {
        case serving
        case failed(String)
    }

    private static let frameLimit = 16_384
    private var buffer: [UInt8] = []
    private var message: [UInt8] = []

    package init() {}

    package static func request(service: String, authority: String) -> [UInt8] {
        var headers: [UInt8] = [0x83, 0x86]
        literal(&headers, index: 4, "/grpc.health.v1.Health/Check")
        literal(&headers, index: 1, authority)
        literal(&headers, index: 31, "application/grpc")
        headers.append(0)
        string(&headers, "te")
        string(&headers, "trailers")
        let name = Array(service.utf8.prefix(1024))
        let body = name.isEmpty ? [] : [0x0a] + varint(name.count) + name
        let message = [0] + bigEndian(UInt32(body.count)) + body
        return Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + frame(type: 4, flags: 0, stream: 0, [])
            + frame(type: 1, flags: 0x4, stream: 1, headers) + frame(type: 0, flags: 0x1, stream: 1, message)
    }

    private static func bigEndian(_ value: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) }
    }

    private static func varint(_ value: Int) -> [UInt8] {
        value < 128 ? [UInt8(value)] : [UInt8(value & 127 | 128), UInt8(value >> 7)]
    }

    private static func frame(type: UInt8, flags: UInt8, stream: UInt32, _ payload: [UInt8]) -> [UInt8] {
        bigEndian(UInt32(payload.count)).dropFirst() + [type, flags] + bigEndian(stream) + payload
    }

    /// A literal field without indexing whose name is in the static table.
    private static func literal(_ block: inout [UInt8], index: UInt8, _ value: String) {
        if index < 15 { block.append(index) } else { block += [15, index - 15] }
        string(&block, value)
    }

    private static func string(_ block: inout [UInt8], _ text: String) {
        let bytes = Array(text.utf8.prefix(1024))
        if bytes.count < 127 {
            block.append(UInt8(bytes.count))
        } else {
            block.append(127)
            block += varint(bytes.count - 127)
        }
        block += bytes
    }

    /// Takes what arrived; a verdict as soon as there is one.
    package mutating func receive(_ bytes: some Sequence<UInt8>) -> Verdict? {
        buffer += bytes
        while buffer.count >= 9 {
            let length = Int(buffer[0]) << 16 | Int(buffer[1]) << 8 | Int(buffer[2])
            guard length <= GRPCHealth.frameLimit else { return .failed("the answer is not HTTP/2") }
            guard buffer.count >= 9 + length else { return nil }
            let (type, flags) = (buffer[3], buffer[4])
            let stream = buffer[5..<9].reduce(UInt32(0)) { $0 << 8 | UInt32($1) } & 0x7fff_ffff
            let payload = Array(buffer[9..<9 + length])
            buffer.removeSubrange(..<(9 + length))
            if let verdict = take(type, flags, stream, payload) { return verdict }
        }
        return nil
    }

    private mutating func take(_ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ payload: [UInt8]) -> Verdict? {
        switch type {
        case 0 where stream == 1:
            var data = payload[...]
            if flags & 0x8 != 0 {
                guard let padding = data.popFirst(), Int(padding) <= data.count else {
                    return .failed("bad padding in the answer")
                }
                data = data.dropLast(Int(padding))
            }
            message += data
            guard message.count <= GRPCHealth.frameLimit else { return .failed("the answer is too long") }
            return status()
        case 1 where stream == 1 && flags & 0x1 != 0: return .failed("the call failed without an answer")
        case 3 where stream == 1: return .failed("the call was reset")
        case 7: return .failed("the connection was ended by the server")
        default: return nil
        }
    }

    /// `HealthCheckResponse.status`, field 1: SERVING is 1.
    private func status() -> Verdict? {
        guard message.count >= 5 else { return nil }
        let length = message[1..<5].reduce(0) { $0 << 8 | Int($1) }
        guard message[0] == 0, length <= GRPCHealth.frameLimit else {
            return .failed("the answer is not a plain gRPC message")
        }
        guard message.count >= 5 + length else { return nil }
        let body = Array(message[5..<5 + length])
        if body.count >= 2, body[0] == 0x08, body[1] == 1 { return .serving }
        let names = [0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"]
        let value = body.count >= 2 && body[0] == 0x08 ? Int(body[1]) : 0
        return .failed("service unhealthy, status \(names[value] ?? "\(value)")")
    }
}
