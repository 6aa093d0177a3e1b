import MeshTelemetry

/// The field `traceparent` (W3C Trace Context §3.2).
///
/// Properties: what is taken is valid by the grammar; what is written is taken again as the same; a child keeps the trace and has another span's
/// place, and never IDs of zero.
enum TraceContextProperty: FuzzProperty {
    static let name = "trace-context"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        guard let context = TraceContext(parsing: input) else { return }
        try require(input.count >= 55 && (input[0] != 0x30 || input[1] != 0x30 || input.count == 55), "its length")
        try require(context.span != 0 && (context.traceHigh != 0 || context.traceLow != 0), "IDs of zero")
        try require(
            input[3..<35].allSatisfy { (48...57).contains($0) || (97...102).contains($0) }, "digits \(text(input))")
        let written = Array(context.description.utf8)
        try require(written.count == TraceContext.byteCount, "\(written.count) bytes are written")
        try require(written[3..<55].elementsEqual(input[3..<55]), "written \(text(written)) for \(text(input))")
        let again = written.withUnsafeBytes { TraceContext(parsing: $0) }
        try require(again == context, "written and taken again it is \(again.map(\.description) ?? "nothing")")
        let child = context.child(random: UInt64(input[20]) & 1)
        try require(
            child.traceHigh == context.traceHigh && child.traceLow == context.traceLow && child.span != 0
                && child.flags & 0xfe == 0,
            "its child is \(child)")
        try require(context.traceID.utf8.elementsEqual(input[3..<35]), "the trace's ID is \(context.traceID)")
    }
}
