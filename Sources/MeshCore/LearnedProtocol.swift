/// What a port turned out to speak when nobody had declared it, seen by who spoke first and what the server answered.
///
/// It is a hint for one thing only: how long a silent client is waited for before its endpoint is dialled
/// (docs/decisions/0009-protocol-memory.md). What a connection carries is always told from its own first bytes.
package enum LearnedProtocol: String, Sendable, Hashable, CaseIterable {
    case http1
    case http2
    /// TLS of the application's own.
    case tls
    /// Any other bytes, the client's first.
    case opaque
    /// The server speaks before its client has said anything: MySQL, SMTP.
    case serverFirst

    package init(_ applicationProtocol: ApplicationProtocol) {
        self =
            switch applicationProtocol {
            case .http1: .http1
            case .http2, .grpc: .http2
            case .tls: .tls
            case .opaque: .opaque
            }
    }
}

/// What is remembered of one port: the last that was seen, until it contradicts itself too often.
package struct ProtocolMemory: Sendable, Hashable {
    /// A port that has contradicted itself this often serves several protocols: nothing is remembered of it any more.
    package static let contradictionLimit = 8

    package private(set) var learned: LearnedProtocol?
    package private(set) var contradictions = 0

    package init() {}

    package var isMixed: Bool { contradictions >= ProtocolMemory.contradictionLimit }

    /// Takes in what a connection proved to be: the server has answered it. False when that contradicts what was learned,
    /// which is then forgotten and replaced.
    ///
    /// Bytes of a client that was faster than the server's greeting contradict nothing.
    @discardableResult
    package mutating func observe(_ seen: LearnedProtocol) -> Bool {
        guard seen != learned, !isMixed else { return true }
        guard let known = learned else {
            learned = seen
            return true
        }
        if known == .serverFirst, seen == .opaque { return true }
        if known == .opaque, seen == .serverFirst {
            learned = seen
            return true
        }
        contradictions += 1
        learned = isMixed ? nil : seen
        return false
    }

    /// What counts: what was learned here, else what others say, unless the port is known to be of several kinds.
    @inline(__always)
    package func expectation(hint: LearnedProtocol?) -> LearnedProtocol? {
        isMixed ? nil : learned ?? hint
    }
}
