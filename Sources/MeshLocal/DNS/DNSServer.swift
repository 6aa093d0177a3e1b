import Logging
import MeshAddress
import NIOCore
import NIOPosix
import Synchronization

/// The pods' name server, over UDP and TCP.
final class DNSServer: Sendable {
    /// How many answered, and how many of them were refused or failed because of a limit.
    struct Statistics: Sendable, Hashable {
        var queries = 0
        var malformed = 0
        var forwarded = 0
        var failed = 0
    }

    private static let tcpConnectionLimit = 256

    private let address: IPAddress
    private let port: UInt16
    private let records: DNSRecords
    private let forwarder: DNSForwarder
    private let log: Logger
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let state = Mutex((channels: [any Channel](), connections: 0, statistics: Statistics()))

    init(address: IPAddress, port: UInt16 = 53, records: DNSRecords, resolvers: HostResolvers, log: Logger) {
        self.address = address
        self.port = port
        self.records = records
        self.log = log
        forwarder = DNSForwarder(group: group, resolvers: resolvers, ownAddress: address)
    }

    var statistics: Statistics { state.withLock { $0.statistics } }

    func start() async throws {
        do {
            let datagrams = try await DatagramBootstrap(group: group)
                .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 4096))
                .channelOption(.datagramVectorReadMessageCount, value: 16)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(DatagramQueries(self))
                    }
                }
                .bind(host: "\(address)", port: Int(port)).get()
            let connections = try await ServerBootstrap(group: group)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        guard self.mayConnect(channel) else { throw ChannelError.operationUnsupported }
                        try channel.pipeline.syncOperations.addHandler(IdleStateHandler(readTimeout: .seconds(10)))
                        try channel.pipeline.syncOperations.addHandler(StreamQueries(self))
                    }
                }
                .bind(host: "\(address)", port: Int(port)).get()
            state.withLock { $0.channels = [datagrams, connections] }
        } catch {
            throw PlatformError(
                "the name server cannot listen on \(address):\(port) (\(error)); another one may use that port on all addresses: stop it "
                    + "or restrict it to its own")
        }
    }

    /// A connection beyond the limit is closed, and counted as failed.
    private func mayConnect(_ channel: any Channel) -> Bool {
        let isAllowed = state.withLock { state in
            guard state.connections < DNSServer.tcpConnectionLimit else {
                state.statistics.failed += 1
                return false
            }
            state.connections += 1
            return true
        }
        if isAllowed { channel.closeFuture.whenComplete { _ in self.state.withLock { $0.connections -= 1 } } }
        return isAllowed
    }

    func shutDown() async {
        for channel in state.withLock({ $0.channels }) { try? await channel.close() }
        try? await group.shutdownGracefully()
    }

    /// The answer to a message, or nil when it gets none. `answer` is called at once for the cluster's own names.
    fileprivate func handle(_ message: [UInt8], overTCP: Bool, answer: @escaping @Sendable ([UInt8]) -> Void) {
        state.withLock { $0.statistics.queries += 1 }
        let query: DNSQuery
        do {
            query = try DNSQuery(message)
        } catch {
            state.withLock { $0.statistics.malformed += 1 }
            // Who sends what is no query gets nothing: two servers must not keep answering each other.
            guard case .malformed(let id) = error else { return }
            return answer(
                [UInt8(id >> 8), UInt8(truncatingIfNeeded: id), 0x80, 0x80 | DNSCode.formatError]
                    + [UInt8](repeating: 0, count: 8))
        }
        let limit = overTCP ? 65_535 : Int(min(query.payloadLimit ?? 512, 1232))
        func reply(_ code: UInt8) {
            answer(DNSAnswer(code: code, isAuthoritative: false).encode(for: query, limit: limit))
        }
        guard query.opcode == 0 else { return reply(DNSCode.notImplemented) }
        guard query.classCode == 1 || query.classCode == 255 else { return reply(DNSCode.refused) }
        switch records.outcome(query) {
        case .answer(let found): answer(found.encode(for: query, limit: limit))
        case .forward: Task { answer(await forwarded(message, query, overTCP)) }
        case .alias(let alias, let target): Task { answer(await resolved(alias, target, query, limit)) }
        }
    }

    private func forwarded(_ message: [UInt8], _ query: DNSQuery, _ overTCP: Bool) async -> [UInt8] {
        state.withLock { $0.statistics.forwarded += 1 }
        if let found = await forwarder.ask(message, overTCP: overTCP) { return found }
        state.withLock { $0.statistics.failed += 1 }
        return DNSAnswer(code: DNSCode.serverFailure, isAuthoritative: false).encode(for: query, limit: 512)
    }

    /// An alias with the addresses of its target, which a pod's resolver expects in one answer.
    private func resolved(_ alias: DNSRecord, _ target: DNSName, _ query: DNSQuery, _ limit: Int) async -> [UInt8] {
        var inner = query
        inner.name = target
        inner.payloadLimit = nil
        var found = DNSAnswer(answers: [alias])
        if case .answer(let own) = records.outcome(inner) {
            found.answers += own.answers
            return found.encode(for: query, limit: limit)
        }
        var writer = DNSWriter()
        for number in [query.id, 0x0100, 1, 0, 0, 0] { writer.number(number) }
        writer.name(target)
        writer.number(query.type)
        writer.number(1)
        guard let bytes = await forwarder.ask(writer.bytes, overTCP: false) else {
            found.code = DNSCode.serverFailure
            return found.encode(for: query, limit: limit)
        }
        found.answers += DNSServer.addresses(in: bytes)
        return found.encode(for: query, limit: limit)
    }

    /// The aliases and addresses of an answer.
    static func addresses(in message: [UInt8]) -> [DNSRecord] {
        var reader = DNSReader(message, at: 4)
        guard let questions = reader.number(), let answers = reader.number(), reader.skip(4) else { return [] }
        for _ in 0..<questions { guard reader.name() != nil, reader.skip(4) else { return [] } }
        var records: [DNSRecord] = []
        for _ in 0..<min(answers, 64) {
            guard let name = reader.name(), let type = reader.number(), reader.number() != nil,
                let seconds = reader.longNumber(),
                let length = reader.number()
            else { break }
            var content = DNSReader(message, at: reader.position)
            guard let bytes = reader.take(Int(length)) else { break }
            switch type {
            case DNSType.a, DNSType.aaaa:
                if let address = IPAddress(bytes: bytes) {
                    records.append(DNSRecord(name: name, seconds: seconds, content: .address(address)))
                }
            case DNSType.cname:
                if let target = content.name() {
                    records.append(DNSRecord(name: name, seconds: seconds, content: .alias(target)))
                }
            default: break
            }
        }
        return records
    }
}

private final class DatagramQueries: ChannelInboundHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>

    private let server: DNSServer

    init(_ server: DNSServer) { self.server = server }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let envelope = unwrapInboundIn(data)
        let channel = context.channel
        server.handle(Array(envelope.data.readableBytesView), overTCP: false) { answer in
            let buffer = channel.allocator.buffer(bytes: answer)
            channel.writeAndFlush(AddressedEnvelope(remoteAddress: envelope.remoteAddress, data: buffer), promise: nil)
        }
    }

    /// A datagram that could not be delivered says nothing about the next one.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {}
}

private final class StreamQueries: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private static let messageLimit = 4096
    private let server: DNSServer
    private var received: [UInt8] = []

    init(_ server: DNSServer) { self.server = server }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received += Array(unwrapInboundIn(data).readableBytesView)
        let channel = context.channel
        while received.count >= 2 {
            let length = Int(received[0]) << 8 | Int(received[1])
            guard length >= 12, length <= StreamQueries.messageLimit else { return context.close(promise: nil) }
            guard received.count >= 2 + length else { return }
            let message = Array(received[2..<2 + length])
            received.removeSubrange(..<(2 + length))
            server.handle(message, overTCP: true) { answer in
                let prefix = [UInt8(truncatingIfNeeded: answer.count >> 8), UInt8(truncatingIfNeeded: answer.count)]
                channel.writeAndFlush(channel.allocator.buffer(bytes: prefix + answer), promise: nil)
            }
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
