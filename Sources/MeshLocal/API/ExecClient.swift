import Foundation
package import MeshKubernetes
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import NIOWebSocket

/// Runs a command in a container through the API: of `apus up` or of a cluster that speaks exec over WebSocket.
package struct ExecClient: Sendable {
    private let access: ClusterAccess

    package init(_ access: ClusterAccess) { self.access = access }

    private typealias Frames = NIOAsyncChannel<WebSocketFrame, WebSocketFrame>

    private enum Outcome {
        case upgraded(Frames, subprotocol: String)
        case refused(NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>)
    }

    /// The largest message that is accepted from the server.
    private static let messageLimitBytes = 4 << 20
    private static let connectTimeoutSeconds: Int64 = 10

    /// Returns the command's exit code. Without standard input the command reads end-of-file at once. Throws a `StatusError` when
    /// the server refuses, or when the connection ends before the command does.
    package func run(
        namespace: String, pod: String, container: String?, command: [String], standardInput: AsyncStream<[UInt8]>?,
        hasTerminal: Bool = false, output: @escaping @Sendable (PodExecOutput) async throws -> Void
    ) async throws -> Int {
        var query: [(String, String)] = command.map { ("command", $0) } + [("stdout", "true")]
        // A terminal has one output.
        query.append(hasTerminal ? ("tty", "true") : ("stderr", "true"))
        if standardInput != nil { query.append(("stdin", "true")) }
        if let container { query.append(("container", container)) }
        let path =
            ResourceKind.pod.path(namespace: APIRequest.segment(namespace)) + "/\(APIRequest.segment(pod))/exec?"
            + query.map { "\($0)=\(APIRequest.segment($1))" }.joined(separator: "&")
        switch try await connect(path) {
        case .refused(let channel): throw try await Self.refusal(channel)
        case .upgraded(let channel, let subprotocol):
            return try await channel.executeThenClose { inbound, outbound in
                try await withThrowingTaskGroup(of: Int?.self) { group in
                    if let standardInput {
                        group.addTask {
                            for await piece in standardInput {
                                try await outbound.write(Self.message(.standardInput, piece))
                            }
                            // The older protocol cannot tell the end of standard input.
                            if subprotocol == ExecProtocol.names[0] {
                                try await outbound.write(
                                    Self.message(.close, [ExecProtocol.Channel.standardInput.rawValue]))
                            }
                            return nil
                        }
                    }
                    group.addTask { try await Self.read(inbound, outbound, output) }
                    defer { group.cancelAll() }
                    while let result = try await group.next() {
                        if let code = result { return code }
                    }
                    throw Self.broken
                }
            }
        }
    }

    private static let broken = StatusError(
        code: 502, reason: "BadGateway", message: "the connection ended before the command did")

    /// Reads to the end of the connection: closing it while the server does the same would have both wait for each other.
    private static func read(
        _ inbound: NIOAsyncChannelInboundStream<WebSocketFrame>,
        _ outbound: NIOAsyncChannelOutboundWriter<WebSocketFrame>,
        _ output: (PodExecOutput) async throws -> Void
    ) async throws -> Int {
        var status: JSONValue?
        do {
            for try await frame in inbound {
                var data = frame.unmaskedData
                switch frame.opcode {
                case .binary, .text:
                    guard let number = data.readInteger(as: UInt8.self), data.readableBytes > 0 else { continue }
                    switch ExecProtocol.Channel(rawValue: number) {
                    case .standardOutput: try await output(.standardOutput(Array(buffer: data)))
                    case .standardError: try await output(.standardError(Array(buffer: data)))
                    case .status: status = try JSONValue(parsing: Data(Array(buffer: data)))
                    default: continue
                    }
                case .ping:
                    try await outbound.write(WebSocketFrame(fin: true, opcode: .pong, maskKey: .random(), data: data))
                case .connectionClose:
                    try await outbound.write(
                        WebSocketFrame(fin: true, opcode: .connectionClose, maskKey: .random(), data: data))
                default: continue
                }
            }
        } catch {
            guard status != nil else { throw error }
        }
        guard let status else { throw broken }
        return try ExecProtocol.exitCode(status)
    }

    private static func message(_ channel: ExecProtocol.Channel, _ bytes: [UInt8]) -> WebSocketFrame {
        var buffer = ByteBufferAllocator().buffer(capacity: bytes.count + 1)
        buffer.writeInteger(channel.rawValue)
        buffer.writeBytes(bytes)
        return WebSocketFrame(fin: true, opcode: .binary, maskKey: .random(), data: buffer)
    }

    // MARK: - Connecting

    private func connect(_ path: String) async throws -> Outcome {
        guard let components = URLComponents(string: access.server), let host = components.host else {
            throw StatusError.badRequest("the server '\(access.server)' is not a URL")
        }
        let isTLS = components.scheme == "https"
        let bare = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
        let context = isTLS ? try tlsContext() : nil
        var headers = HTTPHeaders([
            ("host", components.port.map { "\(host):\($0)" } ?? host),
            ("sec-websocket-protocol", ExecProtocol.names.joined(separator: ", ")), ("user-agent", "apus"),
        ])
        if let token = try token() { headers.add(name: "authorization", value: "Bearer \(token)") }
        let head = HTTPRequestHead(
            version: .http1_1, method: .GET, uri: (components.path == "/" ? "" : components.path) + path,
            headers: headers)
        let name = access.tlsServerName ?? bare
        let upgrade: EventLoopFuture<Outcome> = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.seconds(Self.connectTimeoutSeconds))
            .connect(host: bare, port: components.port ?? (isTLS ? 443 : 80)) { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let context {
                        // An address is no name for SNI (RFC 6066 §3); the certificate is checked against it all the same.
                        let isAddress = (try? NIOCore.SocketAddress(ipAddress: name, port: 0)) != nil
                        try channel.pipeline.syncOperations.addHandler(
                            NIOSSLClientHandler(context: context, serverHostname: isAddress ? nil : name))
                    }
                    var configuration = NIOUpgradableHTTPClientPipelineConfiguration(
                        upgradeConfiguration: Self.upgradeConfiguration(head))
                    // What comes in one piece with the end of the handshake is the command's first output.
                    configuration.leftOverBytesStrategy = .forwardBytes
                    return try channel.pipeline.syncOperations.configureUpgradableHTTPClientPipeline(
                        configuration: configuration)
                }
            }
        return try await upgrade.get()
    }

    private static func upgradeConfiguration(_ head: HTTPRequestHead) -> NIOTypedHTTPClientUpgradeConfiguration<Outcome>
    {
        let upgrader = NIOTypedWebSocketClientUpgrader<Outcome>(maxFrameSize: messageLimitBytes) { channel, head in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(
                    NIOWebSocketFrameAggregator(
                        minNonFinalFragmentSize: 0, maxAccumulatedFrameCount: 1024,
                        maxAccumulatedFrameSize: messageLimitBytes))
                return .upgraded(
                    try Frames(wrappingChannelSynchronously: channel),
                    subprotocol: head.headers.first(name: "sec-websocket-protocol") ?? "")
            }
        }
        return NIOTypedHTTPClientUpgradeConfiguration(upgradeRequestHead: head, upgraders: [upgrader]) { channel in
            channel.eventLoop.makeCompletedFuture {
                .refused(try NIOAsyncChannel(wrappingChannelSynchronously: channel))
            }
        }
    }

    private static func refusal(
        _ channel: NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>
    ) async throws -> StatusError {
        try await channel.executeThenClose { inbound, _ in
            var code = 502
            var body = ByteBuffer()
            for try await part in inbound {
                switch part {
                case .head(let head): code = Int(head.status.code)
                case .body(var piece) where body.readableBytes < 65_536: body.writeBuffer(&piece)
                case .body: continue
                case .end:
                    let status = try? JSONValue(parsing: Data(Array(buffer: body)))
                    return StatusError(
                        code: code, reason: status?["reason"]?.string ?? "BadGateway",
                        message: status?["message"]?.string ?? "the server refused exec with status \(code)",
                        details: status?["details"])
                }
            }
            return broken
        }
    }

    private func token() throws -> String? {
        switch access.token {
        case .none: return nil
        case .fixed(let token): return token
        case .file(let path):
            guard let data = FileManager.default.contents(atPath: path) else {
                throw StatusError.badRequest("the token file \(path) cannot be read")
            }
            return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }

    private func tlsContext() throws -> NIOSSLContext {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.applicationProtocols = ["http/1.1"]
        if access.skipsServerVerification { configuration.certificateVerification = .none }
        if let authority = access.certificateAuthority {
            configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(authority))
        }
        if let chain = access.clientCertificate, let key = access.clientKey {
            configuration.certificateChain = try NIOSSLCertificate.fromPEMBytes(chain).map { .certificate($0) }
            configuration.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: key, format: .pem))
        }
        return try NIOSSLContext(configuration: configuration)
    }
}
