/// The fields that a proxy reads, replaces or drops; every other field is copied unseen.
package enum HeaderName: UInt8, Sendable, CaseIterable {
    // Those whose first value is found through `RequestHead.value(of:)`. Their raw values index a table.
    case host, contentLength, traceparent, tracestate, userAgent, requestID, contentType, upgrade, retryAfter,
        apusReason
    // Those that are only recognised.
    case connection, keepAlive, proxyConnection, te, transferEncoding, expect, http2Settings, trailer
    case other

    /// How many of the first cases have a remembered value.
    static let remembered = 10

    /// Case-insensitively; `name` consists of token bytes, for which setting bit 5 lower-cases the letters and makes no
    /// other token byte equal to a letter, digit or hyphen.
    @inline(__always)
    init(_ base: UnsafeRawPointer, _ from: Int, _ count: Int) {
        @inline(__always)
        func matches(_ name: StaticString) -> Bool {
            let expected = name.utf8Start
            var index = 0
            while index < count {
                if base.load(fromByteOffset: from &+ index, as: UInt8.self) | 0x20 != expected[index] { return false }
                index &+= 1
            }
            return true
        }
        let first = base.load(fromByteOffset: from, as: UInt8.self) | 0x20
        self = .other
        switch (count, first) {
        case (2, 0x74): if matches("te") { self = .te }
        case (4, 0x68): if matches("host") { self = .host }
        case (6, 0x65): if matches("expect") { self = .expect }
        case (7, 0x74): if matches("trailer") { self = .trailer }
        case (7, 0x75): if matches("upgrade") { self = .upgrade }
        case (10, 0x63): if matches("connection") { self = .connection }
        case (10, 0x6b): if matches("keep-alive") { self = .keepAlive }
        case (10, 0x74): if matches("tracestate") { self = .tracestate }
        case (10, 0x75): if matches("user-agent") { self = .userAgent }
        case (11, 0x61): if matches("apus-reason") { self = .apusReason }
        case (11, 0x72): if matches("retry-after") { self = .retryAfter }
        case (11, 0x74): if matches("traceparent") { self = .traceparent }
        case (12, 0x63): if matches("content-type") { self = .contentType }
        case (12, 0x78): if matches("x-request-id") { self = .requestID }
        case (14, 0x63): if matches("content-length") { self = .contentLength }
        case (14, 0x68): if matches("http2-settings") { self = .http2Settings }
        case (16, 0x70): if matches("proxy-connection") { self = .proxyConnection }
        case (17, 0x74): if matches("transfer-encoding") { self = .transferEncoding }
        default: break
        }
    }
}

/// A set of `HeaderName`s.
package struct HeaderSet: OptionSet, Sendable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    @inline(__always)
    package init(_ name: HeaderName) { self.init(rawValue: 1 << UInt32(name.rawValue)) }

    package static let host = HeaderSet(.host)
    package static let traceparent = HeaderSet(.traceparent)
    package static let tracestate = HeaderSet(.tracestate)
    package static let requestID = HeaderSet(.requestID)
    package static let expect = HeaderSet(.expect)
    package static let apusReason = HeaderSet(.apusReason)
    /// What announces a chunked body and the trailers behind it: left out where its payload is passed on bare.
    package static let chunkedCoding: HeaderSet = [HeaderSet(.transferEncoding), HeaderSet(.trailer)]
    static let contentLength = HeaderSet(.contentLength)

    /// What concerns one connection only (RFC 9110 §7.6.1) and the cleartext upgrade to HTTP/2, which RFC 9113 §3.1 withdrew and
    /// which would carry requests past us. `Transfer-Encoding` is not here: the body passes in its coding.
    static let hopByHop: HeaderSet = [
        HeaderSet(.connection), HeaderSet(.keepAlive), HeaderSet(.proxyConnection), HeaderSet(.te), HeaderSet(.upgrade),
        HeaderSet(.http2Settings),
    ]
    /// Fields whose lines are noted while parsing, so that dropping them needs no second walk.
    static let removable: HeaderSet = hopByHop.union([
        .host, .traceparent, .tracestate, .requestID, .expect, .apusReason, .contentLength,
    ])
    /// Fields that a trailer section must not have (RFC 9110 §6.5.1): they would reframe or reroute the message.
    static let forbiddenInTrailers: HeaderSet = hopByHop.union([
        .host, .expect, .contentLength, .chunkedCoding,
    ])
}
