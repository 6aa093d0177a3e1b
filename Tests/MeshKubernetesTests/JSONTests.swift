import Foundation
import MeshKubernetes
import Testing

@Suite struct JSONTests {
    @Test(
        arguments: [
            ("null", JSONValue.null), ("true", true), (" false ", false), ("0", 0), ("-12", -12),
            ("9223372036854775807", .int(.max)),
            ("1.5", .double(1.5)), ("2.0", 2), ("1e3", 1000), ("1E-2", .double(0.01)), ("\"\"", ""), ("[]", []),
            ("{}", [:]),
            (#"{"a":[1,{"b":null}],"c":"d"}"#, ["a": [1, ["b": nil]], "c": "d"]),
            (#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 é😀""#, "a\"\\/\u{8}\u{c}\n\r\té😀 é😀"),
        ] as [(String, JSONValue)])
    func aDocumentIsRead(text: String, expected: JSONValue) throws {
        #expect(try JSONValue(parsing: Data(text.utf8)) == expected)
    }

    @Test(arguments: [
        "", " ", "{", "[1,]", "{\"a\"}", "{\"a\":1,}", "01", "1.", ".5", "+1", "-", "1e", "tru", "nul", "\"a", "\"\n\"",
        "\"\\x\"",
        "\"\\u12\"", "\"\\ud83d\"", "\"\\ud83dx\"", "\"\\udc00\"", "1 2", "NaN", "1e999", "{1:2}", "'a'", "[1 2]",
        "\u{feff}1",
    ])
    func whatIsNotJSONIsRefused(text: String) {
        #expect(throws: JSONError.self) { try JSONValue(parsing: Data(text.utf8)) }
    }

    @Test func bytesThatAreNotUTF8AreRefused() {
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0xff, 0x22]) }
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0xc0, 0x80, 0x22]) }
    }

    @Test func nestingHasALimit() throws {
        let deep = { (depth: Int) in Array(repeating: UInt8(ascii: "["), count: depth) }
        let closed = { (depth: Int) in deep(depth) + Array(repeating: UInt8(ascii: "]"), count: depth) }
        let error = #expect(throws: JSONError.self) { try JSONValue(parsing: closed(100_000)) }
        #expect(error?.description == "not JSON at byte 256: nested deeper than 256")
        _ = try JSONValue(parsing: closed(JSONValue.depthLimit))
    }

    @Test func anErrorNamesThePosition() {
        let error = #expect(throws: JSONError.self) { try JSONValue(parsing: Array(#"{"a": x}"#.utf8)) }
        #expect(error?.offset == 6)
    }

    @Test func writingSortsMembersAndEscapes() {
        let value: JSONValue = ["b": [1, .double(1.5), nil], "a": "x/\"\\\n\u{1}é", "c": [:], "d": true]
        #expect(
            String(decoding: value.data(), as: UTF8.self)
                == #"{"a":"x/\"\\\n\u0001é","b":[1,1.5,null],"c":{},"d":true}"#)
        #expect(String(decoding: value.data(pretty: true), as: UTF8.self).hasPrefix("{\n  \"a\": \"x/"))
    }

    /// Whatever is made of random parts reads back as it was, and cut anywhere it is refused rather than trapping.
    @Test func randomDocumentsSurviveTheRoundTrip() throws {
        var random = SeededRandom(seed: 7)
        for _ in 0..<300 {
            let value = JSONValue.random(depth: 0, using: &random)
            #expect(try JSONValue(parsing: value.data()) == value)
            #expect(try JSONValue(parsing: value.data(pretty: true)) == value)
            var bytes = value.bytes()
            bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            _ = try? JSONValue(parsing: bytes)
            _ = try? JSONValue(parsing: Array(bytes.prefix(bytes.count / 2)))
        }
    }
}

struct SeededRandom: RandomNumberGenerator {
    var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

extension JSONValue {
    /// Few distinct names and values, so that two random documents share parts.
    static func random(depth: Int, using random: inout SeededRandom) -> JSONValue {
        let names = ["a", "b", "c~/", "d\"é"]
        switch Int.random(in: 0..<(depth < 4 ? 7 : 5), using: &random) {
        case 0: return .null
        case 1: return .bool(Bool.random(using: &random))
        case 2: return .int(Int64.random(in: -2...2, using: &random))
        case 3: return .double(0.5)
        case 4: return .string(names[Int.random(in: 0..<4, using: &random)])
        case 5:
            return .array(
                (0..<Int.random(in: 0..<5, using: &random)).map { _ in .random(depth: depth + 1, using: &random) })
        default:
            var members: [String: JSONValue] = [:]
            for name in names where Bool.random(using: &random) {
                members[name] = .random(depth: depth + 1, using: &random)
            }
            return .object(members)
        }
    }
}
