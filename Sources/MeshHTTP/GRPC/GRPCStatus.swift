/// How a gRPC call ended (gRPC over HTTP/2, «Status codes and their use in gRPC»).
package struct GRPCStatus: Error, Hashable, Sendable, CustomStringConvertible {
    package struct Code: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
        package let rawValue: UInt8

        package init(rawValue: UInt8) { self.rawValue = rawValue }

        package static let ok = Self(rawValue: 0)
        package static let cancelled = Self(rawValue: 1)
        package static let unknown = Self(rawValue: 2)
        package static let invalidArgument = Self(rawValue: 3)
        package static let deadlineExceeded = Self(rawValue: 4)
        package static let notFound = Self(rawValue: 5)
        package static let alreadyExists = Self(rawValue: 6)
        package static let permissionDenied = Self(rawValue: 7)
        package static let resourceExhausted = Self(rawValue: 8)
        package static let failedPrecondition = Self(rawValue: 9)
        package static let aborted = Self(rawValue: 10)
        package static let outOfRange = Self(rawValue: 11)
        package static let unimplemented = Self(rawValue: 12)
        package static let `internal` = Self(rawValue: 13)
        package static let unavailable = Self(rawValue: 14)
        package static let dataLoss = Self(rawValue: 15)
        package static let unauthenticated = Self(rawValue: 16)

        private static let names = [
            "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
            "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
        ]

        package var description: String {
            rawValue < UInt8(Self.names.count) ? Self.names[Int(rawValue)] : "status \(rawValue)"
        }
    }

    package var code: Code
    package var message: String

    package init(_ code: Code, _ message: String = "") {
        self.code = code
        self.message = message
    }

    package static let ok = GRPCStatus(.ok)

    package var description: String { message.isEmpty ? code.description : "\(code): \(message)" }
}

extension GRPCStatus {
    /// Longer messages are cut: they go into a header field.
    package static let messageLimit = 1024

    /// `grpc-message` as it travels: everything but printable ASCII, and `%` itself, as `%XX` of its UTF-8 bytes.
    package static func encodeMessage(_ message: String) -> String {
        var result = ""
        for byte in message.utf8.prefix(messageLimit) {
            if (0x20...0x7e).contains(byte) && byte != 0x25 {
                result.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return result
    }

    /// The reverse. What is not a proper escape stands for itself, as the specification asks.
    package static func decodeMessage(_ text: some Collection<UInt8>) -> String {
        let bytes = Array(text.prefix(messageLimit * 3))
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == 0x25, index + 2 < bytes.count, let high = hexDigit(bytes[index + 1]),
                let low = hexDigit(bytes[index + 2])
            {
                result.append(high << 4 | low)
                index += 3
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    private static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 48...57: byte - 48
        case 65...70: byte - 55
        case 97...102: byte - 87
        default: nil
        }
    }

    /// From trailers (or the head of a trailers-only response); nil when they have no `grpc-status`.
    init?(trailers: HTTP2Headers) {
        guard let index = trailers.firstIndex(of: "grpc-status") else { return nil }
        let digits = String(decoding: trailers.value(at: index), as: UTF8.self)
        guard let value = UInt8(digits) else {
            self.init(.unknown, "the peer sent the grpc-status '\(digits)', which is not a number below 256")
            return
        }
        let message = trailers.firstIndex(of: "grpc-message").map { GRPCStatus.decodeMessage(trailers.value(at: $0)) }
        self.init(Code(rawValue: value), message ?? "")
    }

    /// For a response without a gRPC status («HTTP to gRPC Status Code Mapping»).
    init(httpStatus: Int) {
        let code: Code
        switch httpStatus {
        case 400: code = .internal
        case 401: code = .unauthenticated
        case 403: code = .permissionDenied
        case 404: code = .unimplemented
        case 429, 502, 503, 504: code = .unavailable
        default: code = .unknown
        }
        self.init(code, "the peer answered with the HTTP status \(httpStatus) and no gRPC status")
    }

    /// For a stream that ended without trailers.
    init(close cause: HTTP2StreamCloseCause) {
        switch cause {
        case .finished:
            self.init(.internal, "the peer ended the stream without a status")
        case .connectionLost:
            self.init(.unavailable, "the connection was lost")
        case .reset(.refusedStream):
            self.init(.unavailable, "the peer refused the stream")
        case .reset(.cancel):
            self.init(.cancelled, "the peer cancelled the stream")
        case .reset(.enhanceYourCalm):
            self.init(.resourceExhausted, "the peer asks for less (ENHANCE_YOUR_CALM)")
        case .reset(.inadequateSecurity):
            self.init(.permissionDenied, "the peer finds the security inadequate")
        case .reset(let code):
            self.init(.internal, "the peer reset the stream: \(code)")
        }
    }

    package func appendTrailers(to headers: HTTP2Headers) {
        headers.append("grpc-status", String(code.rawValue))
        if !message.isEmpty { headers.append("grpc-message", GRPCStatus.encodeMessage(message)) }
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
package enum GRPCTimeout {
    package static func text(milliseconds: Int) -> String {
        let value = max(milliseconds, 1)
        return value < 100_000_000 ? "\(value)m" : "\(min(value / 1000, 99_999_999))S"
    }

    /// Milliseconds, rounded up; nil for anything else.
    package static func parse(_ text: some Collection<UInt8>) -> Int? {
        guard (2...9).contains(text.count), let unit = Array(text).last else { return nil }
        let digits = text.dropLast()
        guard digits.allSatisfy({ (48...57).contains($0) }) else { return nil }
        let value = digits.reduce(0) { $0 * 10 + Int($1 - 48) }
        switch unit {
        case UInt8(ascii: "H"): return value * 3_600_000
        case UInt8(ascii: "M"): return value * 60_000
        case UInt8(ascii: "S"): return value * 1000
        case UInt8(ascii: "m"): return value
        case UInt8(ascii: "u"): return (value + 999) / 1000
        case UInt8(ascii: "n"): return (value + 999_999) / 1_000_000
        default: return nil
        }
    }
}
