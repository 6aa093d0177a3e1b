package import MeshCore

/// How a connection's protocol is to be found out: declared goes before learned, learned before sniffed.
package enum DetectionPlan: Sendable, Equatable {
    /// Declared to be bytes: relayed at once, nothing is looked at.
    case settled(ApplicationProtocol)
    /// The client's first bytes tell. A client that is silent for so long may be waiting for the server's greeting: its
    /// endpoint is dialled then, and whichever side speaks first decides. Nil: the client is known to begin.
    case look(dialAfterMilliseconds: Int?)

    /// What is learned decides about the dialling alone: no one's word but a declaration keeps bytes from being looked at.
    package static func make(declared: ApplicationProtocol?, learned: LearnedProtocol?) -> DetectionPlan {
        switch declared {
        case .http1, .http2, .grpc: .look(dialAfterMilliseconds: nil)
        case .tls: .look(dialAfterMilliseconds: 0)
        case .opaque: .settled(.opaque)
        case nil:
            switch learned {
            case .serverFirst: .look(dialAfterMilliseconds: 0)
            case nil: .look(dialAfterMilliseconds: ProxyLimits.dialEarlyMilliseconds)
            case .http1, .http2, .tls, .opaque: .look(dialAfterMilliseconds: ProxyLimits.sniffMilliseconds)
            }
        }
    }
}

/// What a connection's first bytes say, in the light of what is declared.
package enum FirstBytes: Sendable, Equatable {
    /// Should nothing follow in time, it is relayed as this.
    case needsMore(else: ApplicationProtocol)
    /// The name is that of TLS' SNI; nil for every other protocol.
    case found(ApplicationProtocol, TLSServerName?)

    package static func read(_ bytes: UnsafeRawBufferPointer, declared: ApplicationProtocol?) -> FirstBytes {
        guard let first = bytes.first else { return .needsMore(else: declared == .tls ? .tls : .opaque) }
        if first == 0x16 || declared == .tls {
            switch ClientHello.read(bytes) {
            case .needsMore: return .needsMore(else: bytes.count > 5 || declared == .tls ? .tls : .opaque)
            case .hello(let hello): return .found(.tls, hello.serverName)
            case .notTLS: if declared == .tls { return .found(.tls, .invalid) }
            }
        }
        switch ProtocolDetector.detect(bytes) {
        case .needsMore:
            return bytes.count >= ProxyLimits.sniffBytes
                ? .found(fallback(declared), nil) : .needsMore(else: fallback(declared))
        case .found(.opaque):
            return .found(fallback(declared), nil)
        case .found(let found):
            return .found(found, nil)
        }
    }

    /// Declared HTTP that does not look like it counts as HTTP: the parser knows how to refuse it.
    private static func fallback(_ declared: ApplicationProtocol?) -> ApplicationProtocol {
        switch declared {
        case .http1: .http1
        case .http2, .grpc: .http2
        case .tls, .opaque, nil: .opaque
        }
    }
}
