import MeshHTTP

/// The heads of HTTP/1 requests (RFC 9112 §3, §5, §6) and the bodies behind them.
///
/// Properties: how the bytes are cut changes nothing; what is accepted means the same to a second reading, written apart from the first:
/// one request line, one Host, one way to frame the body; what a copy sends on is one request of the same meaning, with every
/// field that is not the connection's, in order.
enum RequestFramingProperty: FuzzProperty {
    static let name = "request-framing"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        guard case .complete(let head) = RequestHead.parse(input) else {
            return try checkPrefixes(input)
        }
        try checkPrefixes(input)
        let reference = try ReferenceRequest(Array(input.prefix(head.length)))
        try require(String(decoding: input[head.methodRange], as: UTF8.self) == reference.method, "method")
        try require(input[head.target].elementsEqual(reference.target), "target \(text(input[head.target]))")
        let framing = try reference.framing
        try require(head.framing == framing, "\(head.framing), by the second reading \(framing)")
        try require(head.keepAlive == reference.keepsAlive, "keeps alive \(head.keepAlive)")
        try require(head.version == reference.version, "version \(head.version)")
        if let authority = head.authority {
            try require(authority.upperBound <= head.length, "authority \(authority)")
        }
        try checkCopy(head, input, reference)
        try BodyFramingProperty.check(input.part(head.length, input.count), head.framing)
    }

    private enum Verdict: Equatable {
        case incomplete
        case complete(Int)
        case invalid(HTTP1Error)
    }

    private static func verdict(_ bytes: UnsafeRawBufferPointer) -> Verdict {
        switch RequestHead.parse(bytes) {
        case .incomplete: .incomplete
        case .complete(let head): .complete(head.length)
        case .invalid(let error): .invalid(error)
        }
    }

    private static func checkPrefixes(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = verdict(input)
        for end in Segmentation.ends(input) {
            let part = verdict(input.part(0, end))
            if part == .incomplete { continue }
            try require(part == whole, "after \(end) bytes it is \(part), whole \(whole)")
            return
        }
    }

    private static func checkCopy(
        _ head: RequestHead, _ input: UnsafeRawBufferPointer, _ reference: ReferenceRequest
    ) throws(PropertyFailure) {
        let edit = HeadEdit(keepsUpgrade: true)
        let room = head.length + Int(head.authority?.count ?? 0) + 64
        let needed = head.copy(from: input, to: UnsafeMutableRawBufferPointer(start: nil, count: 0), edit: edit)
        try require(needed <= room, "a copy needs \(needed) bytes, \(room) were promised")
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: needed, alignment: 1)
        defer { output.deallocate() }
        let written = head.copy(from: input, to: output, edit: edit)
        try require(written == needed, "a copy wrote \(written) bytes of \(needed)")

        let bytes = UnsafeRawBufferPointer(output)
        guard case .complete(let copied) = RequestHead.parse(bytes, limits: copyLimits) else {
            throw PropertyFailure("the copy is no request: \(text(bytes))")
        }
        try require(copied.length == bytes.count, "the copy has \(bytes.count - copied.length) bytes behind its head")
        try require(
            copied.framing == head.framing && copied.method == head.method && copied.version == head.version
                && bytes[copied.target].elementsEqual(input[head.target]),
            "the copy means something else: \(text(bytes))")
        try require(
            copied.authority.map { Array(bytes[$0]).lowercased } == head.authority.map { Array(input[$0]).lowercased }
                || head.lacksHost, "the copy is for another host: \(text(bytes))")
        let sent = try ReferenceRequest(Array(bytes))
        let expected = reference.fields.filter {
            reference.passesOn($0, keepsUpgrade: head.wantsUpgrade) && $0.folded != "host"
        }
        let found = sent.fields.filter { !["connection", "te", "host"].contains($0.folded) }
        try require(
            expected == found,
            "of the fields \(expected.map(\.folded)) the copy has \(found.map(\.folded)): \(text(bytes))")
        let options = sent.fields.filter { $0.folded == "connection" }.flatMap(\.elements)
        try require(
            options.allSatisfy { ["te", "upgrade"].contains($0) }, "the copy's Connection lists \(options)")
    }

    private static var copyLimits: HTTP1Limits {
        var limits = HTTP1Limits()
        limits.headBytes += 20_000
        limits.fields += 4
        return limits
    }
}

extension [UInt8] {
    fileprivate var lowercased: [UInt8] { map { (65...90).contains($0) ? $0 | 32 : $0 } }
}

/// A second reading of a request's head, which `RequestHead` has accepted; throws where the two disagree on what may be accepted.
struct ReferenceRequest {
    private(set) var method = ""
    private(set) var target: [UInt8] = []
    private(set) var version = HTTPVersion.http11
    private(set) var fields: [ReferenceField] = []

    init(_ bytes: [UInt8]) throws(PropertyFailure) {
        var lines = ReferenceLines(bytes)
        var line = lines.next()
        if line?.isEmpty == true { line = lines.next() }
        let words = line?.split(separator: 32, omittingEmptySubsequences: false) ?? []
        guard words.count == 3 else { throw PropertyFailure("no request line of three words: \(text(line ?? []))") }
        method = String(decoding: words[0], as: UTF8.self)
        target = Array(words[1])
        switch String(decoding: words[2], as: UTF8.self) {
        case "HTTP/1.1": version = .http11
        case "HTTP/1.0": version = .http10
        default: throw PropertyFailure("version \(text(words[2]))")
        }
        try require(words[0].allSatisfy(ReferenceField.isToken) && !words[0].isEmpty, "method \(method)")
        try require(target.allSatisfy { $0 > 32 && $0 < 127 }, "target \(text(target))")
        fields = try ReferenceRequest.fields(&lines)
        try require(lines.position == bytes.count, "the head goes on behind its empty line")
        let hosts = fields.count { $0.folded == "host" }
        try require(hosts <= 1, "\(hosts) Host fields")
        if version == .http11 { try require(hosts == 1 || target.starts(with: "http".utf8), "no Host field") }
    }

    /// To the empty line.
    static func fields(_ lines: inout ReferenceLines) throws(PropertyFailure) -> [ReferenceField] {
        var fields: [ReferenceField] = []
        while let line = lines.next() {
            if line.isEmpty { return fields }
            guard let field = ReferenceField(line) else { throw PropertyFailure("no field line: \(text(line))") }
            fields.append(field)
        }
        throw PropertyFailure("a line that does not end in CRLF: \(text(lines.bytes[lines.position...]))")
    }

    /// RFC 9112 §6.3; only one way may be named.
    var framing: BodyFraming {
        get throws(PropertyFailure) { try ReferenceRequest.framing(fields) ?? .none }
    }

    static func framing(_ fields: [ReferenceField]) throws(PropertyFailure) -> BodyFraming? {
        let codings = fields.filter { $0.folded == "transfer-encoding" }
        let lengths = fields.filter { $0.folded == "content-length" }
        try require(codings.count + lengths.count <= 1, "framed \(codings.count + lengths.count) times")
        if let coding = codings.first {
            try require(coding.elements == ["chunked"], "coding \(text(coding.value))")
            return .chunked
        }
        guard let length = lengths.first else { return nil }
        guard length.value.allSatisfy({ (48...57).contains($0) }),
            let count = UInt64(String(decoding: length.value, as: UTF8.self))
        else { throw PropertyFailure("length \(text(length.value))") }
        return .length(count)
    }

    var options: [String] { fields.filter { $0.folded == "connection" }.flatMap(\.elements) }

    /// RFC 9112 §9.3.
    var keepsAlive: Bool {
        if options.contains("close") { return false }
        return version == .http11 || options.contains("keep-alive")
    }

    private static let connectionFields = ["connection", "keep-alive", "proxy-connection", "te", "http2-settings"]

    /// RFC 9110 §7.6.1.
    func passesOn(_ field: ReferenceField, keepsUpgrade: Bool) -> Bool {
        let name = field.folded
        if ReferenceRequest.connectionFields.contains(name) { return false }
        if name == "upgrade" { return keepsUpgrade }
        return name == "transfer-encoding" || !options.contains(name)
    }
}
