import Foundation
import MeshAddress
import NIOCore
import NIOPosix
import Synchronization

/// Asks the machine's own name servers what is not of the cluster.
///
/// Every query has a socket of its own, so its port is as random as its number, and an answer from elsewhere does not even
/// arrive. What runs at a time is limited; beyond that a query fails at once.
final class DNSForwarder: Sendable {
    static let inFlightLimit = 512
    private static let tries = 2
    private static let timeout = TimeAmount.seconds(2)

    private let group: any EventLoopGroup
    private let resolvers: HostResolvers
    private let ownAddress: IPAddress
    private let state = Mutex((inFlight: 0, servers: [IPAddress](), read: ContinuousClock.Instant?.none))

    init(group: any EventLoopGroup, resolvers: HostResolvers, ownAddress: IPAddress) {
        self.group = group
        self.resolvers = resolvers
        self.ownAddress = ownAddress
    }

    /// The host's servers, looked up again every few seconds; never this one.
    private func servers() -> [IPAddress] {
        let known = state.withLock { state in
            state.read.map { ContinuousClock.now - $0 < .seconds(5) } == true ? state.servers : nil
        }
        if let known { return known }
        let servers = resolvers.read().servers.filter { $0 != ownAddress }
        state.withLock { state in
            state.servers = servers
            state.read = .now
        }
        return servers
    }

    /// The answer as the server gave it, with the number of `query`; nil when no server answered in time or too many
    /// queries are on their way.
    func ask(_ query: [UInt8], overTCP: Bool) async -> [UInt8]? {
        guard query.count >= 12 else { return nil }
        let isAllowed = state.withLock { state in
            guard state.inFlight < DNSForwarder.inFlightLimit else { return false }
            state.inFlight += 1
            return true
        }
        guard isAllowed else { return nil }
        defer { state.withLock { $0.inFlight -= 1 } }
        let servers = servers()
        for _ in 0..<DNSForwarder.tries {
            for server in servers {
                var question = query
                let number = UInt16.random(in: .min ... .max)
                question[0] = UInt8(number >> 8)
                question[1] = UInt8(truncatingIfNeeded: number)
                guard var answer = await exchange(question, server, overTCP: overTCP) else { continue }
                answer[0] = query[0]
                answer[1] = query[1]
                return answer
            }
        }
        return nil
    }

    private func exchange(_ query: [UInt8], _ server: IPAddress, overTCP: Bool) async -> [UInt8]? {
        let loop = group.next()
        let promise = loop.makePromise(of: [UInt8]?.self)
        let deadline = loop.scheduleTask(in: DNSForwarder.timeout) { promise.succeed(nil) }
        guard let address = try? NIOCore.SocketAddress(ipAddress: "\(server)", port: 53) else { return nil }
        let handler: @Sendable (any Channel) -> EventLoopFuture<Void> = { channel in
            channel.eventLoop.makeCompletedFuture {
                if !overTCP { try channel.pipeline.syncOperations.addHandler(DatagramBytes()) }
                try channel.pipeline.syncOperations.addHandler(ExchangeHandler(query, overTCP: overTCP, promise))
            }
        }
        let connecting =
            overTCP
            ? ClientBootstrap(group: loop).connectTimeout(DNSForwarder.timeout).channelInitializer(handler).connect(
                to: address)
            : DatagramBootstrap(group: loop).channelInitializer(handler).connect(to: address)
        connecting.whenFailure { _ in promise.succeed(nil) }
        let answer = try? await promise.futureResult.get()
        deadline.cancel()
        return answer ?? nil
    }
}

/// The bytes of datagrams to and from the one peer of a connected socket.
private final class DatagramBytes: ChannelDuplexHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = AddressedEnvelope<ByteBuffer>

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.fireChannelRead(wrapInboundOut(unwrapInboundIn(data).data))
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard let peer = context.remoteAddress else { return context.fireErrorCaught(ChannelError.ioOnClosedChannel) }
        context.write(
            wrapOutboundOut(AddressedEnvelope(remoteAddress: peer, data: unwrapOutboundIn(data))), promise: promise)
    }
}

/// Sends one query and takes the first answer to it.
private final class ExchangeHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let query: [UInt8]
    private let overTCP: Bool
    private let promise: EventLoopPromise<[UInt8]?>
    private var received: [UInt8] = []

    init(_ query: [UInt8], overTCP: Bool, _ promise: EventLoopPromise<[UInt8]?>) {
        self.query = query
        self.overTCP = overTCP
        self.promise = promise
    }

    func channelActive(context: ChannelHandlerContext) {
        let channel = context.channel
        promise.futureResult.whenComplete { _ in channel.close(promise: nil) }
        let prefix =
            overTCP ? [UInt8(truncatingIfNeeded: query.count >> 8), UInt8(truncatingIfNeeded: query.count)] : []
        let buffer = channel.allocator.buffer(bytes: prefix + query)
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        guard overTCP else {
            let bytes = Array(buffer.readableBytesView)
            if isAnswer(bytes) { promise.succeed(bytes) }
            return
        }
        received += Array(buffer.readableBytesView.prefix(65_537 - received.count))
        guard received.count >= 2 else { return }
        let length = Int(received[0]) << 8 | Int(received[1])
        guard received.count >= 2 + length else { return }
        let answer = Array(received[2..<2 + length])
        promise.succeed(isAnswer(answer) ? answer : nil)
    }

    func channelInactive(context: ChannelHandlerContext) { promise.succeed(nil) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { promise.succeed(nil) }

    /// The same number and the same question.
    private func isAnswer(_ bytes: [UInt8]) -> Bool {
        guard bytes.count >= 12, bytes[0] == query[0], bytes[1] == query[1], bytes[2] & 0x80 != 0 else { return false }
        var asked = DNSReader(query, at: 12)
        var told = DNSReader(bytes, at: 12)
        guard let name = asked.name(), let type = asked.number() else { return false }
        // A server that could not read the question need not repeat it.
        if bytes[4] == 0 && bytes[5] == 0 { return bytes[3] & 15 != 0 }
        return told.name()?.folded == name.folded && told.number() == type
    }
}
