/// What a copy of a head leaves out, changes and adds.
package struct HeadEdit: Sendable {
    /// Dropped on top of the hop-by-hop fields; of `HeaderSet`'s named constants.
    package var dropping: HeaderSet = []
    /// Keeps the Upgrade fields and adds `Connection: upgrade`: for a request that `wantsUpgrade` and its 101.
    package var keepsUpgrade = false
    /// Written in place of the version received (RFC 9110 §2.5); nil leaves it.
    package var version: HTTPVersion?

    package init(dropping: HeaderSet = [], keepsUpgrade: Bool = false, version: HTTPVersion? = nil) {
        self.dropping = dropping
        self.keepsUpgrade = keepsUpgrade
        self.version = version
    }
}

extension RequestHead {
    /// Writes the head into `output` without its hop-by-hop fields (RFC 9110 §7.6.1), in order and case as received, then `appending`:
    /// whole field lines, each with its CRLF. `bytes` are those the head was parsed from.
    ///
    /// Answers the bytes needed. When that is more than `output` holds, nothing was written that counts: the caller gives
    /// more room and calls again. Host is replaced where `authority` says so. At most
    /// `length + authority.count + appending.count + 64` bytes are needed.
    package func copy(
        from bytes: UnsafeRawBufferPointer, to output: UnsafeMutableRawBufferPointer, edit: HeadEdit = HeadEdit(),
        appending: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) -> Int {
        guard let base = bytes.baseAddress, length <= bytes.count else { return 0 }
        var edit = edit
        edit.keepsUpgrade = edit.keepsUpgrade && wantsUpgrade
        if replacesHost { edit.dropping.insert(.host) }
        return HeadCopier(base: base, fields: fields, output: output)
            .copy(
                from: start, versionDigit: versionDigit, edit: edit, host: replacesHost ? authority : nil,
                acceptsTrailers: fields.teHasTrailers && version == .http11, appending: appending)
    }
}

extension ResponseHead {
    /// Like `RequestHead.copy`. The Content-Length of a 1xx or 204, which must have none (RFC 9110 §8.6), is dropped too, and what
    /// would frame the answer that opens a tunnel (§9.3.6).
    package func copy(
        from bytes: UnsafeRawBufferPointer, to output: UnsafeMutableRawBufferPointer, edit: HeadEdit = HeadEdit(),
        appending: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) -> Int {
        guard let base = bytes.baseAddress, length <= bytes.count else { return 0 }
        var edit = edit
        edit.keepsUpgrade = edit.keepsUpgrade && status == 101
        if status < 200 || status == 204 { edit.dropping.insert(.contentLength) }
        if framing == .upgrade, status != 101 { edit.dropping.formUnion([.contentLength, .chunkedCoding]) }
        return HeadCopier(base: base, fields: fields, output: output)
            .copy(
                from: 0, versionDigit: versionDigit, edit: edit, host: nil, acceptsTrailers: false,
                appending: appending)
    }
}

private struct HeadCopier {
    let base: UnsafeRawPointer
    let fields: FieldSection
    let output: UnsafeMutableRawBufferPointer
    /// Bytes wanted so far; they are in `output` as long as they fit.
    private var written = 0
    /// Where the run of bytes that is still to be copied begins.
    private var runStart = 0

    init(base: UnsafeRawPointer, fields: FieldSection, output: UnsafeMutableRawBufferPointer) {
        self.base = base
        self.fields = fields
        self.output = output
    }

    consuming func copy(
        from start: Int, versionDigit: Int, edit: HeadEdit, host: ByteRange?, acceptsTrailers: Bool,
        appending: UnsafeRawBufferPointer
    ) -> Int {
        var dropping = edit.dropping.union(.hopByHop)
        if edit.keepsUpgrade { dropping.remove(HeaderSet(.upgrade)) }
        if acceptsTrailers, fields.teIsTrailers { dropping.remove(HeaderSet(.te)) }
        runStart = start
        if fields.present.isDisjoint(with: dropping) && !fields.connectionNamesOthers {
            // Nothing to leave out: one run.
        } else if fields.linesOverflow || fields.connectionNamesOthers || !dropping.isSubset(of: .removable) {
            walk(dropping)
        } else {
            for index in 0..<fields.lineCount {
                let line = fields.lines[index]
                if dropping.contains(HeaderSet(line.name)) { leaveOut(line.bytes.lowerBound, line.bytes.upperBound) }
            }
        }
        append(base + runStart, fields.emptyLine &- runStart)
        if let version = edit.version, versionDigit &- start < min(written, output.count) {
            output[versionDigit &- start] = 0x30 &+ version.rawValue
        }
        if let host {
            append("Host: ")
            append(base + host.lowerBound, Int(host.count))
            append("\r\n")
        }
        // TE is the sender's own word to the next hop, so it is named in Connection (RFC 9110 §10.1.4).
        if acceptsTrailers {
            append(fields.teIsTrailers ? "Connection: TE\r\n" : "TE: trailers\r\nConnection: TE\r\n")
        }
        if edit.keepsUpgrade { append("Connection: upgrade\r\n") }
        if let extra = appending.baseAddress { append(extra, appending.count) }
        append("\r\n")
        return written
    }

    @inline(__always)
    private mutating func leaveOut(_ from: Int, _ to: Int) {
        append(base + runStart, from &- runStart)
        runStart = to
    }

    @inline(__always)
    private mutating func append(_ source: UnsafeRawPointer, _ count: Int) {
        if written &+ count <= output.count, let target = output.baseAddress {
            (target + written).copyMemory(from: source, byteCount: count)
        }
        written &+= count
    }

    private mutating func append(_ text: StaticString) {
        append(UnsafeRawPointer(text.utf8Start), text.utf8CodeUnitCount)
    }

    /// The slow way: line by line, each name compared with what Connection lists.
    private mutating func walk(_ dropping: HeaderSet) {
        var position = fields.start
        while position < fields.emptyLine {
            guard case .complete(let line) = FieldLine.parse(base, from: position, count: fields.emptyLine) else {
                return
            }
            let name = HeaderName(base, position, line.nameEnd &- position)
            let isNamed =
                fields.connectionNamesOthers && name != .transferEncoding && name != .te && name != .upgrade
                && connectionNames(position, line.nameEnd)
            if isNamed || name != .other && dropping.contains(HeaderSet(name)) { leaveOut(position, line.end) }
            position = line.end
        }
    }

    private func connectionNames(_ from: Int, _ to: Int) -> Bool {
        var position = fields.start
        while position < fields.emptyLine {
            guard case .complete(let line) = FieldLine.parse(base, from: position, count: fields.emptyLine) else {
                return false
            }
            if HeaderName(base, position, line.nameEnd &- position) == .connection {
                var elements = ListElements(base, line.valueStart, line.valueEnd)
                while let element = elements.next() {
                    if element.count == to &- from, areEqualNames(element.lowerBound, from, to &- from) { return true }
                }
            }
            position = line.end
        }
        return false
    }

    private func areEqualNames(_ one: Int, _ other: Int, _ count: Int) -> Bool {
        for index in 0..<count {
            let left = base.load(fromByteOffset: one &+ index, as: UInt8.self)
            let right = base.load(fromByteOffset: other &+ index, as: UInt8.self)
            if left == right { continue }
            guard left | 0x20 == right | 0x20, (left | 0x20) &- 0x61 < 26 else { return false }
        }
        return true
    }
}
