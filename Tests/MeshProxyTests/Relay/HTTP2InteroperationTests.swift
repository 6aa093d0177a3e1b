import Foundation
import MeshAddress
import MeshCore
import MeshProxy
import Testing

/// gRPC and HTTP/2 programs of other hands, through one sidecar and through a pair.
@Suite(.enabled(if: ForeignProgram.python != nil, "needs Python with grpcio: make test makes it, or set APUS_PYTHON"))
struct HTTP2InteroperationTests {
    private static let server = """
        import grpc, time
        from concurrent import futures
        same = lambda b: b
        def upper(request, context):
            metadata = dict(context.invocation_metadata())
            assert metadata.get('traceparent', '') != ''
            if request.startswith(b'fail'):
                context.set_trailing_metadata((('x-why', 'asked'), ('why-bin', b'\\x00\\xff')))
                context.abort([c for c in grpc.StatusCode if c.value[0] == int(request[4:])][0], 'asked: 100 % \\u00fc')
            if request.startswith(b'sleep'): time.sleep(float(request[5:]))
            context.send_initial_metadata((('x-first', metadata.get('x-first', '')),))
            context.set_trailing_metadata((('last-bin', metadata.get('key-bin', b'')),))
            return request.upper()
        def echo(requests, context):
            for request in requests: yield request
        def total(requests, context): return str(sum(len(r) for r in requests)).encode()
        def count(request, context):
            number, size = map(int, request.split())
            for i in range(number): yield b'm' * size
        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                kinds = {'/t.S/Upper': grpc.unary_unary_rpc_method_handler(upper),
                    '/t.S/Echo': grpc.stream_stream_rpc_method_handler(echo),
                    '/t.S/Total': grpc.stream_unary_rpc_method_handler(total),
                    '/t.S/Count': grpc.unary_stream_rpc_method_handler(count)}
                return kinds.get(details.method)
        server = grpc.server(futures.ThreadPoolExecutor(64), options=[
            ('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1)])
        server.add_generic_rpc_handlers((Handler(),))
        print(server.add_insecure_port('127.0.0.1:0'), flush=True)
        server.start()
        server.wait_for_termination()
        """

    private static let client = """
        import grpc, sys, time
        channel = grpc.insecure_channel('127.0.0.1:' + sys.argv[1], options=[
            ('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1)])
        upper = channel.unary_unary('/t.S/Upper')
        echo = channel.stream_stream('/t.S/Echo')
        def fails(code, call, details=None):
            try: call()
            except grpc.RpcError as error:
                assert error.code() == code, (error.code(), error.details())
                assert details is None or error.details() == details, error.details()
                return dict(error.trailing_metadata() or ())
            assert False, 'no error'
        C = grpc.StatusCode
        answer, call = upper.with_call(b'hello', metadata=(('x-first', 'one'), ('key-bin', b'\\x00\\x01\\xfe')))
        assert answer == b'HELLO'
        assert dict(call.initial_metadata())['x-first'] == 'one'
        assert dict(call.trailing_metadata())['last-bin'] == b'\\x00\\x01\\xfe'
        for code in (C.NOT_FOUND, C.INTERNAL, C.UNAVAILABLE, C.RESOURCE_EXHAUSTED):
            trailing = fails(code, lambda: upper(b'fail%d' % code.value[0]), 'asked: 100 % \\u00fc')
            assert trailing['x-why'] == 'asked' and trailing['why-bin'] == b'\\x00\\xff'
        fails(C.UNIMPLEMENTED, lambda: channel.unary_unary('/t.S/None')(b''))
        count = channel.unary_stream('/t.S/Count')
        assert sum(len(m) for m in count(b'1000 10000')) == 10000000
        assert sum(len(m) for m in count(b'5 5000000')) == 25000000
        total = channel.stream_unary('/t.S/Total')
        assert total(iter([b'a' * 1000] * 2000)) == b'2000000'
        assert total(iter([b'a' * 4000000] * 5)) == b'20000000'
        sent = [bytes([i % 256]) * (i * 37) for i in range(300)]
        assert list(echo(iter(sent))) == sent
        assert list(echo(iter([]))) == []
        def slow():
            for i in range(10):
                yield b'%d' % i
                time.sleep(0.02)
        started = time.time()
        first = next(iter(echo(slow())))
        assert first == b'0' and time.time() - started < 0.15, 'a message is passed on at once'
        fails(C.DEADLINE_EXCEEDED, lambda: upper(b'sleep2', timeout=0.3))
        future = upper.future(b'sleep2')
        time.sleep(0.05)
        future.cancel()
        assert future.cancelled()
        futures = [upper.future(b'n%d' % k) for k in range(500)]
        assert [f.result() for f in futures] == [b'N%d' % k for k in range(500)]
        futures = [upper.future(b'sleep0.1') for k in range(200)]
        assert all(f.result() == b'SLEEP0.1' for f in futures)
        print('all well')
        """

    @Test(arguments: [false, true])
    func aGRPCProgramNoticesNoSidecars(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try ForeignProgram.Server(Self.server)
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)], declared: .grpc)
            let output = try ForeignProgram.run(ForeignProgram.python, ["-c", Self.client, "\(mesh.entrance.port)"])
            #expect(output.contains("all well"))
            try mesh.becomesQuiet()
            #expect(mesh.outboundReport.counters.http2Violations + mesh.inboundReport.counters.http2Violations == 0)
        }
    }

    private static let h2Server = """
        import h2.config, h2.connection, h2.events, socket, threading
        def serve(client):
            connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            connection.initiate_connection()
            client.sendall(connection.data_to_send())
            bodies = {}
            while True:
                data = client.recv(65536)
                if not data: return
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived): bodies[event.stream_id] = 0
                    elif isinstance(event, h2.events.DataReceived):
                        bodies[event.stream_id] += len(event.data)
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        connection.send_headers(event.stream_id, [(':status', '200'), ('content-type', 'text/plain')])
                        connection.send_data(event.stream_id, b'got %d' % bodies.pop(event.stream_id), end_stream=True)
                client.sendall(connection.data_to_send())
        listener = socket.create_server(('127.0.0.1', 0))
        print(listener.getsockname()[1], flush=True)
        while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        """

    @Test(arguments: [false, true])
    func curlAndNghttpAndH2loadAreServed(_ isMeshed: Bool) async throws {
        try await onOwnThread {
            let server = try ForeignProgram.Server(Self.h2Server)
            let mesh = try TestMesh([.init(server: server.address, isMeshed: isMeshed)], declared: .http2)
            let url = "http://127.0.0.1:\(mesh.entrance.port)/"
            let file = FileManager.default.temporaryDirectory.appendingPathComponent("apus-body-\(UUID().uuidString)")
            try Data(repeating: 7, count: 3_000_000).write(to: file)
            defer { try? FileManager.default.removeItem(at: file) }
            let curl = try ForeignProgram.run(
                ForeignProgram.find("curl"),
                ["-sS", "--http2-prior-knowledge", "-w", " %{http_version}", "--data-binary", "@\(file.path)", url])
            #expect(curl == "got 3000000 2")
            let nghttp = try ForeignProgram.run(ForeignProgram.find("nghttp"), ["-d", file.path, url])
            #expect(nghttp.contains("got 3000000"))
            let load = try ForeignProgram.run(
                ForeignProgram.find("h2load"), ["-n", "2000", "-c", "8", "-m", "20", "-p", "h2c", url])
            #expect(load.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"))
            try mesh.becomesQuiet()
        }
    }
}
