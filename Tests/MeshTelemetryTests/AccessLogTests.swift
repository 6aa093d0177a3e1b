import Foundation
import MeshAddress
import MeshCore
import MeshTelemetry
import Testing

@Suite struct AccessLogTests {
    private var entry: AccessLogEntry {
        var entry = AccessLogEntry(
            unixNanoseconds: 1_795_360_209_123_456_789, direction: .outbound, applicationProtocol: .http1)
        entry.method = "GET"
        entry.authority = "catalog.shop:8080"
        entry.path = "/items"
        entry.status = 503
        entry.reason = .connectFailed
        entry.detail = "connect: Connection refused (111)"
        entry.durationNanoseconds = 1_234_567
        entry.requestBytes = 0
        entry.responseBytes = 42
        entry.tries = 2
        entry.sourceWorkload = "web"
        entry.service = ObjectName(namespace: "shop", name: "catalog")
        entry.destinationAddress = SocketAddress("10.0.0.7:8080")
        entry.destinationIdentity = SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: "catalog")
        entry.isSecured = true
        entry.trace = TraceContext(traceHigh: 1, traceLow: 2, span: 3, flags: 1)
        return entry
    }

    private func line(_ entry: AccessLogEntry, _ format: AccessLogFormat) -> String {
        var output = Array("before\n".utf8)
        entry.append(to: &output, format: format)
        return String(decoding: output.dropFirst(7), as: UTF8.self)
    }

    @Test("A text line has the fields that are known, in their order")
    func text() {
        #expect(
            line(entry, .text) == """
                time=2026-11-22T15:10:09.123Z direction=outbound protocol=http1 method=GET authority=catalog.shop:8080 path=/items \
                status=503 reason=connect_failed flags=UF detail="connect: Connection refused (111)" duration_ms=1.234 \
                request_bytes=0 response_bytes=42 tries=2 source=web service=shop/catalog \
                destination_identity=spiffe://cluster.local/ns/shop/sa/catalog destination_address=10.0.0.7:8080 secured=true \
                trace_id=00000000000000010000000000000002

                """)
    }

    @Test("A JSON line is one object with numbers as numbers")
    func json() throws {
        let object = try JSONSerialization.jsonObject(with: Data(line(entry, .json).utf8)) as? [String: Any]
        #expect(object?["status"] as? Int == 503)
        #expect(object?["duration_ms"] as? Double == 1.234)
        #expect(object?["secured"] as? Bool == true)
        #expect(object?["reason"] as? String == "connect_failed")
        #expect(object?["path"] as? String == "/items")
        #expect(object?["user_agent"] == nil)
    }

    @Test(
        "Nothing in a field ends the line or forges a field, and JSON gives it back as it was",
        arguments: [
            "a\nb", "a\r\nstatus=200", "\" status=200", "\\", "a b=c", "\u{0}\u{1b}[31m",
            "\u{7f}\u{85}\u{2028}\u{2029}", "ü\u{1f600}", "=",
        ])
    func hostileFields(value: String) throws {
        var harmless = entry
        harmless.path = "p"
        harmless.userAgent = "u"
        var entry = entry
        entry.path = value
        entry.userAgent = value
        for format in AccessLogFormat.allCases {
            let line = line(entry, format)
            #expect(line.unicodeScalars.count { $0 == "\n" } == 1 && line.hasSuffix("\n"))
            #expect(line.unicodeScalars.dropLast().allSatisfy { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) })
        }
        #expect(fieldNames(line(entry, .text)) == fieldNames(line(harmless, .text)))
        let object = try JSONSerialization.jsonObject(with: Data(line(entry, .json).utf8)) as? [String: Any]
        #expect(object?["path"] as? String == value)
        #expect(object?["user_agent"] as? String == value)
    }

    /// The names of a text line's fields, as a reader finds them who knows quotes.
    private func fieldNames(_ line: String) -> [String] {
        var names: [String] = []
        var current = ""
        var isQuoted = false
        var isEscaped = false
        for character in line.dropLast() + " " {
            if isQuoted {
                if !isEscaped && character == "\"" { isQuoted = false }
                isEscaped = !isEscaped && character == "\\"
            } else if character == "\"" {
                isQuoted = true
            } else if character == " " {
                names.append(String(current.prefix { $0 != "=" }))
                current = ""
            } else {
                current.append(character)
            }
        }
        return names
    }

    @Test("A long field is cut")
    func longField() {
        var entry = entry
        entry.path = String(repeating: "x", count: 100_000)
        for format in AccessLogFormat.allCases {
            let line = line(entry, format)
            #expect(line.utf8.count < 4096 && line.contains("x…\""))
        }
    }

    @Test(
        "Times are right across leap years and before 1970",
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"), (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
        ])
    func times(milliseconds: Int64, expected: String) {
        let entry = AccessLogEntry(
            unixNanoseconds: milliseconds * 1_000_000, direction: .inbound, applicationProtocol: .opaque)
        #expect(line(entry, .text).hasPrefix("time=\(expected) "))
    }
}
