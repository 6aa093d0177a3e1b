/// Follows a message's body as its bytes pass, and says which of them belong to it. Chunks, extensions and trailers are checked
/// before the answer lets their bytes go on.
package struct BodyScanner: Sendable {
    package enum Step: Sendable, Equatable {
        /// The first `count` bytes may pass on; the message goes on. Any bytes behind them are an unfinished line (at most
        /// `chunkLineBytes`) and are to be given again, with more.
        case more(count: Int)
        /// The first `count` bytes may pass on, and end the message.
        case done(count: Int)
        /// The message is malformed behind the first `count` bytes.
        case invalid(HTTP1Error, count: Int)
    }

    enum State {
        case done, data, chunkSize, chunkData, chunkEnd, trailers, untilClose
    }

    private(set) var state: State
    /// Of the body, or of the chunk.
    private(set) var remaining: UInt64 = 0
    private var extensionBytes = 0
    private var trailerBytes = 0
    private var trailerFields = 0
    private let limits: HTTP1Limits

    package init(_ framing: BodyFraming, limits: HTTP1Limits = .standard) {
        self.limits = limits
        switch framing {
        case .none, .length(0): state = .done
        case .length(let count):
            state = .data
            remaining = count
        case .chunked: state = .chunkSize
        case .untilClose, .upgrade: state = .untilClose
        }
    }

    /// Whether the message has ended; at once for one without a body.
    package var isDone: Bool { state == .done }

    /// Whether the end of the connection is this message's proper end; otherwise it is a truncation (RFC 9112 §8).
    package var mayEndWithConnection: Bool { state == .done || state == .untilClose }

    package mutating func scan(_ bytes: UnsafeRawBufferPointer) -> Step {
        switch state {
        case .done:
            return .done(count: 0)
        case .untilClose:
            return .more(count: bytes.count)
        case .data:
            let count = take(bytes.count)
            if remaining > 0 { return .more(count: count) }
            state = .done
            return .done(count: count)
        case .chunkSize, .chunkData, .chunkEnd, .trailers:
            guard let base = bytes.baseAddress else { return .more(count: 0) }
            return scanChunked(base, bytes.count)
        }
    }

    /// Like `scan` within the chunked coding, but no further than to where the data of a chunk begins.
    mutating func scanToChunkData(_ bytes: UnsafeRawBufferPointer) -> Step {
        guard let base = bytes.baseAddress else { return .more(count: 0) }
        return scanChunked(base, bytes.count, stopsAtData: true)
    }

    @inline(__always)
    private mutating func take(_ available: Int) -> Int {
        let count = remaining < UInt64(available) ? Int(truncatingIfNeeded: remaining) : available
        remaining &-= UInt64(count)
        return count
    }

    @inline(__always)
    private mutating func scanChunked(_ base: UnsafeRawPointer, _ count: Int, stopsAtData: Bool = false) -> Step {
        var position = 0
        while position < count {
            switch state {
            case .chunkData:
                position &+= take(count &- position)
                if remaining == 0 { state = .chunkEnd }
            case .chunkEnd:
                guard base.load(fromByteOffset: position, as: UInt8.self) == 0x0d else {
                    return .invalid(.chunkEndMissing, count: position)
                }
                guard position &+ 1 < count else { return .more(count: position) }
                guard base.load(fromByteOffset: position &+ 1, as: UInt8.self) == 0x0a else {
                    return .invalid(.chunkEndMissing, count: position)
                }
                position &+= 2
                state = .chunkSize
            case .chunkSize:
                switch chunkLine(base, position, count) {
                case .incomplete: return .more(count: position)
                case .invalid(let error): return .invalid(error, count: position)
                case .end(let end): position = end
                }
                if stopsAtData, state == .chunkData { return .more(count: position) }
            case .trailers:
                switch trailerLine(base, position, count) {
                case .incomplete: return .more(count: position)
                case .invalid(let error): return .invalid(error, count: position)
                case .end(let end): position = end
                }
                if state == .done { return .done(count: position) }
            case .done, .data, .untilClose:
                return .done(count: position)
            }
        }
        return .more(count: position)
    }

    private enum Line {
        case end(Int), incomplete
        case invalid(HTTP1Error)
    }

    /// `chunk-size [chunk-ext] CRLF` (RFC 9112 §7.1): at most 16 hexadecimal digits, nothing before them, and behind them CRLF, or an
    /// extension, before whose semicolon white space may stand.
    private mutating func chunkLine(_ base: UnsafeRawPointer, _ from: Int, _ count: Int) -> Line {
        let end = min(count, from &+ limits.chunkLineBytes)
        let tooLong = end < count || count &- from >= limits.chunkLineBytes
        var position = from
        var size: UInt64 = 0
        while position < end {
            let byte = base.load(fromByteOffset: position, as: UInt8.self)
            let digit: UInt8
            if byte &- 0x30 <= 9 {
                digit = byte &- 0x30
            } else if (byte | 0x20) &- 0x61 < 6 {
                digit = (byte | 0x20) &- 0x57
            } else {
                break
            }
            guard position &- from < 16 else { return .invalid(.chunkSizeTooLarge) }
            size = size << 4 | UInt64(digit)
            position &+= 1
        }
        guard position < end else { return tooLong ? .invalid(.chunkLineTooLong) : .incomplete }
        guard position > from else { return .invalid(.invalidChunkSize) }
        guard size <= UInt64(Int64.max) else { return .invalid(.chunkSizeTooLarge) }

        let sizeEnd = position
        if base.load(fromByteOffset: position, as: UInt8.self) != 0x0d {
            while position < end, base.isWhitespace(position) { position &+= 1 }
            guard position < end else { return tooLong ? .invalid(.chunkLineTooLong) : .incomplete }
            guard base.load(fromByteOffset: position, as: UInt8.self) == 0x3b else {
                return .invalid(.invalidChunkSize)
            }
            position = endOfValue(base, position, end)
            guard position < end else { return tooLong ? .invalid(.chunkLineTooLong) : .incomplete }
            let byte = base.load(fromByteOffset: position, as: UInt8.self)
            guard byte == 0x0d else { return .invalid(byte == 0x0a ? .bareLineFeed : .invalidChunkExtension) }
        }
        guard position &+ 1 < end else { return tooLong ? .invalid(.chunkLineTooLong) : .incomplete }
        guard base.load(fromByteOffset: position &+ 1, as: UInt8.self) == 0x0a else {
            return .invalid(.bareCarriageReturn)
        }
        extensionBytes &+= position &- sizeEnd
        guard extensionBytes <= limits.chunkExtensionBytes else { return .invalid(.chunkExtensionsTooLarge) }
        remaining = size
        state = size == 0 ? .trailers : .chunkData
        return .end(position &+ 2)
    }

    /// A trailer field, checked like one of the head, or the empty line that ends the message.
    private mutating func trailerLine(_ base: UnsafeRawPointer, _ from: Int, _ count: Int) -> Line {
        if base.load(fromByteOffset: from, as: UInt8.self) == 0x0d {
            guard from &+ 1 < count else { return .incomplete }
            guard base.load(fromByteOffset: from &+ 1, as: UInt8.self) == 0x0a else {
                return .invalid(.bareCarriageReturn)
            }
            state = .done
            return .end(from &+ 2)
        }
        let end = min(count, from &+ limits.chunkLineBytes)
        switch FieldLine.parse(base, from: from, count: end) {
        case .incomplete:
            let tooLong = end < count || count &- from >= limits.chunkLineBytes
            return tooLong ? .invalid(.chunkLineTooLong) : .incomplete
        case .invalid(let error):
            return .invalid(error)
        case .complete(let line):
            let name = HeaderName(base, from, line.nameEnd &- from)
            if name != .other, HeaderSet.forbiddenInTrailers.contains(HeaderSet(name)) {
                return .invalid(.forbiddenTrailerField)
            }
            trailerFields &+= 1
            trailerBytes &+= line.end &- from
            guard trailerFields <= limits.fields, trailerBytes <= limits.trailerBytes else {
                return .invalid(.trailersTooLarge)
            }
            return .end(line.end)
        }
    }
}
