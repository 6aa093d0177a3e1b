import Crypto
import Foundation
import MeshKubernetes
import NIOCore
import NIOHTTP1
import NIOWebSocket

/// Turns the connection of an exec request into a WebSocket (RFC 6455) and runs the command over it.
///
/// The web framework has no upgrade of its own, so its HTTP handlers are taken out of the connection and the WebSocket's put in
/// their place; what the framework still writes to the connection afterwards is dropped.
struct ExecUpgrade: Sendable {
    var key: String
    var subprotocol: String

    /// From the request's headers; a `StatusError` says what is missing.
    init(upgrade: String?, version: String?, key: String?, protocols: String?) throws {
        guard upgrade?.lowercased() == "websocket", version == "13", let key, [UInt8](base64URL: key)?.count == 16
        else {
            throw StatusError.badRequest(
                "exec needs a WebSocket: a GET with Upgrade: websocket, Sec-WebSocket-Version: 13 and Sec-WebSocket-Key"
            )
        }
        let offered = (protocols ?? "").split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
        guard let chosen = ExecProtocol.names.first(where: offered.contains) else {
            throw StatusError.badRequest(
                "exec needs one of the WebSocket protocols \(ExecProtocol.names.joined(separator: ", "))")
        }
        self.key = key
        subprotocol = chosen
    }

    /// RFC 6455 §4.2.2.
    private var response: String {
        let accept = Array(Insecure.SHA1.hash(data: Data((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8))).base64
        return
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: \(accept)\r\n"
            + "sec-websocket-protocol: \(subprotocol)\r\n\r\n"
    }

    /// Runs the command to its end, or to the end of the connection.
    func run(
        on channel: any NIOCore.Channel, _ request: PodExecRequest, pod: PodReference, access: any PodAccess
    ) async throws {
        let session = ExecServerSession(channel: channel)
        try await channel.eventLoop.submit { try install(session, channel) }.get()
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                let status: JSONValue
                do {
                    let code = try await access.exec(
                        in: pod, request, standardInput: session.input.stream,
                        output: { output in
                            switch output {
                            case .standardOutput(let bytes): try await session.send(.standardOutput, bytes)
                            case .standardError(let bytes): try await session.send(.standardError, bytes)
                            }
                        })
                    status = ExecProtocol.status(exitCode: code)
                } catch let error as StatusError {
                    status = error.json
                } catch {
                    status = StatusError.internalError(String(describing: error)).json
                }
                try? await session.send(.status, Array(status.data()))
                await session.close()
            }
            // The end of the connection ends the command.
            group.addTask { try? await channel.closeFuture.get() }
            await group.next()
            group.cancelAll()
        }
    }

    private func install(_ session: ExecServerSession, _ channel: any NIOCore.Channel) throws {
        let pipeline = channel.pipeline.syncOperations
        let decoder = try pipeline.handler(type: ByteToMessageHandler<HTTPRequestDecoder>.self)
        let encoder = try pipeline.handler(type: HTTPResponseEncoder.self)
        let encoderContext = try pipeline.context(handlerType: HTTPResponseEncoder.self)
        encoderContext.writeAndFlush(NIOAny(ByteBuffer(string: response)), promise: nil)
        let handler = ExecServerHandler(session: session)
        try pipeline.addHandlers(
            [
                WebSocketFrameEncoder(),
                ByteToMessageHandler(WebSocketFrameDecoder(maxFrameSize: ExecProtocol.messageLimitBytes)),
                NIOWebSocketFrameAggregator(
                    minNonFinalFragmentSize: 0, maxAccumulatedFrameCount: 1024,
                    maxAccumulatedFrameSize: ExecProtocol.messageLimitBytes),
                handler,
            ], position: .after(decoder))
        pipeline.removeHandler(decoder, promise: nil)
        pipeline.removeHandler(encoder, promise: nil)
    }
}

/// What the command and the connection share.
final class ExecServerSession: Sendable {
    private let channel: any NIOCore.Channel
    let input: BytePipe

    init(channel: any NIOCore.Channel) {
        self.channel = channel
        input = BytePipe(limitBytes: ExecProtocol.inputLimitBytes) {
            channel.setOption(.autoRead, value: true).whenSuccess { channel.read() }
        }
    }

    /// Returns when the message is with the kernel, so that a slow reader slows the command.
    func send(_ target: ExecProtocol.Channel, _ bytes: [UInt8]) async throws {
        var buffer = channel.allocator.buffer(capacity: bytes.count + 1)
        buffer.writeInteger(target.rawValue)
        buffer.writeBytes(bytes)
        try await write(WebSocketFrame(fin: true, opcode: .binary, data: buffer))
    }

    /// The client answers the closing frame when it has read all before it (RFC 6455 §5.5.1); one that does not is not waited for
    /// longer than this.
    private static let closingSeconds: Int64 = 2

    func close() async {
        var data = ByteBuffer()
        data.write(webSocketErrorCode: .normalClosure)
        try? await write(WebSocketFrame(fin: true, opcode: .connectionClose, data: data))
        let channel = channel
        let limit = channel.eventLoop.scheduleTask(in: .seconds(Self.closingSeconds)) { channel.close(promise: nil) }
        try? await channel.closeFuture.get()
        limit.cancel()
    }

    private func write(_ frame: WebSocketFrame) async throws {
        let channel = channel
        try await channel.eventLoop.flatSubmit {
            do {
                let context = try channel.pipeline.syncOperations.context(handlerType: ExecServerHandler.self)
                return context.writeAndFlush(NIOAny(frame))
            } catch {
                return channel.eventLoop.makeFailedFuture(error)
            }
        }.get()
    }
}

/// The inner end of the WebSocket: takes the client's messages and lets nothing else pass in either direction.
private final class ExecServerHandler: ChannelDuplexHandler {
    typealias InboundIn = WebSocketFrame
    typealias OutboundIn = Never
    typealias OutboundOut = WebSocketFrame

    private let session: ExecServerSession

    init(session: ExecServerSession) { self.session = session }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var frame = unwrapInboundIn(data)
        var payload = frame.unmaskedData
        switch frame.opcode {
        case .binary, .text:
            guard let number = payload.readInteger(as: UInt8.self) else { return }
            switch ExecProtocol.Channel(rawValue: number) {
            case .standardInput:
                if payload.readableBytes > 0, !session.input.push(Array(buffer: payload)) {
                    _ = context.channel.setOption(.autoRead, value: false)
                }
            case .close:
                if payload.readInteger(as: UInt8.self) == ExecProtocol.Channel.standardInput.rawValue {
                    session.input.finish()
                }
            default: break
            }
        case .ping:
            frame = WebSocketFrame(fin: true, opcode: .pong, data: payload)
            context.writeAndFlush(wrapOutboundOut(frame), promise: nil)
        case .connectionClose:
            context.close(promise: nil)
        default: break
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        session.input.finish()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }

    /// Only the framework behind this handler writes here, and its response has no place any more.
    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        promise?.succeed()
    }
}
