/// Cuts a stream of bytes into lines, with a limit on what it holds back.
struct LineSplitter {
    struct LineTooLong: Error, Hashable { let limitBytes: Int }

    private let limitBytes: Int
    private var buffer: [UInt8] = []
    private var start = 0
    private var scanned = 0

    init(limitBytes: Int) { self.limitBytes = limitBytes }

    mutating func append(_ bytes: some Sequence<UInt8>) {
        if start > 0 {
            buffer.removeFirst(start)
            scanned -= start
            start = 0
        }
        buffer.append(contentsOf: bytes)
    }

    /// The next whole line without its end; nil when more bytes are needed.
    mutating func next() throws(LineTooLong) -> [UInt8]? {
        while scanned < buffer.count, buffer[scanned] != UInt8(ascii: "\n") { scanned += 1 }
        guard scanned - start <= limitBytes else { throw LineTooLong(limitBytes: limitBytes) }
        guard scanned < buffer.count else { return nil }
        var line = buffer[start..<scanned]
        scanned += 1
        start = scanned
        if line.last == UInt8(ascii: "\r") { line = line.dropLast() }
        return Array(line)
    }

    /// Whether the stream ended within a line.
    var hasPartialLine: Bool { start < buffer.count }
}
