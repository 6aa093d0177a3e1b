import Foundation
import Glibc
import MeshAddress
import MeshCore
import MeshHTTP
import MeshIO
import MeshXDS
import Testing

/// Python with grpcio and protobuf: `APUS_PYTHON`, or the environment that `make test` makes.
private let python: String? = {
    if let path = ProcessInfo.processInfo.environment["APUS_PYTHON"] { return path }
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    let path = root.appendingPathComponent(".build/venv/bin/python").path
    return FileManager.default.isExecutableFile(atPath: path) ? path : nil
}()

@Suite(.enabled(if: python != nil, "needs Python with grpcio and protobuf: make test makes it, or set APUS_PYTHON"))
struct ForeignClientTests {
    /// Delta xDS as any client of the protocol would speak it: the messages are declared here, by Envoy's numbers.
    private static let client = """
        import grpc, queue, sys
        from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
        F = descriptor_pb2.FieldDescriptorProto
        file = descriptor_pb2.FileDescriptorProto(name='x.proto', package='x', syntax='proto3',
            dependency=['google/protobuf/any.proto'])
        def message(name, *fields):
            m = file.message_type.add(name=name)
            for field, number, kind, repeated in fields:
                f = m.field.add(name=field, number=number, label=F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL)
                if isinstance(kind, str): f.type, f.type_name = F.TYPE_MESSAGE, kind
                else: f.type = kind
            return m
        S, I = F.TYPE_STRING, F.TYPE_INT32
        message('Node', ('id', 1, S, False), ('user_agent_version', 7, S, False))
        message('Status', ('code', 1, I, False), ('message', 2, S, False))
        request = message('Request', ('node', 1, '.x.Node', False), ('type_url', 2, S, False), ('subscribe', 3, S, True),
            ('unsubscribe', 4, S, True), ('response_nonce', 6, S, False), ('error_detail', 7, '.x.Status', False))
        entry = request.nested_type.add(name='VersionsEntry')
        entry.options.map_entry = True
        for number, name in ((1, 'key'), (2, 'value')): entry.field.add(name=name, number=number, type=S, label=F.LABEL_OPTIONAL)
        request.field.add(name='versions', number=5, type=F.TYPE_MESSAGE, type_name='.x.Request.VersionsEntry',
            label=F.LABEL_REPEATED)
        message('Resource', ('version', 1, S, False), ('resource', 2, '.google.protobuf.Any', False), ('name', 3, S, False))
        message('Response', ('system_version', 1, S, False), ('resources', 2, '.x.Resource', True), ('type_url', 4, S, False),
            ('nonce', 5, S, False), ('removed', 6, S, True))
        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
        pool.Add(file)
        types = {n: message_factory.GetMessageClass(pool.FindMessageTypeByName('x.' + n)) for n in ('Request', 'Response')}
        Request, Response = types['Request'], types['Response']

        channel = grpc.insecure_channel('127.0.0.1:' + sys.argv[1])
        method = channel.stream_stream('/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources',
            request_serializer=lambda m: m.SerializeToString(), response_deserializer=Response.FromString)
        prefix = 'type.googleapis.com/apus.v1.'

        class Stream:
            def __init__(self):
                self.requests = queue.Queue()
                self.responses = method(iter(self.requests.get, None), timeout=30)
            def send(self, **fields): self.requests.put(Request(**fields))
            def next(self, ack=True):
                response = next(self.responses)
                if ack: self.send(type_url=response.type_url, response_nonce=response.nonce)
                return response
            def close(self):
                self.requests.put(None)
                list(self.responses)

        stream = Stream()
        stream.send(node=dict(id='shop/client', user_agent_version='python'), type_url=prefix + 'Destination',
            subscribe=['10.0.96.1:80', '10.9.9.9:1'])
        known = {}
        for kind, count in (('Service', 1), ('Endpoint', 3), ('Destination', 2)):
            response = stream.next()
            assert response.type_url == prefix + kind, response.type_url
            assert len(response.resources) == count, response
            for r in response.resources:
                assert r.resource.type_url == response.type_url and r.version
                known.setdefault(kind, {})[r.name] = r.version
            assert list(response.removed) == (['shop/web/*'] if kind == 'Endpoint' else []), response.removed
        assert set(known['Destination']) == {'10.0.96.1:80', '10.9.9.9:1'}
        print('subscribed', flush=True)
        response = stream.next()
        assert list(response.removed) == ['shop/web/10.0.1.1'] and not response.resources, response
        del known['Endpoint']['shop/web/10.0.1.1']
        print('removed', flush=True)
        # A refusal is kept and the same version is not sent again.
        response = stream.next(ack=False)
        assert [r.name for r in response.resources] == ['shop/web'], response
        known['Service']['shop/web'] = response.resources[0].version
        stream.send(type_url=response.type_url, response_nonce=response.nonce, error_detail=dict(code=3, message='not mine'))
        print('refused', flush=True)
        stream.close()
        # A new stream that holds all but one endpoint is sent that one, and told what vanished.
        held = dict(known['Endpoint'])
        del held['shop/web/10.0.1.2']
        held['shop/web/10.0.1.77'] = 'old'
        stream = Stream()
        stream.send(node=dict(id='shop/client'), type_url=prefix + 'Service', versions=known['Service'])
        stream.send(type_url=prefix + 'Endpoint', versions=held)
        stream.send(type_url=prefix + 'Destination', subscribe=list(known['Destination']), versions=known['Destination'])
        response = stream.next()
        assert [r.name for r in response.resources] == ['shop/web/10.0.1.2'], response
        assert list(response.removed) == ['shop/web/10.0.1.77'], response
        stream.close()
        # Another pod's configuration is not for this one.
        stream = Stream()
        stream.send(node=dict(id='shop/client'), type_url=prefix + 'Self', subscribe=['shop/other'])
        try: stream.next()
        except grpc.RpcError as error: assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
        else: assert False
        print('all well', flush=True)
        """

    @Test func aClientOfAnotherHandSpeaksDeltaXDSWithTheServer() async throws {
        let rig = try XDSRig()
        let statuses = Watched<[DiscoverySubscriberStatus]>([])
        let control = try await rig.make { TestControl($0, shopSource(endpoints: 3), statuses: statuses) }
        let address = try await rig.run { _ in try control.value.listen() }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(python))
        process.arguments = ["-c", ForeignClientTests.client, "\(address.port)"]
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = Watched("")
        let reader = Task.detached {
            while true {
                let data = pipe.fileHandleForReading.availableData
                if data.isEmpty { return }
                output.change { $0 += String(decoding: data, as: UTF8.self) }
            }
        }
        // Not SIGTERM: a child may have inherited it blocked.
        defer { kill(process.processIdentifier, SIGKILL) }
        let web = ObjectName("web")
        try await output.wait("the subscription") { $0.contains("subscribed") || $0.contains("Error") }
        try await rig.run { _ in
            control.value.source.endpoints[web]?[ip(1, net: 1)] = nil
            control.value.discovery.endpointRemoved(service: web, address: ip(1, net: 1), arrivedNanoseconds: 1)
        }
        try await output.wait("the removal") { $0.contains("removed\n") || $0.contains("Error") }
        try await rig.run { _ in
            control.value.source.services[web]?.retry.count = 1
            control.value.discovery.serviceChanged(web, arrivedNanoseconds: 1)
        }
        try await output.wait("the end") { $0.contains("all well") || $0.contains("Error") }
        #expect(output.value.contains("all well"), "\(output.value)")
        let refused = statuses.value.compactMap(\.refusals.first)
        #expect(refused.first == ResourceRefusal(type: "Service", name: "", version: "", reason: "not mine"))
        reader.cancel()
    }
}
