import MeshAddress
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// One HTTP/1.1 request on a connection of its own: to a webhook, or to a pod through the API's proxy.
struct HTTPExchange: Sendable {
    /// How the server proves who it is.
    enum Security: Sendable {
        case plaintext
        /// Its certificate must have this DNS name and be signed by one of these, in PEM.
        case verified(name: String, authorities: [UInt8])
        /// Encrypted only: the API's proxy asks pods for no certificate that it could know.
        case unverified
    }

    var address: IPAddress
    var port: UInt16
    var security: Security
    var connectTimeoutMilliseconds: Int64 = 5_000

    typealias Response = NIOAsyncChannelInboundStream<HTTPClientResponsePart>

    /// Sends the request and gives the response's parts to `handle`; the connection is closed when that returns.
    func perform<Result: Sendable>(
        _ head: HTTPRequestHead, body: ByteBuffer,
        handle: @Sendable (_ head: HTTPResponseHead, _ parts: inout Response.AsyncIterator) async throws -> Result
    ) async throws -> Result {
        let tls = try context()
        let name: String? = if case .verified(let name, _) = security { name } else { nil }
        let attempt = ConnectAttempt()
        let channel = try await withTaskCancellationHandler {
            try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.milliseconds(connectTimeoutMilliseconds))
                .connect(host: address.description, port: Int(port)) { channel in
                    attempt.began(channel)
                    return channel.eventLoop.makeCompletedFuture {
                        if let tls {
                            try channel.pipeline.syncOperations.addHandler(
                                NIOSSLClientHandler(context: tls, serverHostname: name))
                        }
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        return try NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>(
                            wrappingChannelSynchronously: channel)
                    }
                }
        } onCancel: {
            attempt.cancel()
        }
        return try await channel.executeThenClose { inbound, outbound in
            var request: [HTTPClientRequestPart] = [.head(head), .end(nil)]
            if body.readableBytes > 0 { request.insert(.body(.byteBuffer(body)), at: 1) }
            // At once, because a server may answer the head of a GET and close before its end has been written. One that answers early and
            // closes has answered all the same, so the answer comes before the failure to write.
            var failure: (any Error)?
            do { try await outbound.write(contentsOf: request) } catch { failure = error }
            var parts = inbound.makeAsyncIterator()
            while let part = try await parts.next() {
                // An interim response (RFC 9110 §15.2) is not the answer.
                if case .head(let head) = part, head.status.code >= 200 || head.status == .switchingProtocols {
                    return try await handle(head, &parts)
                }
            }
            throw failure ?? ChannelError.eof
        }
    }

    private func context() throws -> NIOSSLContext? {
        var configuration = TLSConfiguration.makeClientConfiguration()
        switch security {
        case .plaintext: return nil
        case .unverified: configuration.certificateVerification = .none
        case .verified(_, let authorities):
            configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(authorities))
            configuration.certificateVerification = .fullVerification
        }
        return try NIOSSLContext(configuration: configuration)
    }
}

/// A connection that is being made. A pod that has gone answers nothing, and whoever is cancelled does not wait for that.
private final class ConnectAttempt: Sendable {
    private let state = Mutex<(channel: (any Channel)?, isCancelled: Bool)>((nil, false))

    func began(_ channel: any Channel) {
        let isCancelled = state.withLock { state in
            state.channel = channel
            return state.isCancelled
        }
        if isCancelled { channel.close(promise: nil) }
    }

    func cancel() {
        let channel = state.withLock { state in
            state.isCancelled = true
            return state.channel
        }
        channel?.close(promise: nil)
    }
}

/// The operation took longer than it may.
struct DeadlineExceeded: Error, CustomStringConvertible {
    var seconds: Int
    var description: String { "context deadline exceeded: no answer within \(seconds) s" }
}

/// Runs an operation that is cancelled, and fails, when it takes too long.
func withDeadline<Result: Sendable>(
    seconds: Int, _ operation: @escaping @Sendable () async throws -> Result
) async throws -> Result {
    try await withThrowingTaskGroup(of: Result.self) { group in
        group.addTask(operation: operation)
        group.addTask {
            try await Task.sleep(for: .seconds(seconds))
            throw DeadlineExceeded(seconds: seconds)
        }
        defer { group.cancelAll() }
        guard let result = try await group.next() else { throw CancellationError() }
        return result
    }
}
