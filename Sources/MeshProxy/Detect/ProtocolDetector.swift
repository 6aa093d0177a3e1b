package import MeshCore

/// Tells a connection's protocol from the first bytes that its client sent.
package enum ProtocolDetector {
    package enum Result: Sendable, Equatable {
        case found(ApplicationProtocol)
        /// So far the bytes could still become one of the protocols that are known.
        case needsMore
    }

    /// Longer methods than this are not looked for: `M-SEARCH`, `MKCALENDAR` and `BASELINE-CONTROL` fit.
    private static let longestMethod = 24
    /// A request line is taken for HTTP once its version is seen; with a target longer than this, its method decides.
    private static let longestLine = 4096

    /// HTTP/1 is a method and a space followed by a line that ends in `HTTP/1.`; HTTP/2 is its preface (RFC 9113 §3.4); TLS
    /// is a handshake record with a ClientHello (RFC 8446 §5.1). Everything else is opaque.
    package static func detect(_ bytes: UnsafeRawBufferPointer) -> Result {
        guard let first = bytes.first else { return .needsMore }
        if first == 0x16 { return detectTLS(bytes) }
        guard isTokenByte(first) else { return .found(.opaque) }
        if first == UInt8(ascii: "P"), let result = detectHTTP2(bytes) { return result }
        return detectHTTP1(bytes)
    }

    private static func detectTLS(_ bytes: UnsafeRawBufferPointer) -> Result {
        if bytes.count > 1, bytes[1] != 3 { return .found(.opaque) }
        guard bytes.count > 5 else { return .needsMore }
        return .found(bytes[5] == 1 ? .tls : .opaque)
    }

    /// Nil when the bytes are not a beginning of the preface.
    private static func detectHTTP2(_ bytes: UnsafeRawBufferPointer) -> Result? {
        let preface: StaticString = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        let compared = min(bytes.count, preface.utf8CodeUnitCount)
        for index in 0..<compared where bytes[index] != preface.utf8Start[index] { return nil }
        return compared == preface.utf8CodeUnitCount ? .found(.http2) : .needsMore
    }

    private static func detectHTTP1(_ bytes: UnsafeRawBufferPointer) -> Result {
        var index = 0
        let limit = min(bytes.count, longestMethod)
        while index < limit, isTokenByte(bytes[index]) { index += 1 }
        if index == limit { return limit == longestMethod ? .found(.opaque) : .needsMore }
        // Methods are upper case by every registry's custom; `EHLO example`, `LOGIN x` and `HELP` share the look of a
        // method, which is why the version at the line's end is what decides.
        guard bytes[index] == UInt8(ascii: " ") else { return .found(.opaque) }
        let line = min(bytes.count, longestLine)
        var end = index + 1
        while end < line, bytes[end] != 0x0a {
            if bytes[end] < 0x20, bytes[end] != 0x0d { return .found(.opaque) }
            end += 1
        }
        guard end < line else { return line == longestLine ? .found(.http1) : .needsMore }
        if end > 0, bytes[end - 1] == 0x0d { end -= 1 }
        let version: StaticString = "HTTP/1."
        let start = end - version.utf8CodeUnitCount - 1
        guard start > index else { return .found(.opaque) }
        for offset in 0..<version.utf8CodeUnitCount where bytes[start + offset] != version.utf8Start[offset] {
            return .found(.opaque)
        }
        return .found(.http1)
    }

    @inline(__always)
    private static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
        case 0x21, 0x23...0x27, 0x2a, 0x2b, 0x2d, 0x2e, 0x5e...0x60, 0x7c, 0x7e: true
        default: false
        }
    }
}
