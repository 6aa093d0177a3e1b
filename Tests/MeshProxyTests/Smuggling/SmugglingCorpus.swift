import Foundation
import Testing

/// A case of `Tests/Differential/requests.txt` or `responses.txt`.
struct SmugglingCase: Sendable, CustomTestStringConvertible {
    let name: String
    let expected: String
    let bytes: [UInt8]
    /// The server ends its connection behind the bytes.
    let closes: Bool
    /// Of the request that a response answers.
    let method: String

    var testDescription: String { name }

    static let requests = load("requests")
    static let responses = load("responses")

    private static func load(_ file: String) -> [SmugglingCase] {
        let url = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../Differential/\(file).txt")
        guard let text = try? String(contentsOf: url, encoding: .utf8) else { return [] }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: true).filter { !$0.hasPrefix("#") }
        return stride(from: 0, to: lines.count - 2, by: 3).map { index in
            let closes = lines[index + 2].hasPrefix("<|")
            var wire = lines[index + 2].dropFirst(closes ? 3 : 2)
            var method = ""
            if file == "responses" {
                method = String(wire.prefix { $0 != " " })
                wire = wire.dropFirst(method.count + 1)
            }
            return SmugglingCase(
                name: String(lines[index]), expected: unescapedText(lines[index + 1].dropFirst(2)),
                bytes: unescape(Array(wire.utf8)[...]), closes: closes, method: method)
        }
    }

    private static func unescapedText(_ text: Substring) -> String {
        String(decoding: unescape(Array(text.utf8)[...]), as: UTF8.self)
    }

    /// `\r \n \t \\ \xHH`, and `{N*text}` for N times the text.
    private static func unescape(_ text: ArraySlice<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = text
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "\\"), let escape = rest.popFirst() {
                switch escape {
                case UInt8(ascii: "r"): bytes.append(13)
                case UInt8(ascii: "n"): bytes.append(10)
                case UInt8(ascii: "t"): bytes.append(9)
                case UInt8(ascii: "x"):
                    bytes.append(UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) ?? 0)
                    rest = rest.dropFirst(2)
                default: bytes.append(escape)
                }
            } else if byte == UInt8(ascii: "{"), let star = rest.firstIndex(of: UInt8(ascii: "*")),
                let count = Int(String(decoding: rest[..<star], as: UTF8.self)),
                let end = rest.firstIndex(of: UInt8(ascii: "}"))
            {
                let repeated = unescape(rest[(star + 1)..<end])
                for _ in 0..<count { bytes += repeated }
                rest = rest[(end + 1)...]
            } else {
                bytes.append(byte)
            }
        }
        return bytes
    }
}

/// As the corpus writes it.
func shownBody(_ body: [UInt8]) -> String {
    String(decoding: body.map { $0 == 13 || $0 == 10 ? UInt8(ascii: "~") : $0 }, as: UTF8.self)
}

/// A server's parser, written apart from ours and as careless as servers are: lines end with LF, names are trimmed, and where a length and
/// chunks are both given it takes the one it likes better. What it makes of what a sidecar forwards must be what was meant.
struct CarelessParser {
    enum Preference: CaseIterable, Sendable {
        case length, chunks
    }

    struct Seen {
        var method = ""
        var target = ""
        var body: [UInt8] = []

        var text: String {
            let shown = shownBody(body)
            return shown.isEmpty ? "\(method) \(target)" : "\(method) \(target) \(shown)"
        }
    }

    let preference: Preference

    /// Nil at the end of the stream, wherever it is.
    func next(_ socket: TestSocket) -> Seen? {
        var seen = Seen()
        var line = ""
        repeat {
            guard let read = try? socket.readLine() else { return nil }
            line = read
        } while line.isEmpty
        let words = line.split(separator: " ")
        seen.method = words.first.map(String.init) ?? ""
        seen.target = words.dropFirst().first.map(String.init) ?? ""
        var length: Int?
        var isChunked = false
        while true {
            guard let field = try? socket.readLine() else { return nil }
            if field.isEmpty { break }
            let parts = field.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let name = parts[0].trimmingCharacters(in: .whitespaces).lowercased()
            let value = parts.count > 1 ? parts[1].trimmingCharacters(in: .whitespaces).lowercased() : ""
            if name == "content-length" { length = Int(value) ?? 0 }
            if name == "transfer-encoding" { isChunked = value.contains("chunked") }
        }
        if isChunked, preference == .chunks || length == nil {
            guard let body = try? socket.readChunks() else { return nil }
            seen.body = body
        } else if let length, length > 0 {
            guard let body = try? socket.read(length) else { return nil }
            seen.body = body
        }
        return seen
    }
}
