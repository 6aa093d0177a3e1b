package import MeshAddress
package import MeshCore

package enum AccessLogFormat: String, Sendable, CaseIterable {
    /// `name=value` pairs, values quoted where they need it.
    case text
    /// One JSON object a line.
    case json
}

/// One line of the access log: one request, or one connection of a byte stream. Empty and nil fields are left out.
package struct AccessLogEntry: Sendable {
    package enum Direction: String, Sendable {
        case outbound, inbound
    }

    package var unixNanoseconds: Int64
    package var direction: Direction
    package var applicationProtocol: ApplicationProtocol
    package var method = ""
    package var authority = ""
    /// Without the query, in which there may be what nobody should read in a log.
    package var path = ""
    /// 0 when the client got none, and for byte streams.
    package var status = 0
    package var grpcStatus: UInt8?
    package var reason: Reason?
    /// What the reason leaves open: an error's own words.
    package var detail = ""
    package var durationNanoseconds: Int64 = 0
    package var requestBytes: UInt64 = 0
    package var responseBytes: UInt64 = 0
    package var tries = 0
    package var sourceWorkload = ""
    package var sourceIdentity: SPIFFEID?
    package var sourceAddress: SocketAddress?
    package var service: ObjectName?
    package var destinationPod: ObjectName?
    package var destinationIdentity: SPIFFEID?
    package var destinationAddress: SocketAddress?
    package var isSecured = false
    /// Of the application's own TLS; nil for everything else.
    package var serverName: TLSServerName?
    package var userAgent = ""
    package var requestID = ""
    package var trace: TraceContext?

    package init(unixNanoseconds: Int64, direction: Direction, applicationProtocol: ApplicationProtocol) {
        self.unixNanoseconds = unixNanoseconds
        self.direction = direction
        self.applicationProtocol = applicationProtocol
    }

    /// The longest that any field from a request may become; the rest is cut, and `…` shows it.
    package static let fieldLimitBytes = 2048

    /// Appends the line with its line feed. Nothing in a field can end the line or forge another: control characters are escaped.
    package func append(to output: inout [UInt8], format: AccessLogFormat) {
        var line = AccessLogLine(format: format, output: output)
        output = []
        line.text("time", UTCTime(unixNanoseconds: unixNanoseconds).description)
        line.text("direction", direction.rawValue)
        line.text("protocol", applicationProtocol.rawValue)
        line.text("method", method)
        line.text("authority", authority)
        line.text("path", path)
        if status > 0 { line.number("status", "\(status)") }
        if let grpcStatus { line.number("grpc_status", "\(grpcStatus)") }
        line.text("reason", reason?.code ?? "")
        line.text("flags", reason?.responseFlags ?? "")
        line.text("detail", detail)
        line.number("duration_ms", AccessLogEntry.milliseconds(durationNanoseconds))
        line.number("request_bytes", "\(requestBytes)")
        line.number("response_bytes", "\(responseBytes)")
        if tries > 1 { line.number("tries", "\(tries)") }
        line.text("source", sourceWorkload)
        line.text("source_identity", sourceIdentity?.description ?? "")
        line.text("source_address", sourceAddress?.description ?? "")
        line.text("service", service?.description ?? "")
        line.text("destination", destinationPod?.description ?? "")
        line.text("destination_identity", destinationIdentity?.description ?? "")
        line.text("destination_address", destinationAddress?.description ?? "")
        line.number("secured", isSecured ? "true" : "false")
        line.text("server_name", serverName?.label ?? "")
        line.text("user_agent", userAgent)
        line.text("request_id", requestID)
        line.text("trace_id", trace?.traceID ?? "")
        output = line.finish()
    }

    /// With three decimals.
    static func milliseconds(_ nanoseconds: Int64) -> String {
        let microseconds = max(0, nanoseconds) / 1000
        let fraction = "\(microseconds % 1000)"
        return "\(microseconds / 1000)." + String(repeating: "0", count: 3 - fraction.count) + fraction
    }
}

private struct AccessLogLine {
    private let format: AccessLogFormat
    private var output: [UInt8]
    private var isFirst = true

    init(format: AccessLogFormat, output: consuming [UInt8]) {
        self.format = format
        self.output = output
        if format == .json { self.output.append(0x7b) }
    }

    consuming func finish() -> [UInt8] {
        if format == .json { output.append(0x7d) }
        output.append(0x0a)
        return output
    }

    mutating func number(_ name: StaticString, _ value: String) {
        begin(name)
        output.append(contentsOf: value.utf8)
    }

    mutating func text(_ name: StaticString, _ value: String) {
        if value.isEmpty { return }
        begin(name)
        let isShort = value.utf8.count <= AccessLogEntry.fieldLimitBytes
        if isShort, value.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7f && $0 != 0x22 && $0 != 0x5c }) {
            let isQuoted = format == .json || value.utf8.contains { $0 == 0x20 || $0 == 0x3d }
            if isQuoted { output.append(0x22) }
            output.append(contentsOf: value.utf8)
            if isQuoted { output.append(0x22) }
            return
        }
        output.append(0x22)
        var count = 0
        for scalar in value.unicodeScalars {
            if count >= AccessLogEntry.fieldLimitBytes {
                output.append(contentsOf: "…".utf8)
                break
            }
            count += escape(scalar)
        }
        output.append(0x22)
    }

    /// As JSON has it, for both formats: a text line is split by the same rules.
    private mutating func escape(_ scalar: Unicode.Scalar) -> Int {
        let before = output.count
        switch scalar {
        case "\"": output.append(contentsOf: "\\\"".utf8)
        case "\\": output.append(contentsOf: "\\\\".utf8)
        case "\n": output.append(contentsOf: "\\n".utf8)
        case "\r": output.append(contentsOf: "\\r".utf8)
        case "\t": output.append(contentsOf: "\\t".utf8)
        // The C1 controls and line separators also end a line, for some readers.
        case "\u{0}"..<" ", "\u{7f}"..."\u{9f}", "\u{2028}", "\u{2029}":
            let digits = String(scalar.value, radix: 16)
            output.append(contentsOf: "\\u\(String(repeating: "0", count: 4 - digits.count))\(digits)".utf8)
        default:
            output.append(contentsOf: String(scalar).utf8)
        }
        return output.count - before
    }

    private mutating func begin(_ name: StaticString) {
        let name = UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        switch format {
        case .text:
            if !isFirst { output.append(0x20) }
            output.append(contentsOf: name)
            output.append(0x3d)
        case .json:
            if !isFirst { output.append(0x2c) }
            output.append(0x22)
            output.append(contentsOf: name)
            output.append(contentsOf: "\":".utf8)
        }
        isFirst = false
    }
}

/// A point in time in UTC, as RFC 3339 with milliseconds.
struct UTCTime: CustomStringConvertible {
    let unixNanoseconds: Int64

    /// The date by the proleptic Gregorian calendar, counted in eras of 400 years from 0000-03-01.
    var description: String {
        let milliseconds = unixNanoseconds.flooredDivision(by: 1_000_000)
        let seconds = milliseconds.flooredDivision(by: 1000)
        let days = seconds.flooredDivision(by: 86_400)
        let second = seconds - days * 86_400
        let shifted = days + 719_468
        let era = shifted.flooredDivision(by: 146_097)
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return
            "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T\(padded(second / 3600, 2)):\(padded(second / 60 % 60, 2)):"
            + "\(padded(second % 60, 2)).\(padded(milliseconds - seconds * 1000, 3))Z"
    }

    private func padded(_ value: Int64, _ width: Int) -> String {
        let digits = "\(value)"
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}

extension Int64 {
    fileprivate func flooredDivision(by divisor: Int64) -> Int64 {
        let quotient = self / divisor
        return self % divisor < 0 ? quotient - 1 : quotient
    }
}
