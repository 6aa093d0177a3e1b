import Foundation
import MeshKubernetes
import MeshLocal
import Testing

/// Inside a namespace of the test's own; `NamespaceTests` runs them there.
@Suite(.serialized, .enabled(if: TestNamespace.isInside), .timeLimit(.minutes(3)))
struct DNSBehaviour {
    private static let server = "10.197.0.1"
    private let a: UInt16 = 1
    private let aaaa: UInt16 = 28
    private let srv: UInt16 = 33

    @Test func servicesHaveTheNamesThatTheSpecificationGivesThem() async throws {
        try await PodMachine.with { machine in
            try await machine.create(
                "one", "exec sleep 1000",
                spec: ["hostname": "first", "subdomain": "headless"])
            try await machine.waitRunning("one")
            let ports: JSONValue = [["name": "http", "port": 80, "targetPort": 8080]]
            let selector: JSONValue = ["app": "one"]
            try await create(machine, "plain", ["selector": selector, "ports": ports])
            try await create(machine, "headless", ["clusterIP": "None", "selector": selector, "ports": ports])
            try await create(
                machine, "elsewhere", ["type": "ExternalName", "externalName": "plain.default.svc.cluster.local"])
            let plain: Kubernetes.Service = try await machine.api.get(.service, namespace: "default", name: "plain")
                .view()
            let address = try #require(plain.spec.clusterIP)
            let pod = try await machine.pod("one").status.podIP

            try await expect("plain.default.svc.cluster.local", a, [address])
            try await expect("PLAIN.Default.svc.cluster.LOCAL", a, [address])
            try await expect("headless.default.svc.cluster.local", a, [pod])
            try await expect("first.headless.default.svc.cluster.local", a, [pod])
            try await expect("elsewhere.default.svc.cluster.local", a, [address], count: 2)
            let dashed = pod.replacing(".", with: "-")
            try await expect("\(dashed).default.pod.cluster.local", a, [pod])

            let missing = try DNSClient.ask(Self.server, "nothing.default.svc.cluster.local", a)
            #expect(missing.code == 3)
            #expect(missing.authorities == 1, "with the SOA record that says how long this may be remembered")
            let other = try DNSClient.ask(Self.server, "plain.default.svc.cluster.local", aaaa)
            #expect(other.code == 0)
            #expect(other.answers == 0)
            let service = try DNSClient.ask(Self.server, "_http._tcp.plain.default.svc.cluster.local", srv)
            #expect(service.answers == 1)
            #expect(service.addresses == [address], "the target's address comes along")
            let overTCP = try DNSClient.ask(Self.server, "plain.default.svc.cluster.local", a, overTCP: true)
            #expect(overTCP.addresses == [address])
        }
    }

    @Test func aLongAnswerIsCutOverUDPAndWholeOverTCP() async throws {
        try await PodMachine.with { machine in
            try await create(machine, "many", ["clusterIP": "None", "ports": [["name": "http", "port": 80]]])
            let endpoints = (1...80).map { JSONValue.object(["addresses": [.string("10.197.0.\($0 + 100)")]]) }
            _ = try await machine.api.create(
                .endpointSlice,
                KubernetesObject([
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": [
                        "name": "many-1", "namespace": "default", "labels": ["kubernetes.io/service-name": "many"],
                    ],
                    "addressType": "IPv4", "endpoints": .array(endpoints), "ports": [["name": "http", "port": 80]],
                ]))
            let name = "many.default.svc.cluster.local"
            let deadline = ContinuousClock.now.advanced(by: .seconds(10))
            while try DNSClient.ask(Self.server, name, a, overTCP: true).answers != 80, ContinuousClock.now < deadline {
                try await Task.sleep(for: .milliseconds(20))
            }
            let cut = try DNSClient.ask(Self.server, name, a)
            #expect(cut.isTruncated)
            #expect(cut.size <= 512)
            let whole = try DNSClient.ask(Self.server, name, a, overTCP: true)
            #expect(!whole.isTruncated)
            #expect(whole.addresses.count == 80)
        }
    }

    private func create(_ machine: PodMachine, _ name: String, _ spec: JSONValue) async throws {
        _ = try await machine.api.create(
            .service,
            KubernetesObject([
                "apiVersion": "v1", "kind": "Service",
                "metadata": ["name": .string(name), "namespace": "default"], "spec": spec,
            ]))
    }

    /// The server follows a watch, so an answer may be a moment behind the API.
    private func expect(
        _ name: String, _ type: UInt16, _ addresses: [String], count: Int? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let deadline = ContinuousClock.now.advanced(by: .seconds(10))
        while true {
            let answer = try DNSClient.ask(Self.server, name, type)
            if answer.addresses == addresses, count == nil || answer.answers == count { return }
            if ContinuousClock.now >= deadline {
                Issue.record("\(name): \(answer)", sourceLocation: sourceLocation)
                return
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}

/// Asks a name server one question and reads what a test needs of the answer.
struct DNSClient {
    struct Answer {
        var code: UInt8 = 0
        var isTruncated = false
        var answers = 0
        var authorities = 0
        /// Of every A record, in any section.
        var addresses: [String] = []
        var size = 0
    }

    static func ask(_ server: String, _ name: String, _ type: UInt16, overTCP: Bool = false) throws -> Answer {
        var query: [UInt8] = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
        for label in name.split(separator: ".") { query += [UInt8(label.utf8.count)] + Array(label.utf8) }
        query += [0, UInt8(type >> 8), UInt8(truncatingIfNeeded: type), 0, 1]
        let script = """
            import socket,sys
            m=bytes.fromhex(sys.argv[2])
            if sys.argv[3]=='tcp':
                s=socket.create_connection((sys.argv[1],53),5);s.sendall(len(m).to_bytes(2,'big')+m)
                f=s.makefile('rb');r=f.read(int.from_bytes(f.read(2),'big'))
            else:
                s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.settimeout(5);s.sendto(m,(sys.argv[1],53));r=s.recv(65535)
            print(r.hex())
            """
        let hex = query.map { String(UInt16($0) + 0x100, radix: 16).dropFirst() }.joined()
        let output = try TestTools.run("python3", ["-c", script, server, hex, overTCP ? "tcp" : "udp"]).output
        return read(bytes(output.trimmingCharacters(in: .whitespacesAndNewlines)))
    }

    private static func bytes(_ hex: String) -> [UInt8] {
        let digits = Array(hex.utf8)
        return stride(from: 0, to: digits.count - 1, by: 2).compactMap {
            UInt8(String(decoding: digits[$0...($0 + 1)], as: UTF8.self), radix: 16)
        }
    }

    private static func read(_ bytes: [UInt8]) -> Answer {
        var answer = Answer()
        guard bytes.count >= 12 else { return answer }
        answer.size = bytes.count
        answer.code = bytes[3] & 15
        answer.isTruncated = bytes[2] & 2 != 0
        var reader = DNSReader(bytes, at: 6)
        answer.answers = Int(reader.number() ?? 0)
        answer.authorities = Int(reader.number() ?? 0)
        let additional = Int(reader.number() ?? 0)
        guard reader.name() != nil, reader.skip(4) else { return answer }
        for _ in 0..<(answer.answers + answer.authorities + additional) {
            guard reader.name() != nil, let type = reader.number(), reader.skip(6), let length = reader.number(),
                let content = reader.take(Int(length))
            else { return answer }
            if type == 1 { answer.addresses.append(content.map { "\($0)" }.joined(separator: ".")) }
        }
        return answer
    }
}
