import MeshCore
import MeshIO
import MeshIdentity

/// The calling side of TLS between sidecars: who the peer must be.
enum MeshClientTLS {
    /// Why nothing may be sent to this peer; nil when it is the one that discovery named.
    static func problem(with tls: TLSInformation?, expected: SPIFFEID) -> ProxyError? {
        guard let tls else { return .identityMismatch("the connection has no TLS, expected \(expected)") }
        guard tls.applicationProtocol == MeshProtocol.alpn else {
            return .tlsFailed("the peer did not agree to the protocol \(MeshProtocol.alpn)")
        }
        do {
            _ = try PeerIdentity.check(
                uriSANs: tls.peerURISANs, allowedTrustDomains: [expected.trustDomain], expected: expected)
            return nil
        } catch {
            return .identityMismatch(error.description)
        }
    }
}

extension ProxyError {
    /// A connection that was never made.
    init(connecting cause: CloseCause) {
        switch cause {
        case .connectFailed(let error), .error(let error): self = .connectFailed(error.description)
        case .connectTimeout: self = .connectTimeout
        case .handshakeTimeout: self = .tlsFailed("the handshake took too long")
        case .tls(let failure): self = .tlsFailed("\(failure)")
        case .truncated, .peer: self = .connectFailed("closed by the peer during the handshake")
        case .reset: self = .connectFailed("reset by the peer")
        case .local, .bufferLimit: self = .connectFailed("closed")
        }
    }
}
