extension BodyScanner {
    /// Like `scan` for a chunked body that is passed on without its coding: `pass` gets the data, piece by piece as it lies in `bytes`, and
    /// nothing of size lines, extensions and trailers.
    ///
    /// The counts of the answer are of `bytes`, as with `scan`.
    package mutating func scanPayload(
        _ bytes: UnsafeRawBufferPointer, pass: (UnsafeRawBufferPointer) -> Void
    ) -> Step {
        var position = 0
        while true {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[position...])
            if state == .chunkData, !rest.isEmpty {
                let count = remaining < UInt64(rest.count) ? Int(truncatingIfNeeded: remaining) : rest.count
                let data = UnsafeRawBufferPointer(rebasing: rest[..<count])
                _ = scan(data)
                pass(data)
                position += count
                continue
            }
            switch scanToChunkData(rest) {
            case .more(let count):
                position += count
                if state != .chunkData || position == bytes.count { return .more(count: position) }
            case .done(let count):
                return .done(count: position + count)
            case .invalid(let error, let count):
                return .invalid(error, count: position + count)
            }
        }
    }
}
