import MeshHTTP

/// Bodies in the chunked coding, or behind a length (RFC 9112 §6, §7.1).
///
/// The first byte of an input chooses the framing, the rest arrives. Properties: how the bytes are cut changes nothing; nothing is held
/// back beyond a line's limit; what ends a body is one body to a second decoder, written apart from the first, and has its payload.
enum BodyFramingProperty: FuzzProperty {
    static let name = "body-framing"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        guard let first = input.first else { return }
        let body = input.part(1, input.count)
        if first < 200 {
            try check(body, .chunked)
            try checkAgainstReference(body)
        } else {
            try check(body, first == 255 ? .untilClose : .length(UInt64(first - 200) * 3))
        }
    }

    static func check(_ body: UnsafeRawBufferPointer, _ framing: BodyFraming) throws(PropertyFailure) {
        let whole = try outcome(body, framing, [body.count])
        let split = try outcome(body, framing, Segmentation.ends(body))
        try require(whole == split, "\(framing): whole it is \(whole), in pieces \(split)")
    }

    struct Outcome: Equatable, CustomStringConvertible {
        var passed = 0
        var isDone = false
        var error: HTTP1Error?

        var description: String { "\(passed) bytes, done \(isDone), error \(error?.code ?? "none")" }
    }

    private static func outcome(_ body: UnsafeRawBufferPointer, _ framing: BodyFraming, _ ends: [Int])
        throws(PropertyFailure) -> Outcome
    {
        var scanner = BodyScanner(framing)
        var outcome = Outcome()
        outcome.isDone = scanner.isDone
        for end in ends where !outcome.isDone {
            let offered = body.part(outcome.passed, end)
            switch scanner.scan(offered) {
            case .more(let count):
                try require(count >= 0 && count <= offered.count, "\(count) of \(offered.count) bytes may pass")
                try require(
                    offered.count - count < HTTP1Limits.standard.chunkLineBytes,
                    "\(offered.count - count) bytes are held back")
                outcome.passed += count
            case .done(let count):
                try require(count >= 0 && count <= offered.count, "\(count) of \(offered.count) bytes end it")
                try require(scanner.isDone, "the end was told, and the scanner is not done")
                outcome.passed += count
                outcome.isDone = true
            case .invalid(let error, let count):
                try require(count >= 0 && count <= offered.count, "\(count) of \(offered.count) bytes are before it")
                outcome.passed += count
                outcome.error = error
                return outcome
            }
        }
        return outcome
    }

    private static let limitErrors: Set<HTTP1Error> = [
        .chunkLineTooLong, .chunkExtensionsTooLarge, .trailersTooLarge, .chunkSizeTooLarge,
    ]

    private static func checkAgainstReference(_ body: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let outcome = try outcome(body, .chunked, [body.count])
        let reference = ReferenceChunks(Array(body))
        if outcome.isDone {
            guard let reference else {
                throw PropertyFailure("accepted, but no chunked body: \(text(body.prefix(outcome.passed)))")
            }
            try require(
                reference.length == outcome.passed,
                "ends at \(outcome.passed), by the second decoder at \(reference.length)")
        } else if let reference {
            let isLimit = outcome.error.map { limitErrors.contains($0) || $0 == .forbiddenTrailerField } ?? false
            try require(isLimit, "not accepted (\(outcome)), but a chunked body of \(reference.length) bytes")
        }
        try checkPayload(body, outcome, reference, [body.count])
        try checkPayload(body, outcome, reference, Segmentation.ends(body))
    }

    private static func checkPayload(
        _ body: UnsafeRawBufferPointer, _ expected: Outcome, _ reference: ReferenceChunks?, _ ends: [Int]
    ) throws(PropertyFailure) {
        var scanner = BodyScanner(.chunked)
        var payload: [UInt8] = []
        var outcome = Outcome()
        for end in ends where !outcome.isDone && outcome.error == nil {
            let step = scanner.scanPayload(body.part(outcome.passed, end)) { payload += $0 }
            switch step {
            case .more(let count): outcome.passed += count
            case .done(let count): (outcome.passed, outcome.isDone) = (outcome.passed + count, true)
            case .invalid(let error, let count): (outcome.passed, outcome.error) = (outcome.passed + count, error)
            }
        }
        try require(outcome == expected, "for its payload it is \(outcome), as it came \(expected)")
        if let reference, outcome.isDone {
            try require(payload == reference.payload, "the payload is \(text(payload)), not \(text(reference.payload))")
        }
    }
}

/// A second reading of the chunked coding, the plain way. Nil for what is not one whole body.
struct ReferenceChunks {
    private(set) var payload: [UInt8] = []
    private(set) var length = 0

    init?(_ bytes: [UInt8]) {
        var lines = ReferenceLines(bytes)
        while true {
            guard let line = lines.next(), let size = ReferenceChunks.size(line) else { return nil }
            if size == 0 { break }
            guard let data = lines.take(size), let end = lines.next(), end.isEmpty else { return nil }
            payload += data
        }
        while let line = lines.next() {
            if line.isEmpty {
                length = lines.position
                return
            }
            guard ReferenceField(line) != nil else { return nil }
        }
        return nil
    }

    private static func size(_ line: ArraySlice<UInt8>) -> Int? {
        let digits = line.prefix { $0 < 128 && Character(Unicode.Scalar($0)).isHexDigit }
        guard (1...16).contains(digits.count), let size = Int(String(decoding: digits, as: UTF8.self), radix: 16) else {
            return nil
        }
        let rest = line.dropFirst(digits.count)
        if rest.isEmpty { return size }
        let behind = rest.drop { $0 == 32 || $0 == 9 }
        guard behind.first == UInt8(ascii: ";"), !behind.contains(where: ReferenceField.isControl) else { return nil }
        return size
    }
}

/// Lines that end in CRLF, one after the other; nil at one that does not.
struct ReferenceLines {
    let bytes: [UInt8]
    private(set) var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func next() -> ArraySlice<UInt8>? {
        guard let feed = bytes[position...].firstIndex(of: 10), feed > position, bytes[feed - 1] == 13 else {
            return nil
        }
        defer { position = feed + 1 }
        return bytes[position..<(feed - 1)]
    }

    mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
        guard count <= bytes.count - position else { return nil }
        defer { position += count }
        return bytes[position..<(position + count)]
    }
}

/// `name: value`, read the plain way.
struct ReferenceField: Equatable {
    var name: [UInt8]
    var value: [UInt8]

    init?(_ line: ArraySlice<UInt8>) {
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex,
            line[..<colon].allSatisfy(ReferenceField.isToken),
            !line[colon...].contains(where: ReferenceField.isControl)
        else { return nil }
        name = Array(line[..<colon])
        value = ReferenceField.trimmed(line[(colon + 1)...])
    }

    var folded: String { String(decoding: name, as: UTF8.self).lowercased() }

    /// The elements of a list, in lower case.
    var elements: [String] {
        value.split(separator: UInt8(ascii: ",")).map {
            String(decoding: ReferenceField.trimmed($0), as: UTF8.self).lowercased()
        }
    }

    static func trimmed(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
        let front = bytes.drop { $0 == 32 || $0 == 9 }
        return Array(front.reversed().drop { $0 == 32 || $0 == 9 }.reversed())
    }

    static func isControl(_ byte: UInt8) -> Bool { byte < 32 && byte != 9 || byte == 127 }

    static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 48...57, 65...90, 97...122: true
        default: Array("!#$%&'*+-.^_`|~".utf8).contains(byte)
        }
    }
}
