import CApus
import MeshHTTP
import MeshTelemetry

/// Takes the lines of the access log. Called on data loops, about once a second and loop.
package protocol AccessLogWriter: Sendable {
    /// Whole lines. False when they could not be taken: they are counted as dropped. Must not block for long.
    func write(_ lines: [UInt8]) -> Bool
}

/// The lines that one loop has not handed over yet.
struct AccessLog {
    /// Handed over without waiting for the second to end.
    private static let flushBytes = 64 * 1024

    private let format: AccessLogFormat
    private let writer: any AccessLogWriter
    private var lines: [UInt8] = []
    private var count: UInt64 = 0
    private(set) var dropped: UInt64 = 0

    init(format: AccessLogFormat, writer: any AccessLogWriter) {
        self.format = format
        self.writer = writer
    }

    mutating func append(_ entry: AccessLogEntry) {
        entry.append(to: &lines, format: format)
        count &+= 1
        if lines.count >= AccessLog.flushBytes { flush() }
    }

    mutating func flush() {
        guard count > 0 else { return }
        if !writer.write(lines) { dropped &+= count }
        lines.removeAll(keepingCapacity: true)
        count = 0
    }

    static func unixNanoseconds() -> Int64 {
        apus_realtime_nanoseconds()
    }
}

/// What was asked, for the access log.
struct RequestSubject {
    let method: String
    let path: String
    let authority: String
    let userAgent: String
    let requestID: String
    var trace: TraceContext?

    init(_ head: RequestHead, _ bytes: UnsafeRawBufferPointer) {
        func text(_ range: ByteRange?) -> String { range.map { String(decoding: bytes[$0], as: UTF8.self) } ?? "" }
        method = text(head.methodRange)
        path = text(head.path)
        authority = text(head.authority)
        userAgent = text(head.value(of: .userAgent))
        requestID = text(head.value(of: .requestID))
    }

    init(_ headers: HTTP2Headers) {
        method = headers.value(of: ":method") ?? ""
        // As for HTTP/1: what is in a query is often nobody else's business.
        path = String((headers.value(of: ":path") ?? "").prefix { $0 != "?" })
        authority = headers.value(of: ":authority") ?? headers.value(of: "host") ?? ""
        userAgent = headers.value(of: "user-agent") ?? ""
        requestID = headers.value(of: "x-request-id") ?? ""
    }
}
