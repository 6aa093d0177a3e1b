/// Cuts a stream of body bytes into gRPC's length-prefixed messages: a byte that says «compressed», four of length, the
/// message.
///
/// A message that lies whole in the bytes given is passed on without a copy.
package struct GRPCDeframer {
    package enum Failure: Error, Equatable {
        /// No compression was agreed on.
        case compressed
        case tooLong(Int)
        /// The stream ended within a message.
        case truncated
    }

    package static let prefixLength = 5
    private let limit: Int
    private var partial: [UInt8] = []

    package init(limit: Int) {
        self.limit = limit
    }

    package var partialCount: Int { partial.count }

    /// Calls `body` with each message that is complete now.
    package mutating func append(
        _ bytes: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(Failure) {
        var rest = bytes
        while !rest.isEmpty {
            if partial.isEmpty {
                guard let length = try length(of: rest) else {
                    partial.append(contentsOf: rest)
                    return
                }
                let end = GRPCDeframer.prefixLength + length
                if rest.count < end {
                    // Grows as bytes come: a peer that only promises a long message gets no memory for it.
                    partial.append(contentsOf: rest)
                    return
                }
                body(UnsafeRawBufferPointer(rebasing: rest[GRPCDeframer.prefixLength..<end]))
                rest = UnsafeRawBufferPointer(rebasing: rest[end...])
                continue
            }
            let missingPrefix = GRPCDeframer.prefixLength - partial.count
            if missingPrefix > 0 {
                let taken = min(missingPrefix, rest.count)
                partial.append(contentsOf: rest[..<taken])
                rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
            }
            guard let length = try length(of: partial) else { return }
            let missing = GRPCDeframer.prefixLength + length - partial.count
            let taken = min(missing, rest.count)
            partial.append(contentsOf: rest[..<taken])
            rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
            guard taken == missing else { return }
            let message = partial
            partial = []
            message.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[GRPCDeframer.prefixLength...])) }
        }
    }

    /// To be called when the peer has ended the stream.
    package func finish() throws(Failure) {
        if !partial.isEmpty { throw .truncated }
    }

    private func length<Bytes: RandomAccessCollection>(of bytes: Bytes) throws(Failure) -> Int?
    where Bytes.Element == UInt8, Bytes.Index == Int {
        guard bytes.count >= GRPCDeframer.prefixLength else { return nil }
        guard bytes[0] == 0 else { throw .compressed }
        let length = Int(bytes[1]) << 24 | Int(bytes[2]) << 16 | Int(bytes[3]) << 8 | Int(bytes[4])
        guard length <= limit else { throw .tooLong(length) }
        return length
    }

    static func status(_ failure: Failure, limit: Int) -> GRPCStatus {
        switch failure {
        case .compressed:
            GRPCStatus(.unimplemented, "the message is compressed; no compression is supported, send identity")
        case .tooLong(let length):
            GRPCStatus(.resourceExhausted, "the message has \(length) bytes; \(limit) are permitted")
        case .truncated:
            GRPCStatus(.internal, "the stream ended within a message")
        }
    }
}

/// The five bytes in front of a message.
struct GRPCPrefix {
    private var bytes: (UInt8, UInt8, UInt8, UInt8, UInt8)

    init(length: Int) {
        let length = UInt32(clamping: length)
        bytes = (
            0, UInt8(truncatingIfNeeded: length >> 24), UInt8(truncatingIfNeeded: length >> 16),
            UInt8(truncatingIfNeeded: length >> 8), UInt8(truncatingIfNeeded: length)
        )
    }

    func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(of: bytes, body)
    }
}
