import MeshCore
import MeshHTTP

/// What was asked, for the access log.
struct RequestSubject {
    let method: String
    let path: String
    let authority: String
    let userAgent: String
    let requestID: String

    init(_ head: RequestHead, _ bytes: UnsafeRawBufferPointer) {
        func text(_ range: ByteRange?) -> String { range.map { String(decoding: bytes[$0], as: UTF8.self) } ?? "" }
        method = text(head.methodRange)
        path = text(head.path)
        authority = text(head.authority)
        userAgent = text(head.value(of: .userAgent))
        requestID = text(head.value(of: .requestID))
    }
}

/// One finished request. Recording consumes it, so that it is counted once.
struct RequestRecord: ~Copyable {
    let direction: HTTPRelay.Direction
    let target: RouteTarget
    let upstream: Upstream?
    let caller: Caller
    /// What the client was answered; 0 when it was not.
    let status: Int
    let error: ProxyError?
    let requestBytes: UInt64
    let responseBytes: UInt64
    let tries: Int
    let durationNanoseconds: Int64
    let subject: RequestSubject?

    consuming func record(on loop: ProxyLoop) {}
}

/// What happened to a connection that is relayed as bytes.
struct ByteRecord: ~Copyable {
    enum Kind {
        case opened, progress, closed, failed
    }

    let direction: HTTPRelay.Direction
    let target: RouteTarget
    let upstream: Upstream?
    let caller: Caller
    let kind: Kind
    /// From the client, since the last record of this connection.
    let sent: UInt64
    let received: UInt64
    let error: ProxyError?
    let durationNanoseconds: Int64
    let applicationProtocol: ApplicationProtocol

    consuming func record(on loop: ProxyLoop) {}
}

/// Metrics cells that were found once, to be found without a search the next time.
struct UpstreamCells {}
