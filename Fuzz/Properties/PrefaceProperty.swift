import MeshProxy

/// The first bytes within a connection between two sidecars (docs/ARCHITECTURE.md, «Between two sidecars»).
///
/// Properties: a judgement does not change when more bytes come; a preface that is read, written and read again is the same; its
/// length stays below the limit.
enum PrefaceProperty: FuzzProperty {
    static let name = "preface"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = Preface.parse(input)
        for end in Segmentation.ends(input) {
            let part = Preface.parse(input.part(0, end))
            if part == .needsMore { continue }
            try require(part == whole, "after \(end) bytes \(part), whole \(whole)")
            break
        }
        guard case .parsed(let preface, let length) = whole else { return }
        try require(length <= min(input.count, Preface.maximumLength + 2), "\(length) bytes")
        let encoded = preface.encoded
        try require(encoded.count <= Preface.maximumLength + 2, "it is written in \(encoded.count) bytes")
        // Bytes that are no UTF-8 were repaired, which makes a label longer and may have it cut when it is written.
        let labels = [preface.owner, preface.app, preface.version, preface.service, preface.pod]
        guard !labels.contains(where: { $0.unicodeScalars.contains("\u{fffd}") }) else { return }
        let again = encoded.withUnsafeBytes { Preface.parse($0) }
        try require(again == .parsed(preface, length: encoded.count), "written and read again it is \(again)")
    }
}
