import MeshHTTP

/// Everything that the framing says about one message, in a form that can be compared.
enum Verdict: Equatable {
    case incomplete(String)
    case complete(head: String, copy: [UInt8], body: [UInt8], consumed: Int)
    /// The body ends with its connection.
    case open(head: String, copy: [UInt8], body: [UInt8])
    case invalid(HTTP1Error)
}

enum MessageKind: Equatable {
    case request
    case response(RequestTraits)
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Parses one message as a connection would: `pieces` arrive one after the other, what was not consumed is given again in
/// front of the next.
func receive(_ pieces: [ArraySlice<UInt8>], as kind: MessageKind, limits: HTTP1Limits = .standard) -> Verdict {
    var buffer: [UInt8] = []
    var consumed = 0
    var head: (text: String, copy: [UInt8], framing: BodyFraming)?
    var scanner = BodyScanner(.none)
    var body: [UInt8] = []
    for piece in pieces {
        buffer += piece
        if head == nil {
            switch parse(buffer, as: kind, limits: limits) {
            case .incomplete: continue
            case .invalid(let error): return .invalid(error)
            case .complete(let parsed):
                head = (parsed.text, parsed.copy, parsed.framing)
                buffer.removeFirst(parsed.length)
                consumed = parsed.length
                scanner = BodyScanner(parsed.framing, limits: limits)
            }
        }
        guard let head else { continue }
        if scanner.isDone { return .complete(head: head.text, copy: head.copy, body: body, consumed: consumed) }
        switch buffer.withUnsafeBytes({ scanner.scan($0) }) {
        case .more(let count):
            body += buffer[..<count]
            consumed += count
            buffer.removeFirst(count)
        case .done(let count):
            return .complete(
                head: head.text, copy: head.copy, body: body + buffer[..<count], consumed: consumed + count)
        case .invalid(let error, _):
            return .invalid(error)
        }
    }
    guard let head else { return .incomplete("head") }
    return scanner.mayEndWithConnection
        ? .open(head: head.text, copy: head.copy, body: body) : .incomplete("body")
}

func receive(_ message: [UInt8], as kind: MessageKind, limits: HTTP1Limits = .standard) -> Verdict {
    receive([message[...]], as: kind, limits: limits)
}

struct ParsedHead {
    var text: String
    var copy: [UInt8]
    var framing: BodyFraming
    var length: Int
}

func parse(_ message: [UInt8], as kind: MessageKind, limits: HTTP1Limits = .standard) -> HeadResult<ParsedHead> {
    message.withUnsafeBytes { raw in
        func text(_ range: ByteRange?) -> String { range.map { String(decoding: raw[$0], as: UTF8.self) } ?? "-" }
        switch kind {
        case .request:
            switch RequestHead.parse(raw, limits: limits) {
            case .incomplete: return .incomplete
            case .invalid(let error): return .invalid(error)
            case .complete(let head):
                let description = """
                    \(text(head.methodRange)) \(head.method) \(text(head.target)) path \(text(head.path)) \
                    authority \(text(head.authority)) \(head.version) \(head.framing) keepAlive \(head.keepAlive) \
                    continue \(head.expectsContinue) upgrade \(head.wantsUpgrade) agent \(text(head.value(of: .userAgent)))
                    """
                let copied = copy(2 * head.length + 96) {
                    head.copy(from: raw, to: $0, edit: HeadEdit(keepsUpgrade: true))
                }
                return .complete(
                    ParsedHead(text: description, copy: copied, framing: head.framing, length: head.length))
            }
        case .response(let traits):
            switch ResponseHead.parse(raw, answering: traits, limits: limits) {
            case .incomplete: return .incomplete
            case .invalid(let error): return .invalid(error)
            case .complete(let head):
                let description = """
                    \(head.version) \(head.status) \(text(head.reasonPhrase)) \(head.framing) keepAlive \(head.keepAlive) \
                    type \(text(head.value(of: .contentType)))
                    """
                let copied = copy(2 * head.length + 96) {
                    head.copy(from: raw, to: $0, edit: HeadEdit(keepsUpgrade: true))
                }
                return .complete(
                    ParsedHead(text: description, copy: copied, framing: head.framing, length: head.length))
            }
        }
    }
}

/// What a copy writes into a buffer of `capacity` bytes; empty when it needs more.
func copy(_ capacity: Int, _ body: (UnsafeMutableRawBufferPointer) -> Int) -> [UInt8] {
    var output = [UInt8](repeating: 0xee, count: capacity)
    let needed = output.withUnsafeMutableBytes(body)
    return needed <= capacity ? Array(output[..<needed]) : []
}
