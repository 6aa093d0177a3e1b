import MeshHTTP

/// The heads of HTTP/1 responses, whose framing depends on the request too (RFC 9112 §4, §6.3).
///
/// The first byte of an input says what was asked (HEAD, CONNECT, an upgrade, HTTP/1.0). Properties: how the bytes are cut changes nothing;
/// what is accepted is framed as a second reading frames it; a copy is one response of the same meaning.
enum ResponseFramingProperty: FuzzProperty {
    static let name = "response-framing"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        guard let first = input.first else { return }
        let request = RequestTraits(rawValue: first & 15)
        let bytes = input.part(1, input.count)
        try checkPrefixes(bytes, request)
        guard case .complete(let head) = ResponseHead.parse(bytes, answering: request) else { return }
        let reference = try ReferenceResponse(Array(bytes.prefix(head.length)))
        try require(head.status == reference.status, "status \(head.status)")
        let framing = try reference.framing(request)
        try require(head.framing == framing, "\(head.framing), by the second reading \(framing)")
        try checkCopy(head, bytes, request, reference)
        try BodyFramingProperty.check(bytes.part(head.length, bytes.count), head.framing)
    }

    private enum Verdict: Equatable {
        case incomplete
        case complete(Int)
        case invalid(HTTP1Error)
    }

    private static func verdict(_ bytes: UnsafeRawBufferPointer, _ request: RequestTraits) -> Verdict {
        switch ResponseHead.parse(bytes, answering: request) {
        case .incomplete: .incomplete
        case .complete(let head): .complete(head.length)
        case .invalid(let error): .invalid(error)
        }
    }

    private static func checkPrefixes(_ bytes: UnsafeRawBufferPointer, _ request: RequestTraits) throws(PropertyFailure)
    {
        let whole = verdict(bytes, request)
        for end in Segmentation.ends(bytes) {
            let part = verdict(bytes.part(0, end), request)
            if part == .incomplete { continue }
            try require(part == whole, "after \(end) bytes it is \(part), whole \(whole)")
            return
        }
    }

    private static func checkCopy(
        _ head: ResponseHead, _ bytes: UnsafeRawBufferPointer, _ request: RequestTraits, _ reference: ReferenceResponse
    ) throws(PropertyFailure) {
        let edit = HeadEdit(keepsUpgrade: true)
        let needed = head.copy(from: bytes, to: UnsafeMutableRawBufferPointer(start: nil, count: 0), edit: edit)
        try require(needed <= head.length + 64, "a copy needs \(needed) bytes for \(head.length)")
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: needed, alignment: 1)
        defer { output.deallocate() }
        _ = head.copy(from: bytes, to: output, edit: edit)
        let copy = UnsafeRawBufferPointer(output)
        var limits = HTTP1Limits()
        limits.headBytes += 64
        limits.fields += 1
        guard case .complete(let copied) = ResponseHead.parse(copy, answering: request, limits: limits) else {
            throw PropertyFailure("the copy is no response: \(text(copy))")
        }
        try require(copied.length == copy.count, "the copy has \(copy.count - copied.length) bytes behind its head")
        try require(
            copied.framing == head.framing && copied.status == head.status && copied.version == head.version,
            "the copy means something else: \(text(copy))")
        let sent = try ReferenceResponse(Array(copy))
        let options = sent.fields.filter { $0.folded == "connection" }.flatMap(\.elements)
        try require(options.allSatisfy { $0 == "upgrade" }, "the copy's Connection lists \(options)")
        let dropped = reference.droppedNames(keepsUpgrade: head.status == 101, isTunnel: head.framing == .upgrade)
        let expected = reference.fields.filter {
            !dropped.contains($0.folded) || $0.folded == "transfer-encoding" && head.framing == .chunked
        }
        let found = sent.fields.filter { $0.folded != "connection" }
        try require(
            expected == found, "of \(expected.map(\.folded)) the copy has \(found.map(\.folded)): \(text(copy))")
    }
}

/// A second reading of a response's head.
struct ReferenceResponse {
    private(set) var status = 0
    private(set) var fields: [ReferenceField] = []

    init(_ bytes: [UInt8]) throws(PropertyFailure) {
        var lines = ReferenceLines(bytes)
        let line = lines.next() ?? []
        let words = line.split(separator: 32, maxSplits: 2, omittingEmptySubsequences: false)
        guard words.count >= 2, words[0].elementsEqual("HTTP/1.1".utf8) || words[0].elementsEqual("HTTP/1.0".utf8),
            words[1].count == 3, let status = Int(String(decoding: words[1], as: UTF8.self))
        else { throw PropertyFailure("no status line: \(text(line))") }
        self.status = status
        fields = try ReferenceRequest.fields(&lines)
        try require(lines.position == bytes.count, "the head goes on behind its empty line")
    }

    /// RFC 9112 §6.3.
    func framing(_ request: RequestTraits) throws(PropertyFailure) -> BodyFraming {
        if request.contains(.connect), (200..<300).contains(status) { return .upgrade }
        if status == 101 { return .upgrade }
        if request.contains(.head) || status < 200 || status == 204 || status == 304 { return .none }
        return try ReferenceRequest.framing(fields) ?? .untilClose
    }

    func droppedNames(keepsUpgrade: Bool, isTunnel: Bool) -> Set<String> {
        var names: Set = ["connection", "keep-alive", "proxy-connection", "te", "http2-settings"]
        if !keepsUpgrade { names.insert("upgrade") }
        for option in fields.filter({ $0.folded == "connection" }).flatMap(\.elements)
        where option != "transfer-encoding" && option != "upgrade" {
            names.insert(option)
        }
        if status < 200 || status == 204 || isTunnel { names.insert("content-length") }
        if isTunnel, status != 101 { names.formUnion(["transfer-encoding", "trailer"]) }
        return names
    }
}
