import MeshCore
import MeshHTTP
import MeshProxy

/// What a connection's first bytes are taken for, on either side of a pod.
///
/// Properties: a judgement does not change when more bytes come; who calls and what is spoken agree on what is TLS; what is a request
/// to the HTTP framing is HTTP to the detector, or its bytes would pass without the framing's checks.
enum DetectionProperty: FuzzProperty {
    static let name = "detection"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = ProtocolDetector.detect(input)
        let hello = ClientHello.read(input)
        for end in Segmentation.ends(input) {
            let part = ProtocolDetector.detect(input.part(0, end))
            if part != .needsMore {
                try require(part == whole, "after \(end) bytes \(part), whole \(whole)")
            }
            let reading = ClientHello.read(input.part(0, end))
            if reading != .needsMore {
                try require(reading == hello, "the hello after \(end) bytes is \(reading), whole \(hello)")
            }
        }
        try require(input.count < 17_000 || whole != .needsMore && hello != .needsMore, "it never comes to an end")
        if case .hello = hello { try require(whole == .found(.tls), "a ClientHello, and detected \(whole)") }
        if whole == .found(.tls) { try require(hello != .notTLS, "TLS, and no ClientHello") }
        if case .complete(let head) = RequestHead.parse(input), head.methodRange.lowerBound == 0,
            head.methodRange.count < 24
        {
            try require(whole == .found(.http1), "a request, and detected \(whole)")
        }
    }
}
