/// Cuts a stream of bytes into lines. A line longer than the limit is cut into pieces, which the reader joins again. Pure.
package struct LineCutter {
    package static let limit = 16_384
    private var partial: [UInt8] = []

    package init() {}

    /// `isWhole` is false for a piece that goes on in the next one.
    package mutating func append(_ bytes: some Sequence<UInt8>, _ line: (_ text: [UInt8], _ isWhole: Bool) -> Void) {
        for byte in bytes {
            if byte == UInt8(ascii: "\n") {
                line(partial, true)
                partial.removeAll(keepingCapacity: true)
            } else {
                partial.append(byte)
                if partial.count == LineCutter.limit {
                    line(partial, false)
                    partial.removeAll(keepingCapacity: true)
                }
            }
        }
    }

    /// What was written without a last line feed.
    package mutating func finish(_ line: (_ text: [UInt8], _ isWhole: Bool) -> Void) {
        if !partial.isEmpty { line(partial, true) }
        partial = []
    }
}

/// A line as it is kept: `<time> <stdout|stderr> <F|P> <text>`, `P` for a piece that goes on in the next line, the time with
/// microseconds and so of one width. Pure.
package enum StoredLogLine {
    package static let timeWidth = 27

    package static func encode(time: String, stream: String, isWhole: Bool, _ text: [UInt8]) -> [UInt8] {
        Array("\(time) \(stream) \(isWhole ? "F" : "P") ".utf8) + text + [UInt8(ascii: "\n")]
    }

    /// What a reader gets of one stored line, without its line feed; nil when it is older than `since` or is no such line.
    /// A piece that goes on has no line feed, and its continuation no time.
    package static func decode(_ line: ArraySlice<UInt8>, timestamps: Bool, since: String?, isContinuation: Bool) -> (
        bytes: [UInt8], goesOn: Bool
    )? {
        // Behind the time: a blank, six letters of the stream, a blank, the mark, a blank.
        let header = timeWidth + 10
        guard line.count >= header else { return nil }
        let time = line.prefix(timeWidth)
        if let since, time.lexicographicallyPrecedes(since.utf8) { return nil }
        let goesOn = line[line.startIndex + timeWidth + 8] == UInt8(ascii: "P")
        var bytes: [UInt8] = timestamps && !isContinuation ? Array(time) + [UInt8(ascii: " ")] : []
        bytes += line.dropFirst(header)
        if !goesOn { bytes.append(UInt8(ascii: "\n")) }
        return (bytes, goesOn)
    }
}
