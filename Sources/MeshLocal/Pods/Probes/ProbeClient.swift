import MeshAddress
import MeshKubernetes
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization

/// What a probe or a hook found.
enum ProbeResult: Hashable, Sendable {
    case success
    case failure(String)

    var isSuccess: Bool { self == .success }
}

/// Makes the probes that go over the network, from the host to the pod's address.
struct ProbeClient: Sendable {
    private static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    /// What is read of an answer, in bytes.
    private static let answerLimit = 65_536

    let podAddress: IPAddress

    func httpGet(_ action: Kubernetes.HTTPGetAction, port: UInt16, timeoutMilliseconds: Int) async -> ProbeResult {
        let host = action.host ?? "\(podAddress)"
        let path = action.path.map { $0.hasPrefix("/") ? $0 : "/" + $0 } ?? "/"
        var headers = action.httpHeaders.map { (name: $0.name, value: $0.value) }
        func add(_ name: String, _ value: String) {
            if !headers.contains(where: { $0.name.lowercased() == name.lowercased() }) { headers.append((name, value)) }
        }
        add("Host", "\(host.contains(":") ? "[\(host)]" : host):\(port)")
        add("User-Agent", "kube-probe/apus")
        add("Accept", "*/*")
        headers.append(("Connection", "close"))
        // A header of a manifest must not become two.
        let clean: (String) -> String = { String($0.unicodeScalars.filter { $0.value >= 32 && $0.value != 127 }) }
        let lines = headers.map { "\(clean($0.name)): \(clean($0.value))\r\n" }.joined()
        let request = "GET \(clean(path).replacing(" ", with: "%20")) HTTP/1.1\r\n\(lines)\r\n"
        return await exchange(
            host: host, port: port, isTLS: action.scheme == "HTTPS", Array(request.utf8),
            timeoutMilliseconds: timeoutMilliseconds
        ) { answer, _ in
            guard let end = answer.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
            let words = String(decoding: answer[..<end], as: UTF8.self).split(whereSeparator: \.isWhitespace)
            guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]) else {
                return .failure("the answer is not HTTP/1")
            }
            return (200..<400).contains(status) ? .success : .failure("HTTP probe failed with statuscode: \(status)")
        }
    }

    func tcpSocket(host: String?, port: UInt16, timeoutMilliseconds: Int) async -> ProbeResult {
        await exchange(
            host: host ?? "\(podAddress)", port: port, isTLS: false, [], timeoutMilliseconds: timeoutMilliseconds
        ) { _, _ in .success }
    }

    func grpc(service: String, port: UInt16, timeoutMilliseconds: Int) async -> ProbeResult {
        let state = GRPCProgress()
        let request = GRPCHealth.request(service: service, authority: "\(podAddress):\(port)")
        return await exchange(
            host: "\(podAddress)", port: port, isTLS: false, request, timeoutMilliseconds: timeoutMilliseconds
        ) { answer, _ in
            switch state.receive(answer) {
            case .serving: return .success
            case .failed(let problem): return .failure(problem)
            case nil: return nil
            }
        }
    }

    /// Connects, sends, and asks `verdict` after each arrival, and once after connecting when nothing is sent.
    private func exchange(
        host: String, port: UInt16, isTLS: Bool, _ request: [UInt8], timeoutMilliseconds: Int,
        verdict: @escaping @Sendable (_ answer: [UInt8], _ hasEnded: Bool) -> ProbeResult?
    ) async -> ProbeResult {
        let timeout = TimeAmount.milliseconds(Int64(timeoutMilliseconds))
        let loop = ProbeClient.group.next()
        let promise = loop.makePromise(of: ProbeResult.self)
        let deadline = loop.scheduleTask(in: timeout) {
            promise.succeed(.failure("no answer in \(timeoutMilliseconds) ms"))
        }
        let context: NIOSSLContext?
        do {
            context = try isTLS ? NIOSSLContext(configuration: ProbeClient.tls) : nil
        } catch {
            context = nil
            promise.succeed(.failure("TLS: \(error)"))
        }
        ClientBootstrap(group: loop).connectTimeout(timeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let context {
                        try channel.pipeline.syncOperations.addHandler(
                            NIOSSLClientHandler(context: context, serverHostname: nil))
                    }
                    try channel.pipeline.syncOperations.addHandler(
                        ProbeHandler(
                            request: request, limit: ProbeClient.answerLimit, verdict: verdict, promise: promise))
                }
            }
            .connect(host: host, port: Int(port))
            .whenFailure { promise.succeed(.failure("connection to \(host):\(port) failed: \(ProbeClient.text($0))")) }
        let result = try? await promise.futureResult.get()
        deadline.cancel()
        return result ?? .failure("no result")
    }

    private static func text(_ error: any Error) -> String {
        if let connection = error as? NIOConnectionError, let first = connection.connectionErrors.first {
            return "\(first.error)"
        }
        return "\(error)"
    }

    /// A probe asks whether something answers, not who.
    private static let tls: TLSConfiguration = {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.certificateVerification = .none
        return configuration
    }()
}

/// How far the answer of a gRPC probe has been read.
private final class GRPCProgress: Sendable {
    private let state = Mutex((health: GRPCHealth(), taken: 0))

    func receive(_ answer: [UInt8]) -> GRPCHealth.Verdict? {
        state.withLock { state in
            defer { state.taken = answer.count }
            return state.health.receive(answer[min(state.taken, answer.count)...])
        }
    }
}

private final class ProbeHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let request: [UInt8]
    private let limit: Int
    private let verdict: @Sendable ([UInt8], Bool) -> ProbeResult?
    private let promise: EventLoopPromise<ProbeResult>
    private var answer: [UInt8] = []

    init(
        request: [UInt8], limit: Int, verdict: @escaping @Sendable ([UInt8], Bool) -> ProbeResult?,
        promise: EventLoopPromise<ProbeResult>
    ) {
        self.request = request
        self.limit = limit
        self.verdict = verdict
        self.promise = promise
    }

    func handlerAdded(context: ChannelHandlerContext) {
        // The result may be the deadline's; the connection goes then too.
        let channel = context.channel
        promise.futureResult.whenComplete { _ in channel.close(promise: nil) }
    }

    func channelActive(context: ChannelHandlerContext) {
        if request.isEmpty { return conclude(hasEnded: false) }
        context.writeAndFlush(wrapOutboundOut(context.channel.allocator.buffer(bytes: request)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        answer += Array(unwrapInboundIn(data).readableBytesView.prefix(limit - answer.count))
        conclude(hasEnded: answer.count >= limit)
    }

    func channelInactive(context: ChannelHandlerContext) { conclude(hasEnded: true) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { promise.succeed(.failure("\(error)")) }

    private func conclude(hasEnded: Bool) {
        if let result = verdict(answer, hasEnded) {
            promise.succeed(result)
        } else if hasEnded {
            promise.succeed(.failure("the connection ended without a full answer"))
        }
    }
}
