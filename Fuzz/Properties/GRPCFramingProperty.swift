import MeshHTTP

/// gRPC's length-prefixed messages within a body.
///
/// Properties: how the bytes are cut changes nothing; the messages are those of a second reading; no more is kept than the message that is
/// incomplete; a message over the limit is refused by its prefix.
enum GRPCFramingProperty: FuzzProperty {
    static let name = "grpc-framing"
    private static let limit = 300

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = try messages(input, [input.count])
        let split = try messages(input, Segmentation.ends(input))
        try require(whole == split, "whole \(whole), in pieces \(split)")
        var reference = Outcome()
        var rest = Array(input)[...]
        while rest.count >= GRPCDeframer.prefixLength {
            let length = rest.dropFirst().prefix(4).reduce(0) { $0 << 8 | Int($1) }
            if rest.first != 0 || length > limit {
                reference.failure = rest.first != 0 ? .compressed : .tooLong(length)
                break
            }
            guard rest.count >= GRPCDeframer.prefixLength + length else { break }
            reference.messages.append(Array(rest.dropFirst(GRPCDeframer.prefixLength).prefix(length)))
            rest = rest.dropFirst(GRPCDeframer.prefixLength + length)
        }
        if reference.failure == nil, !rest.isEmpty { reference.failure = .truncated }
        try require(whole == reference, "\(whole), by the second reading \(reference)")
    }

    private struct Outcome: Equatable {
        var messages: [[UInt8]] = []
        var failure: GRPCDeframer.Failure?
    }

    private static func messages(_ input: UnsafeRawBufferPointer, _ ends: [Int]) throws(PropertyFailure) -> Outcome {
        var deframer = GRPCDeframer(limit: limit)
        var outcome = Outcome()
        var from = 0
        for end in ends {
            do throws(GRPCDeframer.Failure) {
                try deframer.append(input.part(from, end)) { outcome.messages.append(Array($0)) }
            } catch {
                outcome.failure = error
                return outcome
            }
            from = end
            try require(
                deframer.partialCount < GRPCDeframer.prefixLength + limit, "\(deframer.partialCount) bytes are kept")
        }
        do throws(GRPCDeframer.Failure) { try deframer.finish() } catch { outcome.failure = error }
        return outcome
    }
}
