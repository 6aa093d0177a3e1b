/// The head of an HTTP/1 response: offsets into the bytes it was parsed from, like `RequestHead`.
package struct ResponseHead: Sendable {
    package private(set) var version = HTTPVersion.http11
    /// 100 to 599.
    package private(set) var status = 0
    package private(set) var reasonPhrase = ByteRange.empty
    package private(set) var framing = BodyFraming.none
    /// Whether the server's connection may carry another exchange after this one.
    package private(set) var keepAlive = false
    /// The bytes of the head, the empty line included.
    package private(set) var length = 0
    var fields = FieldSection()
    private(set) var versionDigit = 7

    private init() {}

    /// A 1xx after which the real response follows (RFC 9110 §15.2); not so 101.
    package var isInterim: Bool { status < 200 && status != 101 }

    /// The first value of a field, trimmed; only for the names with a remembered value.
    package func value(of name: HeaderName) -> ByteRange? { fields.value(of: name) }

    package func has(_ name: HeaderName) -> Bool { fields.present.contains(HeaderSet(name)) }

    /// How long the server says that it keeps an idle connection; nil when it does not say.
    package var keepAliveSeconds: Int? { fields.keepAliveSeconds < 0 ? nil : Int(fields.keepAliveSeconds) }

    /// Parses the head at the start of `bytes`; `request` is what the framing depends on. The answer does not depend on how the
    /// bytes were split.
    package static func parse(
        _ bytes: UnsafeRawBufferPointer, answering request: RequestTraits, limits: HTTP1Limits = .standard
    ) -> HeadResult<ResponseHead> {
        guard let base = bytes.baseAddress else { return .incomplete }
        var head = ResponseHead()
        let count = min(bytes.count, limits.headBytes)
        switch head.parse(base, count, request, limits) {
        case .complete: return .complete(head)
        case .incomplete: return bytes.count >= limits.headBytes ? .invalid(.headTooLarge) : .incomplete
        case .invalid(let error): return .invalid(error)
        }
    }

    private mutating func parse(
        _ base: UnsafeRawPointer, _ count: Int, _ request: RequestTraits, _ limits: borrowing HTTP1Limits
    ) -> FieldSection.Outcome {
        let fieldsStart: Int
        switch parseStatusLine(base, count) {
        case .complete: fieldsStart = reasonPhrase.upperBound &+ 2
        case .incomplete: return .incomplete
        case .invalid(let error): return .invalid(error)
        }
        switch fields.parse(base, from: fieldsStart, count: count, limits: limits, isRequest: false) {
        case .complete: break
        case .incomplete: return .incomplete
        case .invalid(let error): return .invalid(error)
        }
        length = fields.emptyLine &+ 2
        if let error = settle(request) { return .invalid(error) }
        return .complete
    }

    /// The length of the body by RFC 9112 §6.3.
    private mutating func settle(_ request: RequestTraits) -> HTTP1Error? {
        let lacksBody = status < 200 || status == 204
        // A tunnel has no framing, whatever the fields say (RFC 9110 §9.3.6).
        if request.contains(.connect) && (200..<300).contains(status) {
            framing = .upgrade
            return nil
        }
        if fields.isChunked {
            if version == .http10 { return .transferEncodingInHTTP10 }
            if lacksBody { return .transferEncodingWithoutBody }
        }
        let mayPersist = version == .http11 ? !fields.hasClose : fields.hasKeepAlive && !fields.hasClose
        if status == 101 {
            guard request.contains(.upgrade) else { return .unrequestedUpgrade }
            framing = .upgrade
        } else if lacksBody || status == 304 || request.contains(.head) {
            // A 1xx or 204 that claims a body might be followed by one: what comes next cannot be trusted.
            keepAlive = mayPersist && !(lacksBody && fields.contentLength > 0)
            framing = .none
        } else if fields.isChunked {
            keepAlive = mayPersist
            framing = .chunked
        } else if fields.present.contains(HeaderSet(.contentLength)) {
            keepAlive = mayPersist
            framing = .length(fields.contentLength)
        } else {
            framing = .untilClose
        }
        return nil
    }

    /// `HTTP/1.x SP 3DIGIT SP reason-phrase CRLF`; the second space may be missing with an empty reason phrase, as many
    /// servers have it.
    private mutating func parseStatusLine(_ base: UnsafeRawPointer, _ count: Int) -> FieldSection.Outcome {
        @inline(__always)
        func byte(_ offset: Int) -> UInt8 { base.load(fromByteOffset: offset, as: UInt8.self) }

        let expected: StaticString = "HTTP/1."
        for index in 0..<7 {
            guard index < count else { return .incomplete }
            guard byte(index) == expected.utf8Start[index] else {
                return .invalid(index == 5 && byte(5) &- 0x30 <= 9 ? .unsupportedVersion : .malformedStatusLine)
            }
        }
        guard count > 7 else { return .incomplete }
        guard let version = HTTPVersion(rawValue: byte(7) &- 0x30) else { return .invalid(.unsupportedVersion) }
        self.version = version
        guard count > 8 else { return .incomplete }
        guard byte(8) == 0x20 else { return .invalid(.malformedStatusLine) }
        for offset in 9..<12 {
            guard offset < count else { return .incomplete }
            let digit = byte(offset) &- 0x30
            guard digit <= 9 else { return .invalid(.invalidStatus) }
            status = status &* 10 &+ Int(digit)
        }
        guard (100...599).contains(status) else { return .invalid(.invalidStatus) }
        guard count > 12 else { return .incomplete }
        let separator = byte(12)
        guard separator == 0x20 || separator == 0x0d else {
            if separator == 0x0a { return .invalid(.bareLineFeed) }
            return .invalid(separator &- 0x30 <= 9 ? .invalidStatus : .malformedStatusLine)
        }
        let stop = endOfValue(base, 12, count)
        guard stop < count else { return .incomplete }
        guard byte(stop) == 0x0d else { return .invalid(byte(stop) == 0x0a ? .bareLineFeed : .malformedStatusLine) }
        guard stop &+ 1 < count else { return .incomplete }
        guard byte(stop &+ 1) == 0x0a else { return .invalid(.bareCarriageReturn) }
        reasonPhrase = ByteRange(min(13, stop), stop)
        return .complete
    }
}
