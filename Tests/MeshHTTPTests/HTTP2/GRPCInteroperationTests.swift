import Foundation
import MeshAddress
import MeshHTTP
import MeshIO
import Testing

/// Python with grpcio: `APUS_PYTHON`, or the environment that `make test` makes.
enum Python {
    static let path: String? = {
        if let path = ProcessInfo.processInfo.environment["APUS_PYTHON"] { return path }
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let path = root.appendingPathComponent(".build/venv/bin/python").path
        return FileManager.default.isExecutableFile(atPath: path) ? path : nil
    }()

    /// Starts a script; its output is a pipe, its errors are the test's.
    static func start(_ script: String, _ arguments: [String]) throws -> (Process, FileHandle) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(path))
        process.arguments = ["-c", script] + arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        return (process, output.fileHandleForReading)
    }

    /// Not SIGTERM: a child may have inherited it blocked.
    static func kill(_ process: Process) {
        Glibc.kill(process.processIdentifier, SIGKILL)
    }

    /// Runs a script to its end, 60 s at most, and returns what it printed.
    static func run(_ script: String, _ arguments: [String]) async throws -> String {
        let (process, output) = try start(script, arguments)
        let watchdog = Task {
            try await Task.sleep(for: .seconds(60))
            Python.kill(process)
        }
        defer { watchdog.cancel() }
        let text = await Task.detached { String(decoding: output.readDataToEndOfFile(), as: UTF8.self) }.value
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(text)")
        return text
    }
}

/// Answers each message with the same.
private final class EchoHandler: GRPCServerHandler {
    private var waiting: [[UInt8]] = []
    private var isEnded = false

    func received(_ message: UnsafeRawBufferPointer, on call: GRPCServerCall) {
        waiting.append([UInt8](message))
        pump(call)
    }

    func receivedEnd(on call: GRPCServerCall) {
        isEnded = true
        pump(call)
    }

    func writable(_ call: GRPCServerCall) { pump(call) }

    func closed(_ call: GRPCServerCall) {}

    private func pump(_ call: GRPCServerCall) {
        while !waiting.isEmpty, call.isWritable { call.send(waiting.removeFirst()) }
        if isEnded, waiting.isEmpty { call.finish(.ok) }
    }
}

/// Sends so many messages of 100,000 bytes for each one received, no faster than the client takes them.
private final class FountainHandler: GRPCServerHandler {
    private var left = 0
    private var isStarted = false
    private let largestUnsent: Log<Int>

    init(_ largestUnsent: Log<Int>) { self.largestUnsent = largestUnsent }

    func received(_ message: UnsafeRawBufferPointer, on call: GRPCServerCall) {
        left += 200
        isStarted = true
        pump(call)
    }

    func receivedEnd(on call: GRPCServerCall) {}
    func writable(_ call: GRPCServerCall) { pump(call) }
    func closed(_ call: GRPCServerCall) {}

    private func pump(_ call: GRPCServerCall) {
        while left > 0, call.isWritable {
            left -= 1
            call.send([UInt8](repeating: 7, count: 100_000))
            largestUnsent.append(call.unsentBytes)
        }
        if isStarted, left == 0 { call.finish(.ok) }
    }
}

/// Collects what a call of ours was told.
final class LoggedCall: GRPCClientCallDelegate {
    struct Result: Sendable {
        var messages: [[UInt8]] = []
        var status: GRPCStatus?
    }

    private let log: Log<Result>
    private var result = Result()

    init(_ log: Log<Result>) { self.log = log }

    func received(_ message: UnsafeRawBufferPointer, on call: GRPCClientCall) {
        result.messages.append([UInt8](message))
    }
    func writable(_ call: GRPCClientCall) {}

    func closed(_ call: GRPCClientCall, _ status: GRPCStatus) {
        result.status = status
        log.append(result)
    }
}

@Suite(.enabled(if: Python.path != nil, "needs Python with grpcio: make test makes it, or set APUS_PYTHON"))
struct GRPCInteroperationTests {
    private static let client = """
        import grpc, sys, time
        channel = grpc.insecure_channel('127.0.0.1:' + sys.argv[1], options=[
            ('grpc.max_receive_message_length', 1 << 23), ('grpc.max_send_message_length', 1 << 23)])
        same = lambda b: b
        def unary(name): return channel.unary_unary('/t.S/' + name, request_serializer=same, response_deserializer=same)
        def stream(name): return channel.stream_stream('/t.S/' + name, request_serializer=same, response_deserializer=same)
        def fails(code, call, details=None):
            try: call()
            except grpc.RpcError as error:
                assert error.code() == code, (error.code(), error.details())
                assert details is None or error.details() == details, error.details()
            else: assert False, 'no error'
        C = grpc.StatusCode
        upper = unary('Upper')
        assert upper(b'HELLO') == b'hello'
        assert upper(b'A' * 4000000) == b'a' * 4000000
        fails(C.RESOURCE_EXHAUSTED, lambda: upper(b'A' * (4 * 1024 * 1024 + 1)))
        fails(C.INVALID_ARGUMENT, lambda: upper(b''), 'leer: 100 % ü')
        fails(C.UNIMPLEMENTED, lambda: unary('None')(b'x'))
        fails(C.UNIMPLEMENTED, lambda: upper(b'a' * 100, compression=grpc.Compression.Gzip))
        sent = [bytes([i % 256]) * (i * 37) for i in range(1000)]
        assert list(stream('Echo')(iter(sent))) == sent
        assert list(stream('Echo')(iter([]))) == []
        count = 0
        for message in stream('Fountain')(iter([b'x'])):
            count += len(message)
            if count < 1000000: time.sleep(0.02)
        assert count == 200 * 100000, count
        def slow():
            time.sleep(2)
            yield b'x'
        fails(C.DEADLINE_EXCEEDED, lambda: list(stream('Echo')(slow(), timeout=0.2)))
        # A call given up by its client leaves the connection usable.
        call = stream('Echo')(slow())
        call.cancel()
        assert upper(b'HELLO') == b'hello'
        print('all well')
        """

    @Test func aGRPCClientOfAnotherHandUnderstandsOurServer() async throws {
        let rig = try HTTP2Rig()
        let unsent = Log<Int>()
        let failures = Log<String>()
        let port = try await rig.run { loop in
            let server = GRPCServer(loop: loop, tls: nil)
            server.connectionFailed = { failures.append($0) }
            server.register("/t.S/Upper") { _ in
                GRPCUnaryHandler { request, _, reply in
                    reply(
                        request.isEmpty
                            ? .failure(GRPCStatus(.invalidArgument, "leer: 100 % ü"))
                            : .success(request.map { $0 ^ 32 }))
                }
            }
            server.register("/t.S/Echo") { _ in EchoHandler() }
            server.register("/t.S/Fountain") { _ in FountainHandler(unsent) }
            return try Listener(loop: loop, address: SocketAddress(.loopback4, 0), delegate: server).address.port
        }
        let output = try await Python.run(GRPCInteroperationTests.client, ["\(port)"])
        #expect(output.contains("all well"), "\(output)")
        #expect(failures.all == [])
        // Backpressure: a message may go over the mark, a second one never.
        #expect(unsent.all.count == 200 && unsent.all.allSatisfy { $0 < HTTP2Limits().streamHighWaterBytes + 200_000 })
    }

    private static let server = """
        import grpc, sys, threading, time
        from concurrent import futures
        same = lambda b: b
        def upper(request, context):
            if request == b'': context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'leer: 100 % \\u00fc')
            if request == b'slow': time.sleep(5)
            return request.upper()
        def echo(requests, context):
            for request in requests: yield request
        def total(requests, context): return str(sum(len(r) for r in requests)).encode()
        def count(request, context):
            for i in range(int(request)): yield b'm' * i
        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                kinds = {'/t.S/Upper': grpc.unary_unary_rpc_method_handler(upper),
                    '/t.S/Echo': grpc.stream_stream_rpc_method_handler(echo),
                    '/t.S/Total': grpc.stream_unary_rpc_method_handler(total),
                    '/t.S/Count': grpc.unary_stream_rpc_method_handler(count)}
                return kinds.get(details.method)
        server = grpc.server(futures.ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers((Handler(),))
        print(server.add_insecure_port('127.0.0.1:0'), flush=True)
        server.start()
        server.wait_for_termination()
        """

    private func call(
        _ rig: HTTP2Rig, _ session: LoopBound<HTTP2Session>, _ method: String, _ messages: [[UInt8]],
        timeoutMilliseconds: Int? = nil
    ) async throws -> LoggedCall.Result {
        let log = Log<LoggedCall.Result>()
        try await rig.run { _ in
            let call = GRPCClientCall(
                on: session.value, path: "/t.S/" + method, authority: "test", scheme: "http",
                timeoutMilliseconds: timeoutMilliseconds, delegate: LoggedCall(log))
            guard let call else { throw RigFailure("the call of \(method) was not taken") }
            for message in messages { call.send(message) }
            call.finishSending()
        }
        return try await log.wait(method) { $0.count == 1 }[0]
    }

    @Test func ourClientUnderstandsAGRPCServerOfAnotherHand() async throws {
        let (process, output) = try Python.start(GRPCInteroperationTests.server, [])
        defer {
            Python.kill(process)
            process.waitUntilExit()
        }
        let line = String(decoding: output.availableData, as: UTF8.self)
        let port = try #require(UInt16(line.trimmingCharacters(in: .whitespacesAndNewlines)), "\(line)")
        let rig = try HTTP2Rig()
        let events = Log<String>()
        let session = try await rig.make { loop in
            HTTP2Session(connectingTo: SocketAddress(.loopback4, port), loop: loop, delegate: LoggedClient(events))
        }
        let unary = try await call(rig, session, "Upper", [Array("hello".utf8)])
        #expect(unary.status == .ok && unary.messages == [Array("HELLO".utf8)])
        let failed = try await call(rig, session, "Upper", [[]])
        #expect(failed.status == GRPCStatus(.failedPrecondition, "leer: 100 % ü") && failed.messages == [])
        #expect(try await call(rig, session, "None", [[1]]).status?.code == .unimplemented)
        let late = try await call(rig, session, "Upper", [Array("slow".utf8)], timeoutMilliseconds: 200)
        #expect(late.status?.code == .deadlineExceeded)
        let sent = (0..<500).map { [UInt8](repeating: UInt8($0 & 255), count: $0 * 97) }
        let echoed = try await call(rig, session, "Echo", sent)
        #expect(echoed.status == .ok && echoed.messages == sent)
        let total = try await call(rig, session, "Total", sent)
        #expect(total.messages == [Array("\(sent.reduce(0) { $0 + $1.count })".utf8)])
        let counted = try await call(rig, session, "Count", [Array("300".utf8)])
        #expect(counted.status == .ok && counted.messages.map(\.count) == Array(0..<300))
        let large = [UInt8](repeating: 65, count: 4_000_000)
        #expect(try await call(rig, session, "Echo", [large]).messages == [large])
        #expect(events.all == ["opened"])
    }
}
