package enum HTTPMethod: UInt8, Sendable {
    case get, head, post, put, delete, connect, options, trace, patch, other

    /// Whether repeating the request does no more than sending it once (RFC 9110 §9.2.2).
    package var isIdempotent: Bool {
        switch self {
        case .get, .head, .put, .delete, .options, .trace: true
        case .post, .connect, .patch, .other: false
        }
    }
}

package enum HTTPVersion: UInt8, Sendable {
    case http10 = 0
    case http11 = 1
}

/// How the bytes behind a head belong to its message (RFC 9112 §6.3).
package enum BodyFraming: Sendable, Equatable {
    case none
    case length(UInt64)
    case chunked
    /// A response that ends with its connection.
    case untilClose
    /// Behind this head the connection is no longer HTTP: a 101, or a 2xx to CONNECT.
    case upgrade
}

/// What a response's framing depends on in the request it answers.
package struct RequestTraits: OptionSet, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    package static let head = RequestTraits(rawValue: 1)
    package static let connect = RequestTraits(rawValue: 2)
    /// An upgrade that is passed on: a 101 may follow.
    package static let upgrade = RequestTraits(rawValue: 4)
    package static let http10 = RequestTraits(rawValue: 8)
}

/// What parsing the bytes that have arrived has come to.
package enum HeadResult<Head: Sendable>: Sendable {
    /// More bytes are needed; nothing so far is wrong.
    case incomplete
    case complete(Head)
    case invalid(HTTP1Error)
}

/// The head of an HTTP/1 request: offsets into the bytes it was parsed from, which must be given again to copy it or to read
/// a value. A plain value without references, as large as a few cache lines.
package struct RequestHead: Sendable {
    package private(set) var method = HTTPMethod.other
    package private(set) var methodRange = ByteRange.empty
    package private(set) var target = ByteRange.empty
    /// The target's path without its query; empty for `*`, for CONNECT and for an absolute form without a path.
    package private(set) var path = ByteRange.empty
    /// From an absolute-form target, else CONNECT's target, else Host; nil in an HTTP/1.0 request without either.
    ///
    /// An absolute form prevails over Host, which a copy writes anew when they differ (RFC 9112 §3.2.2). A CONNECT where they differ
    /// is refused (`hostDiffersFromTarget`).
    package private(set) var authority: ByteRange?
    package private(set) var version = HTTPVersion.http11
    package private(set) var framing = BodyFraming.none
    /// Whether the client wants the connection to go on after this exchange (RFC 9112 §9.3).
    package private(set) var keepAlive = false
    /// The client waits for a 100 before it sends the body (RFC 9110 §10.1.1).
    package private(set) var expectsContinue = false
    /// Whether an Upgrade passes on to the server. Not so for `h2c`, which is dropped with the other hop-by-hop fields.
    package private(set) var wantsUpgrade = false
    /// Whether a copy has the target's host in the place of a Host that is missing or names another.
    private(set) var replacesHost = false
    /// The bytes of the head, from the first one given (a skipped empty line included) to the end of the empty line.
    package private(set) var length = 0
    var fields = FieldSection()
    /// The first byte of the request line, and the digit behind `HTTP/1.`.
    private(set) var start = 0
    private(set) var versionDigit = 0

    private init() {}

    /// What is needed to frame the response to this request.
    package var traits: RequestTraits {
        var traits: RequestTraits = []
        if method == .head { traits.insert(.head) }
        if method == .connect { traits.insert(.connect) }
        if wantsUpgrade { traits.insert(.upgrade) }
        if version == .http10 { traits.insert(.http10) }
        return traits
    }

    /// Whether a copy has no Host unless one is given to it: an HTTP/1.0 request that names none at all.
    package var lacksHost: Bool { authority == nil }

    /// The first value of a field, trimmed; only for the names with a remembered value.
    package func value(of name: HeaderName) -> ByteRange? { fields.value(of: name) }

    package func has(_ name: HeaderName) -> Bool { fields.present.contains(HeaderSet(name)) }

    /// Parses the head at the start of `bytes`, behind at most one empty line (RFC 9112 §2.2). Nothing of a request may be
    /// forwarded before this has answered `complete`. The answer does not depend on how the bytes were split.
    package static func parse(_ bytes: UnsafeRawBufferPointer, limits: HTTP1Limits = .standard) -> HeadResult<
        RequestHead
    > {
        guard let base = bytes.baseAddress else { return .incomplete }
        var head = RequestHead()
        let count = min(bytes.count, limits.headBytes)
        let outcome = head.parse(base, count, limits)
        switch outcome {
        case .complete: return .complete(head)
        case .incomplete: return bytes.count >= limits.headBytes ? .invalid(.headTooLarge) : .incomplete
        case .invalid(let error): return .invalid(error)
        }
    }

    private mutating func parse(_ base: UnsafeRawPointer, _ count: Int, _ limits: borrowing HTTP1Limits)
        -> FieldSection.Outcome
    {
        switch parseRequestLine(base, count, limits) {
        case .complete: break
        case .incomplete: return .incomplete
        case .invalid(let error): return .invalid(error)
        }
        switch fields.parse(base, from: versionDigit &+ 3, count: count, limits: limits, isRequest: true) {
        case .complete: break
        case .incomplete: return .incomplete
        case .invalid(let error): return .invalid(error)
        }
        length = fields.emptyLine &+ 2
        if let error = settle(base) { return .invalid(error) }
        return .complete
    }

    /// What the fields mean together.
    private mutating func settle(_ base: UnsafeRawPointer) -> HTTP1Error? {
        if fields.isChunked {
            if version == .http10 { return .transferEncodingInHTTP10 }
            framing = .chunked
        } else if fields.present.contains(HeaderSet(.contentLength)) {
            framing = .length(fields.contentLength)
        }
        if method == .connect, framing != .none, framing != .length(0) { return .connectWithBody }

        if let host = fields.value(of: .host) {
            // An empty one says that the target has no authority (RFC 9112 §3.2).
            guard host.isEmpty || Authority.isValid(base, host.lowerBound, host.upperBound) else { return .invalidHost }
            if let authority {
                let isHTTPS = base.load(fromByteOffset: target.lowerBound &+ 4, as: UInt8.self) | 0x20 == 0x73
                let defaultPort = method == .connect ? -1 : isHTTPS ? 443 : 80
                replacesHost = !Authority.areEqual(base, authority, host, defaultPort: defaultPort)
                if replacesHost, method == .connect { return .hostDiffersFromTarget }
            } else {
                authority = host
            }
        } else if version == .http11 {
            return .missingHost
        } else {
            replacesHost = authority != nil
        }

        if version == .http11 {
            keepAlive = !fields.hasClose
            expectsContinue = fields.expectsContinue
            wantsUpgrade =
                fields.hasUpgradeOption && !fields.upgradeIsHTTP2 && fields.present.contains(HeaderSet(.upgrade))
        } else {
            keepAlive = fields.hasKeepAlive && !fields.hasClose
        }
        return nil
    }

    // MARK: - The request line

    private mutating func parseRequestLine(
        _ base: UnsafeRawPointer, _ count: Int, _ limits: borrowing HTTP1Limits
    ) -> FieldSection.Outcome {
        @inline(__always)
        func byte(_ offset: Int) -> UInt8 { base.load(fromByteOffset: offset, as: UInt8.self) }

        if byte(0) == 0x0d {
            guard count > 1 else { return .incomplete }
            guard byte(1) == 0x0a else { return .invalid(.bareCarriageReturn) }
            guard count > 2 else { return .incomplete }
            guard byte(2) != 0x0d, byte(2) != 0x0a else { return .invalid(.tooManyEmptyLines) }
            start = 2
        }
        var position = start
        while position < count, ByteClass.has(byte(position), ByteClass.token) { position &+= 1 }
        guard position &- start <= RequestHead.maximumMethodBytes else { return .invalid(.invalidMethod) }
        guard position < count else { return .incomplete }
        guard byte(position) == 0x20 else { return .invalid(byte(position) == 0x0a ? .bareLineFeed : .invalidMethod) }
        guard position > start else { return .invalid(.malformedRequestLine) }
        methodRange = ByteRange(start, position)
        method = RequestHead.method(base, start, position)

        let targetStart = position &+ 1
        position = targetStart
        let targetLimit = min(count, targetStart &+ limits.targetBytes &+ 1)
        while position < targetLimit, ByteClass.has(byte(position), ByteClass.target) { position &+= 1 }
        guard position &- targetStart <= limits.targetBytes else { return .invalid(.targetTooLong) }
        guard position < count else { return .incomplete }
        switch byte(position) {
        case 0x20: break
        case 0x0a: return .invalid(.bareLineFeed)
        case 0x0d: return .invalid(.malformedRequestLine)
        default: return .invalid(.invalidTargetCharacter)
        }
        guard position > targetStart else { return .invalid(.malformedRequestLine) }
        target = ByteRange(targetStart, position)
        if !parseTarget(base, targetStart, position) {
            // `PRI *` is no request, but its version tells what it is.
            let isPreface = isPRI(base) && target.count == 1 && byte(targetStart) == 0x2a
            if !isPreface { return .invalid(.invalidTargetForm) }
        }

        let versionStart = position &+ 1
        let expected: StaticString = "HTTP/"
        for index in 0..<5 {
            guard versionStart &+ index < count else { return .incomplete }
            guard byte(versionStart &+ index) == expected.utf8Start[index] else {
                return .invalid(.malformedRequestLine)
            }
        }
        guard versionStart &+ 7 < count else { return .incomplete }
        guard byte(versionStart &+ 5) == 0x31, byte(versionStart &+ 6) == 0x2e else {
            return .invalid(byte(versionStart &+ 5) == 0x32 && isPRI(base) ? .http2Preface : .unsupportedVersion)
        }
        versionDigit = versionStart &+ 7
        guard let version = HTTPVersion(rawValue: byte(versionDigit) &- 0x30) else {
            return .invalid(.unsupportedVersion)
        }
        self.version = version
        guard versionDigit &+ 1 < count else { return .incomplete }
        guard byte(versionDigit &+ 1) == 0x0d else {
            return .invalid(byte(versionDigit &+ 1) == 0x0a ? .bareLineFeed : .malformedRequestLine)
        }
        guard versionDigit &+ 2 < count else { return .incomplete }
        guard byte(versionDigit &+ 2) == 0x0a else { return .invalid(.bareCarriageReturn) }
        return .complete
    }

    private static let maximumMethodBytes = 32

    /// Whether the method is the one that only HTTP/2's connection preface has (RFC 9113 §3.4).
    private func isPRI(_ base: UnsafeRawPointer) -> Bool {
        base.hasWord("pri", from: methodRange.lowerBound, to: methodRange.upperBound)
    }

    /// Whether the target has one of the four forms of RFC 9112 §3.2, the one that its method demands; finds path and authority.
    private mutating func parseTarget(_ base: UnsafeRawPointer, _ from: Int, _ to: Int) -> Bool {
        if method == .connect {
            guard Authority.isValid(base, from, to) else { return false }
            authority = ByteRange(from, to)
            return true
        }
        let first = base.load(fromByteOffset: from, as: UInt8.self)
        if first == 0x2f {
            path = ByteRange(from, endOfPath(base, from, to))
            return true
        }
        if first == 0x2a { return to &- from == 1 && method == .options }
        let schemeEnd: Int
        if to &- from > 7, base.hasWord("http://", from: from, to: from &+ 7) {
            schemeEnd = from &+ 7
        } else if to &- from > 8, base.hasWord("https://", from: from, to: from &+ 8) {
            schemeEnd = from &+ 8
        } else {
            return false
        }
        var end = schemeEnd
        while end < to {
            let byte = base.load(fromByteOffset: end, as: UInt8.self)
            if byte == 0x2f || byte == 0x3f { break }
            end &+= 1
        }
        guard Authority.isValid(base, schemeEnd, end) else { return false }
        authority = ByteRange(schemeEnd, end)
        path = ByteRange(end, endOfPath(base, end, to))
        return true
    }

    private func endOfPath(_ base: UnsafeRawPointer, _ from: Int, _ to: Int) -> Int {
        var position = from
        while position < to, base.load(fromByteOffset: position, as: UInt8.self) != 0x3f { position &+= 1 }
        return position
    }

    @inline(__always)
    private static func method(_ base: UnsafeRawPointer, _ from: Int, _ to: Int) -> HTTPMethod {
        @inline(__always)
        func matches(_ word: StaticString) -> Bool {
            for index in 0..<(to &- from) {
                if base.load(fromByteOffset: from &+ index, as: UInt8.self) != word.utf8Start[index] { return false }
            }
            return true
        }
        switch to &- from {
        case 3:
            if matches("GET") { return .get }
            if matches("PUT") { return .put }
        case 4:
            if matches("POST") { return .post }
            if matches("HEAD") { return .head }
        case 5:
            if matches("PATCH") { return .patch }
            if matches("TRACE") { return .trace }
        case 6:
            if matches("DELETE") { return .delete }
        case 7:
            if matches("OPTIONS") { return .options }
            if matches("CONNECT") { return .connect }
        default:
            break
        }
        return .other
    }
}
