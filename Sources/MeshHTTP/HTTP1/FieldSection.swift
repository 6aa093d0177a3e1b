/// What one walk over the field lines of a head has found (RFC 9112 §5). Holds offsets only, so it stays valid as long as the
/// bytes do, and copying it costs no allocation.
struct FieldSection: Sendable {
    enum Outcome {
        case complete, incomplete
        case invalid(HTTP1Error)
    }

    /// A line that a copy may leave out, its CRLF included.
    struct Line {
        var name: HeaderName
        var bytes: ByteRange
    }

    private(set) var present: HeaderSet = []
    private(set) var contentLength: UInt64 = 0
    private(set) var isChunked = false
    private(set) var hasClose = false
    private(set) var hasKeepAlive = false
    private(set) var hasUpgradeOption = false
    /// Whether a Connection field names a field that is not dropped anyway.
    private(set) var connectionNamesOthers = false
    /// TE lists `trailers`; and it is one line of nothing else, which can pass as it is.
    private(set) var teHasTrailers = false
    private(set) var teIsTrailers = false
    /// How long the sender keeps an idle connection, by the parameter `timeout` of Keep-Alive; -1 when it does not say.
    private(set) var keepAliveSeconds: Int32 = -1
    private(set) var expectsContinue = false
    private(set) var upgradeIsHTTP2 = false
    /// The offset of the first field line, and of the empty line.
    private(set) var start = 0
    private(set) var emptyLine = 0

    private var values = InlineArray<10, ByteRange>(repeating: .empty)
    private(set) var lines = InlineArray<8, Line>(repeating: Line(name: .other, bytes: .empty))
    private(set) var lineCount = 0
    /// More removable lines than `lines` holds: a copy has to walk the fields again.
    private(set) var linesOverflow = false
    private var connectionOptions = 0

    init() {}

    func value(of name: HeaderName) -> ByteRange? {
        guard name.rawValue < HeaderName.remembered, present.contains(HeaderSet(name)) else { return nil }
        return values[Int(name.rawValue)]
    }

    /// Walks from `from` to the empty line. The first offence in the order of the bytes is the one reported, whatever part of
    /// the message has arrived.
    mutating func parse(
        _ base: UnsafeRawPointer, from: Int, count: Int, limits: borrowing HTTP1Limits, isRequest: Bool
    ) -> Outcome {
        start = from
        var position = from
        var fields = 0
        while position < count {
            let first = base.load(fromByteOffset: position, as: UInt8.self)
            if first == 0x0d {
                guard position &+ 1 < count else { return .incomplete }
                guard base.load(fromByteOffset: position &+ 1, as: UInt8.self) == 0x0a else {
                    return .invalid(.bareCarriageReturn)
                }
                emptyLine = position
                return .complete
            }
            let line: FieldLine
            switch FieldLine.parse(base, from: position, count: count) {
            case .incomplete: return .incomplete
            case .invalid(let error): return .invalid(error)
            case .complete(let parsed): line = parsed
            }
            fields &+= 1
            if fields > limits.fields { return .invalid(.tooManyFields) }
            let name = HeaderName(base, position, line.nameEnd &- position)
            if name != .other, let error = note(name, line, base, position, limits, isRequest) {
                return .invalid(error)
            }
            position = line.end
        }
        return .incomplete
    }

    private mutating func note(
        _ name: HeaderName, _ line: FieldLine, _ base: UnsafeRawPointer, _ lineStart: Int,
        _ limits: borrowing HTTP1Limits,
        _ isRequest: Bool
    ) -> HTTP1Error? {
        let repeated = present.contains(HeaderSet(name))
        present.insert(HeaderSet(name))
        let value = ByteRange(line.valueStart, line.valueEnd)
        if name.rawValue < HeaderName.remembered && !repeated { values[Int(name.rawValue)] = value }
        if HeaderSet.removable.contains(HeaderSet(name)) {
            if lineCount < lines.count {
                lines[lineCount] = Line(name: name, bytes: ByteRange(lineStart, line.end))
                lineCount &+= 1
            } else {
                linesOverflow = true
            }
        }
        switch name {
        case .host:
            if repeated { return isRequest ? .duplicateHost : nil }
        case .contentLength:
            return noteContentLength(base, line, repeated)
        case .transferEncoding:
            if present.contains(HeaderSet(.contentLength)) { return .contentLengthWithTransferEncoding }
            if repeated { return .duplicateTransferEncoding }
            guard base.hasWord("chunked", from: line.valueStart, to: line.valueEnd) else {
                return .unsupportedTransferEncoding
            }
            isChunked = true
        case .connection:
            return noteConnection(base, line, limits)
        case .te:
            teIsTrailers = !repeated && base.hasWord("trailers", from: line.valueStart, to: line.valueEnd)
            if !teHasTrailers {
                teHasTrailers = base.hasListElement("trailers", from: line.valueStart, to: line.valueEnd)
            }
        case .keepAlive:
            if !isRequest { noteKeepAlive(base, line) }
        case .expect:
            guard isRequest else { return nil }
            guard base.hasWord("100-continue", from: line.valueStart, to: line.valueEnd) else {
                return .unsupportedExpectation
            }
            expectsContinue = true
        case .upgrade:
            if base.hasListElement("h2c", from: line.valueStart, to: line.valueEnd) { upgradeIsHTTP2 = true }
        default:
            break
        }
        return nil
    }

    /// Digits only, without leading zeros (a parser that took them for octal would see another length), at most 2^63 - 1.
    private mutating func noteContentLength(_ base: UnsafeRawPointer, _ line: FieldLine, _ repeated: Bool)
        -> HTTP1Error?
    {
        if present.contains(HeaderSet(.transferEncoding)) { return .contentLengthWithTransferEncoding }
        if repeated { return .duplicateContentLength }
        let digits = line.valueEnd &- line.valueStart
        guard (1...19).contains(digits) else { return .invalidContentLength }
        if digits > 1 && base.load(fromByteOffset: line.valueStart, as: UInt8.self) == 0x30 {
            return .invalidContentLength
        }
        var total: UInt64 = 0
        for offset in line.valueStart..<line.valueEnd {
            let digit = base.load(fromByteOffset: offset, as: UInt8.self) &- 0x30
            guard digit <= 9 else { return .invalidContentLength }
            // Nineteen digits stay below 10^19, which a UInt64 holds.
            total = total &* 10 &+ UInt64(digit)
        }
        guard total <= UInt64(Int64.max) else { return .invalidContentLength }
        contentLength = total
        return nil
    }

    /// `timeout=N` (RFC 2068 §19.7.1.1, still sent by Apache, Node and Jetty); what is not a plain number says nothing.
    private mutating func noteKeepAlive(_ base: UnsafeRawPointer, _ line: FieldLine) {
        var elements = ListElements(base, line.valueStart, line.valueEnd)
        while let element = elements.next() {
            let (from, to) = (element.lowerBound, element.upperBound)
            guard to &- from > 8, base.hasWord("timeout=", from: from, to: from &+ 8) else { continue }
            var seconds: Int32 = 0
            for offset in (from &+ 8)..<to {
                let digit = base.load(fromByteOffset: offset, as: UInt8.self) &- 0x30
                guard digit <= 9 else { return }
                seconds = min(seconds &* 10 &+ Int32(digit), 100_000_000)
            }
            keepAliveSeconds = seconds
        }
    }

    private mutating func noteConnection(
        _ base: UnsafeRawPointer, _ line: FieldLine, _ limits: borrowing HTTP1Limits
    ) -> HTTP1Error? {
        var elements = ListElements(base, line.valueStart, line.valueEnd)
        while let element = elements.next() {
            connectionOptions &+= 1
            if connectionOptions > limits.connectionOptions { return .tooManyConnectionOptions }
            let (from, to) = (element.lowerBound, element.upperBound)
            if base.hasWord("close", from: from, to: to) {
                hasClose = true
            } else if base.hasWord("keep-alive", from: from, to: to) {
                hasKeepAlive = true
            } else if base.hasWord("upgrade", from: from, to: to) {
                hasUpgradeOption = true
            } else {
                switch HeaderName(base, from, to &- from) {
                case .host, .contentLength: return .connectionNamesFramingField
                // These are dropped, or kept, whether named or not.
                case .te, .transferEncoding, .connection, .proxyConnection, .http2Settings, .keepAlive, .upgrade: break
                default: connectionNamesOthers = true
                }
            }
        }
        return nil
    }
}

/// One field line: `name ":" OWS value OWS CRLF`.
struct FieldLine {
    enum Outcome {
        case complete(FieldLine), incomplete
        case invalid(HTTP1Error)
    }

    var nameEnd: Int
    var valueStart: Int
    var valueEnd: Int
    /// Behind the CRLF.
    var end: Int

    @inline(__always)
    static func parse(_ base: UnsafeRawPointer, from: Int, count: Int) -> Outcome {
        var position = from
        while position < count, ByteClass.has(base.load(fromByteOffset: position, as: UInt8.self), ByteClass.token) {
            position &+= 1
        }
        guard position < count else { return .incomplete }
        guard position > from, base.load(fromByteOffset: position, as: UInt8.self) == 0x3a else {
            return whyNoName(base, from, position, count)
        }
        let nameEnd = position
        let stop = endOfValue(base, nameEnd &+ 1, count)
        guard stop < count else { return .incomplete }
        let byte = base.load(fromByteOffset: stop, as: UInt8.self)
        guard byte == 0x0d else { return .invalid(byte == 0x0a ? .bareLineFeed : .controlCharacterInValue) }
        guard stop &+ 1 < count else { return .incomplete }
        guard base.load(fromByteOffset: stop &+ 1, as: UInt8.self) == 0x0a else { return .invalid(.bareCarriageReturn) }
        var valueStart = nameEnd &+ 1
        var valueEnd = stop
        while valueStart < valueEnd, base.isWhitespace(valueStart) { valueStart &+= 1 }
        while valueEnd > valueStart, base.isWhitespace(valueEnd &- 1) { valueEnd &-= 1 }
        return .complete(FieldLine(nameEnd: nameEnd, valueStart: valueStart, valueEnd: valueEnd, end: stop &+ 2))
    }

    private static func whyNoName(_ base: UnsafeRawPointer, _ from: Int, _ position: Int, _ count: Int) -> Outcome {
        let byte = base.load(fromByteOffset: position, as: UInt8.self)
        switch byte {
        case 0x0a:
            return .invalid(.bareLineFeed)
        case 0x0d:
            guard position &+ 1 < count else { return .incomplete }
            let isLineEnd = base.load(fromByteOffset: position &+ 1, as: UInt8.self) == 0x0a
            return .invalid(isLineEnd ? .missingColon : .bareCarriageReturn)
        case 0x20, 0x09:
            return .invalid(position == from ? .obsoleteLineFolding : .whitespaceBeforeColon)
        case 0x3a:
            return .invalid(.emptyFieldName)
        default:
            return .invalid(.invalidFieldName)
        }
    }
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1), trimmed; empty ones are skipped.
struct ListElements {
    private let base: UnsafeRawPointer
    private var position: Int
    private let end: Int

    init(_ base: UnsafeRawPointer, _ from: Int, _ to: Int) {
        self.base = base
        position = from
        end = to
    }

    mutating func next() -> Range<Int>? {
        while position < end {
            var from = position
            while position < end, base.load(fromByteOffset: position, as: UInt8.self) != 0x2c { position &+= 1 }
            var to = position
            position &+= 1
            while from < to, base.isWhitespace(from) { from &+= 1 }
            while to > from, base.isWhitespace(to &- 1) { to &-= 1 }
            if from < to { return from..<to }
        }
        return nil
    }
}

extension UnsafeRawPointer {
    /// SP or HTAB.
    @inline(__always)
    func isWhitespace(_ offset: Int) -> Bool {
        let byte = load(fromByteOffset: offset, as: UInt8.self)
        return byte == 0x20 || byte == 0x09
    }

    /// Whether the bytes are `word`, which is given in lower case, in any case.
    @inline(__always)
    func hasWord(_ word: StaticString, from: Int, to: Int) -> Bool {
        guard to &- from == word.utf8CodeUnitCount else { return false }
        let expected = word.utf8Start
        for index in 0..<(to &- from) {
            var byte = load(fromByteOffset: from &+ index, as: UInt8.self)
            if byte &- 0x41 < 26 { byte |= 0x20 }
            if byte != expected[index] { return false }
        }
        return true
    }

    func hasListElement(_ word: StaticString, from: Int, to: Int) -> Bool {
        var elements = ListElements(self, from, to)
        while let element = elements.next() {
            if hasWord(word, from: element.lowerBound, to: element.upperBound) { return true }
        }
        return false
    }
}
