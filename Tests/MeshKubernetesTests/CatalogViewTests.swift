import MeshAddress
import MeshCore
import MeshKubernetes
import Testing

@Suite struct CatalogViewTests {
    @Test(arguments: [
        ("ReplicaSet", "web-6d4b75cb6d", "web"), ("ReplicaSet", "web-other", "web-other"),
        ("ReplicaSet", "6d4b75cb6d", "6d4b75cb6d"),
        ("StatefulSet", "db", "db"), ("DaemonSet", "agent", "agent"), ("Job", "report", "report"),
        ("Job", "report-29012345", "report"),
        ("Job", "report-2024", "report-2024"), ("Job", "-29012345", "-29012345"), ("Widget", "w", "w"),
    ])
    func theOwnerIsTheNameThatStays(kind: String, name: String, expected: String) throws {
        let metadata: JSONValue = [
            "name": "p", "labels": ["pod-template-hash": "6d4b75cb6d"],
            "ownerReferences": [
                ["kind": "Other", "name": "x"], ["kind": .string(kind), "name": .string(name), "controller": true],
            ],
        ]
        #expect(PodView.owner(try metadata.decoded()) == expected)
    }

    @Test func aPodWithoutAControllerIsItsOwnOwner() throws {
        #expect(PodView.owner(try JSONValue.object(["name": "p"]).decoded()) == "p")
        #expect(PodView.owner(try JSONValue.object(["generateName": "p-"]).decoded()) == "p")
    }

    @Test(
        arguments: [
            [:], ["metadata": 1], ["metadata": ["name": ""]], ["metadata": ["name": "a", "labels": []]],
            ["metadata": ["name": "a"], "spec": ["containers": 5], "addressType": 1],
        ] as [JSONValue])
    func aMalformedDocumentIsLeftOut(document: JSONValue) {
        let object = KubernetesObject(document)
        #expect(PodView(object) == nil)
        #expect(EndpointSliceView(object) == nil)
    }

    @Test func hugeNumbersAreNoPorts() throws {
        let json: JSONValue = [
            "metadata": ["name": "a", "namespace": "b"],
            "spec": [
                "clusterIPs": ["10.96.0.1", "fd00::1", "x"],
                "ports": [
                    ["port": 70000], ["port": -1], ["port": 0], ["port": 80, "name": "tcp-a"],
                    ["port": 53, "protocol": "UDP"],
                ],
            ],
        ]
        let view = try #require(ServiceView(KubernetesObject(json)))
        #expect(view.service.ports == [ServicePort(port: 80, name: "tcp-a", declaredProtocol: .opaque)])
        #expect(view.service.addresses == [IPAddress("10.96.0.1"), IPAddress("fd00::1")].compactMap(\.self))
    }

    @Test func whatIsOnlyAnotherNameIsNoService() {
        let json: JSONValue = [
            "metadata": ["name": "a"], "spec": ["type": "ExternalName", "externalName": "example.com"],
        ]
        #expect(ServiceView(KubernetesObject(json)) == nil)
    }

    @Test func annotationsOfAServiceAreTaken() {
        var service = Service(name: ObjectName(namespace: "shop", name: "web"))
        let problems = ServiceAnnotations.apply(
            [
                "apus.dev/retry-count": "3", "apus.dev/retry-statuses": "502, 503", "apus.dev/retry-timeout-ms": "250",
                "apus.dev/retry-grpc-statuses": "unavailable, resource-exhausted",
                "apus.dev/request-timeout-ms": "2000", "apus.dev/connect-timeout-ms": "100",
                "apus.dev/load-balancing": "round-robin", "apus.dev/request-body-limit-bytes": "1048576",
                "example.com/other": "x",
            ], to: &service)
        #expect(problems.isEmpty)
        #expect(
            service.retry
                == RetryPolicy(
                    count: 3, statuses: [502, 503], grpcStatuses: [8, 14], perTryTimeoutMilliseconds: 250))
        #expect(service.requestTimeoutMilliseconds == 2000)
        #expect(service.connectTimeoutMilliseconds == 100)
        #expect(service.requestBodyLimitBytes == 1_048_576)
        #expect(service.loadBalancing == .roundRobin)
    }

    @Test(arguments: [
        ("apus.dev/retry-count", "11", "a whole number from 0 to 10"), ("apus.dev/retry-count", "-1", "from 0 to 10"),
        ("apus.dev/retry-count", "", "from 0 to 10"), ("apus.dev/retry-count", "99999999999999999999", "from 0 to 10"),
        ("apus.dev/retry-statuses", "200", "from 400 to 599"), ("apus.dev/retry-statuses", "503,", "from 400 to 599"),
        ("apus.dev/retry-grpc-statuses", "unavailable,ok", "some of cancelled"),
        ("apus.dev/load-balancing", "fast", "peak-ewma, round-robin or random"),
        ("apus.dev/connect-timeout-ms", "0", "from 1 to 60000"),
        ("apus.dev/request-body-limit-bytes", "1Mi", "a whole number from 0 to"),
        ("apus.dev/retries", "1", "no such annotation on a Service"),
    ])
    func anAnnotationThatCannotBeUsedIsToldAndLeftOut(name: String, value: String, expected: String) {
        var service = Service(name: ObjectName(namespace: "shop", name: "web"))
        let before = service
        let problems = ServiceAnnotations.apply([name: value], to: &service)
        #expect(service == before)
        #expect(problems.count == 1)
        #expect(problems.first?.description.hasPrefix("\(name) is '\(value)', expected ") == true)
        #expect(problems.first?.expected.contains(expected) == true)
    }

    @Test func settingsAreReadAndBadOnesAreLeftAsTheyWere() {
        var reader = SettingsReader(initial: MeshSettings())
        #expect(
            reader.set(data: [
                "plaintext": "permissive", "unknown-destinations": "deny", "trust-domain": "cluster.local",
            ]).isEmpty)
        #expect(reader.settings.plaintext == .permissive)
        #expect(reader.settings.unknownDestinations == .deny)
        let problems = reader.set(data: ["plaintext": "maybe", "unknown-destinations": "deny", "trust-domain": "other"])
        #expect(problems.map(\.name) == ["plaintext", "trust-domain"])
        #expect(reader.settings.plaintext == .permissive)
        #expect(reader.set(namespace: "shop", plaintext: "strict").isEmpty)
        #expect(reader.set(namespace: "shop", plaintext: "x").count == 1)
        #expect(reader.settings.plaintext(in: "shop") == .strict)
        #expect(reader.set(data: nil).isEmpty)
        #expect(reader.settings.plaintext == .strict)
        #expect(reader.set(namespace: "shop", plaintext: nil).isEmpty)
        #expect(reader.settings.plaintextByNamespace.isEmpty)
    }

    @Test(arguments: [("", []), ("80", [80]), (" 80, 443 ,80", [80, 443])] as [(String, [UInt16])])
    func aListOfPortsIsRead(text: String, ports: [UInt16]) throws {
        #expect(try PortList.parse(text, annotation: "x") == ports)
    }

    @Test(arguments: [
        "0", "65536", "80,", ",", "a", "80 443x", "-1", "+80", (1...65).map { "\($0)" }.joined(separator: ","),
    ])
    func aListThatIsNoneIsRefused(text: String) {
        #expect(throws: AnnotationProblem.self) { try PortList.parse(text, annotation: "x") }
    }
}
