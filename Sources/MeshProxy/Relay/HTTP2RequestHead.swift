import MeshHTTP
import MeshTelemetry

/// What a relay must know of an HTTP/2 request's head. Its form has been checked by the session (RFC 9113 §8.2, §8.3).
struct HTTP2RequestHead {
    private(set) var method = HTTPMethod.other
    private(set) var isGRPC = false
    /// The field's place in the block.
    private(set) var traceparent: Int?
    /// What the client of a gRPC call waits for its end (`grpc-timeout`).
    private(set) var timeoutMilliseconds: Int?
    private(set) var contentLength: UInt64?

    /// A year: what a client cannot mean, and sums with the clock without overflow.
    private static let longestTimeoutMilliseconds = 31_536_000_000

    init(_ headers: HTTP2Headers) {
        for index in 0..<headers.count {
            let name = headers.name(at: index)
            switch name.count {
            case 7 where name.equals(":method"): method = HTTPMethod(headers.value(at: index))
            case 11 where name.equals("traceparent"): traceparent = index
            case 12 where name.equals("content-type"): isGRPC = HTTP2RequestHead.isGRPC(headers.value(at: index))
            case 12 where name.equals("grpc-timeout"):
                timeoutMilliseconds = GRPCTimeout.parse(headers.value(at: index))
                    .map { min($0, HTTP2RequestHead.longestTimeoutMilliseconds) }
            case 14 where name.equals("content-length"):
                contentLength = UInt64(String(decoding: headers.value(at: index), as: UTF8.self))
            default: break
            }
        }
    }

    /// `application/grpc` and its kin, but not `application/grpc-web`, whose status is in its body.
    static func isGRPC(_ contentType: UnsafeRawBufferPointer) -> Bool {
        let prefix: StaticString = "application/grpc"
        let count = prefix.utf8CodeUnitCount
        guard contentType.count >= count,
            UnsafeRawBufferPointer(rebasing: contentType[..<count]).equals(prefix)
        else { return false }
        return contentType.count == count || contentType[count] == UInt8(ascii: "+")
            || contentType[count] == UInt8(ascii: ";")
    }
}

/// What decides about an HTTP/2 response before it is passed on.
struct HTTP2ResponseHead {
    private(set) var status = 0
    private(set) var grpcStatus: UInt8?
    /// The field's place in the block.
    private(set) var apusReason: Int?
    /// A server's wish about the next try, in milliseconds; negative forbids it (gRFC A6).
    private(set) var retryPushbackMilliseconds: Int?

    /// Of a response's head or its trailers.
    init(_ headers: HTTP2Headers) {
        for index in 0..<headers.count {
            let name = headers.name(at: index)
            switch name.count {
            case 7 where name.equals(":status"): status = headers.value(at: index).decimal ?? 0
            case 11 where name.equals("grpc-status"):
                grpcStatus =
                    headers.value(at: index).decimal.flatMap { UInt8(exactly: $0) } ?? GRPCStatus.Code.unknown.rawValue
            case 11 where name.equals("apus-reason"): apusReason = index
            case 22 where name.equals("grpc-retry-pushback-ms"):
                retryPushbackMilliseconds = headers.value(at: index).decimal ?? -1
            default: break
            }
        }
    }

    /// The statuses that say that the server failed, rather than refused.
    static func isFailure(grpcStatus: UInt8) -> Bool {
        switch GRPCStatus.Code(rawValue: grpcStatus) {
        case .unknown, .deadlineExceeded, .internal, .unavailable, .dataLoss: true
        default: false
        }
    }
}

extension HTTPMethod {
    fileprivate init(_ bytes: UnsafeRawBufferPointer) {
        switch bytes.count {
        case 3 where bytes.equals("GET"): self = .get
        case 3 where bytes.equals("PUT"): self = .put
        case 4 where bytes.equals("POST"): self = .post
        case 4 where bytes.equals("HEAD"): self = .head
        case 5 where bytes.equals("PATCH"): self = .patch
        case 5 where bytes.equals("TRACE"): self = .trace
        case 6 where bytes.equals("DELETE"): self = .delete
        case 7 where bytes.equals("OPTIONS"): self = .options
        case 7 where bytes.equals("CONNECT"): self = .connect
        default: self = .other
        }
    }
}

extension UnsafeRawBufferPointer {
    @inline(__always)
    fileprivate func equals(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        for index in 0..<count where self[index] != text.utf8Start[index] { return false }
        return true
    }

    /// One to nine digits.
    fileprivate var decimal: Int? {
        guard (1...9).contains(count) else { return nil }
        var value = 0
        for byte in self {
            guard byte &- 0x30 < 10 else { return nil }
            value = value * 10 + Int(byte &- 0x30)
        }
        return value
    }
}
