package import MeshIO

/// The codes of RST_STREAM and GOAWAY (RFC 9113 §7). A peer may send others.
package struct HTTP2ErrorCode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let noError = Self(rawValue: 0)
    package static let protocolError = Self(rawValue: 1)
    package static let internalError = Self(rawValue: 2)
    package static let flowControlError = Self(rawValue: 3)
    package static let settingsTimeout = Self(rawValue: 4)
    package static let streamClosed = Self(rawValue: 5)
    package static let frameSizeError = Self(rawValue: 6)
    package static let refusedStream = Self(rawValue: 7)
    package static let cancel = Self(rawValue: 8)
    package static let compressionError = Self(rawValue: 9)
    package static let connectError = Self(rawValue: 10)
    package static let enhanceYourCalm = Self(rawValue: 11)
    package static let inadequateSecurity = Self(rawValue: 12)
    package static let http11Required = Self(rawValue: 13)

    private static let names = [
        "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
        "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
    ]

    package var description: String {
        rawValue < UInt32(Self.names.count) ? Self.names[Int(rawValue)] : "error code \(rawValue)"
    }
}

/// Why a stream is closed.
package enum HTTP2StreamCloseCause: Sendable, Hashable {
    /// Both sides said all they had to say.
    case finished
    /// Either side reset it, or a GOAWAY left it out (REFUSED_STREAM: never processed, so safe to send again).
    case reset(HTTP2ErrorCode)
    /// Its connection is gone.
    case connectionLost
}

/// Why a connection is closed.
package enum HTTP2CloseCause: Sendable, Equatable {
    /// Closed in order by this side, or by both after a GOAWAY.
    case finished
    /// The transport ended, failed or never opened.
    case transport(CloseCause)
    /// The peer sent no SETTINGS in time.
    case settingsTimeout
    /// The peer did not answer a PING in time.
    case pingTimeout
    /// The peer broke the protocol, in the library's words.
    case protocolViolation(String)
    /// The peer gave the connection up with this code.
    case goAway(HTTP2ErrorCode)
    /// The peer exceeded the limit of frames that carry nothing.
    case flood
    /// The owner gave it up, in its words.
    case refused(String)
}

extension HTTP2CloseCause: CustomStringConvertible {
    package var description: String {
        switch self {
        case .finished: "finished"
        case .transport(let cause): "transport: \(cause)"
        case .settingsTimeout: "the peer sent no HTTP/2 settings in time"
        case .pingTimeout: "the peer did not answer a ping in time"
        case .protocolViolation(let reason): "the peer broke the HTTP/2 protocol: \(reason)"
        case .goAway(let code): "the peer gave the connection up: \(code)"
        case .flood: "the peer flooded the connection with control frames"
        case .refused(let reason): reason
        }
    }
}
