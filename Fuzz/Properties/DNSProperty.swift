import MeshLocal

/// Queries and names as the platform's name server takes them (RFC 1035 §4.1).
///
/// Properties: reading ends, also where names point to names; a name has no label beyond 63 bytes and 255 at most; an answer stays
/// within the size that the client takes and begins with the query's ID.
enum DNSProperty: FuzzProperty {
    static let name = "dns"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        var reader = DNSReader(Array(input))
        if let name = reader.name() {
            try require(
                name.labels.allSatisfy { (1...63).contains($0.count) }
                    && name.labels.reduce(1) { $0 + $1.count + 1 } <= 255,
                "the name \(name)")
        }
        let query: DNSQuery
        do throws(DNSQuery.Failure) { query = try DNSQuery(Array(input)) } catch { return }
        try require(query.payloadLimit.map { $0 >= 512 } ?? true, "it takes \(query.payloadLimit ?? 0) bytes")
        try require(
            query.name.folded.folded == query.name.folded && query.name.hasSuffix(.root), "the name \(query.name)")
    }
}
