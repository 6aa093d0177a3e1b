import MeshAddress
import MeshCore
import MeshKubernetes
import Testing

/// Documents of the API in, events of the catalog out, one change at a time.
@Suite final class CatalogReducerTests {
    private var reducer = CatalogReducer(trustDomain: "cluster.local")

    // MARK: - Documents

    static func service(
        _ name: String = "web", ports: [JSONValue] = [["name": "http", "port": 80, "targetPort": "http"]],
        clusterIP: JSONValue = "10.96.0.12", annotations: JSONValue = [:], publishNotReady: Bool = false
    ) throws -> CatalogReducer.Input {
        let json: JSONValue = [
            "metadata": ["name": .string(name), "namespace": "shop", "annotations": annotations, "uid": "s1"],
            "spec": [
                "clusterIP": clusterIP, "ports": .array(ports), "publishNotReadyAddresses": .bool(publishNotReady),
            ],
        ]
        return .service(try #require(ServiceView(KubernetesObject(json))))
    }

    static func endpoint(
        _ address: String, pod: String?, ready: Bool = true, serving: Bool = true, terminating: Bool = false,
        uid: String = ""
    ) -> JSONValue {
        var json: JSONValue = [
            "addresses": [.string(address)],
            "conditions": ["ready": .bool(ready), "serving": .bool(serving), "terminating": .bool(terminating)],
        ]
        if let pod {
            json["targetRef"] = ["kind": "Pod", "namespace": "shop", "name": .string(pod), "uid": .string(uid)]
        }
        return json
    }

    static func slice(
        named name: String = "web-1", service: String = "web", ports: [JSONValue] = [["name": "http", "port": 8080]],
        _ endpoints: JSONValue...
    ) throws -> CatalogReducer.Input {
        let json: JSONValue = [
            "metadata": [
                "name": .string(name), "namespace": "shop", "labels": ["kubernetes.io/service-name": .string(service)],
            ],
            "addressType": "IPv4", "ports": .array(ports), "endpoints": .array(endpoints),
        ]
        return .slice(try #require(EndpointSliceView(KubernetesObject(json))))
    }

    static func pod(
        _ name: String, _ address: String?, terminating: Bool = false, phase: String = "Running", uid: String = "u1",
        meshed: Bool = true, hostNetwork: Bool = false, portName: String = ""
    ) throws -> CatalogReducer.Input {
        var json: JSONValue = [
            "metadata": [
                "name": .string(name), "namespace": "shop", "uid": .string(uid),
                "labels": ["app": "web", "version": "v1", "pod-template-hash": "6d4b"],
                "ownerReferences": [["kind": "ReplicaSet", "name": "web-6d4b", "uid": "r1", "controller": true]],
            ],
            "spec": [
                "serviceAccountName": "web-sa", "nodeName": "n1", "hostNetwork": .bool(hostNetwork),
                "containers": [["name": "web", "ports": [["containerPort": 8080, "name": .string(portName)]]]],
            ],
            "status": ["phase": .string(phase)],
        ]
        if meshed { json[path: "metadata", "labels", "apus.dev/injected"] = "true" }
        if terminating { json[path: "metadata", "deletionTimestamp"] = "2026-01-31T09:05:00Z" }
        if let address { json[path: "status", "podIPs"] = [["ip": .string(address)]] }
        return .pod(try #require(PodView(KubernetesObject(json))))
    }

    static func ip(_ text: String) -> IPAddress { IPAddress(text) ?? .any4 }
    static let web = ObjectName(namespace: "shop", name: "web")

    /// What a list of events says, in short.
    static func words(_ events: [CatalogEvent]) -> [String] {
        events.map { event in
            switch event {
            case .service(let service): "service \(service.name.name)"
            case .serviceRemoved(let name): "-service \(name.name)"
            case .endpoint(let endpoint):
                "endpoint \(endpoint.service.name) \(endpoint.address)\(endpoint.isReady ? "" : " leaving")"
            case .endpointRemoved(let service, let address): "-endpoint \(service.name) \(address)"
            case .workload(let workload): "workload \(workload.pod.name)"
            case .workloadRemoved(let name): "-workload \(name.name)"
            case .settings: "settings"
            case .synchronized: "synchronized"
            }
        }
    }

    private func apply(_ inputs: CatalogReducer.Input...) -> [String] {
        inputs.flatMap { Self.words(reducer.apply($0)) }
    }

    // MARK: - One service

    @Test func anEndpointCarriesItsPodWhateverComesFirst() throws {
        let inputs = [
            try Self.service(), try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a", uid: "u1")),
            try Self.pod("web-a", "10.97.0.5"),
        ]
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            var reducer = CatalogReducer(trustDomain: "cluster.local")
            var last: Endpoint?
            for index in order {
                for case .endpoint(let endpoint) in reducer.apply(inputs[index]) { last = endpoint }
            }
            let endpoint = try #require(last, "\(order)")
            #expect(endpoint.targetPorts == [80: 8080])
            #expect(endpoint.isReady)
            let workload = try #require(endpoint.workload)
            #expect(workload.identity?.description == "spiffe://cluster.local/ns/shop/sa/web-sa")
            #expect(workload.isMeshed)
            #expect(workload.owner == "web")
            #expect(workload.app == "web")
            #expect(workload.version == "v1")
            #expect(workload.node == "n1")
            #expect(workload.service == Self.web)
            #expect(workload.ports == [8080: .http1])
        }
    }

    @Test func aPodThatIsBeingDeletedLeavesAheadOfItsSlice() throws {
        _ = apply(
            try Self.service(), try Self.pod("web-a", "10.97.0.5"), try Self.pod("web-b", "10.97.0.6"),
            try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a"), Self.endpoint("10.97.0.6", pod: "web-b")))
        #expect(
            apply(try Self.pod("web-a", "10.97.0.5", terminating: true))
                == ["workload web-a", "-endpoint web 10.97.0.5"])
        // The slice follows, and says nothing new.
        #expect(
            apply(
                try Self.slice(
                    Self.endpoint("10.97.0.5", pod: "web-a", ready: false, terminating: true),
                    Self.endpoint("10.97.0.6", pod: "web-b")))
                == [])
        #expect(apply(.podRemoved(ObjectName(namespace: "shop", name: "web-a"))) == ["-workload web-a"])
    }

    @Test func theLastPodServesUntilAnotherIsReady() throws {
        _ = apply(
            try Self.service(), try Self.pod("web-a", "10.97.0.5"),
            try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a")))
        #expect(
            apply(try Self.pod("web-a", "10.97.0.5", terminating: true))
                == ["workload web-a", "endpoint web 10.97.0.5 leaving"])
        let leaving = Self.endpoint("10.97.0.5", pod: "web-a", ready: false, terminating: true)
        #expect(apply(try Self.slice(leaving)) == [])
        _ = apply(try Self.pod("web-b", "10.97.0.6"))
        #expect(
            apply(try Self.slice(leaving, Self.endpoint("10.97.0.6", pod: "web-b")))
                == ["workload web-b", "-endpoint web 10.97.0.5", "endpoint web 10.97.0.6"])
        // The new one fails its probe while the old one still serves.
        #expect(
            apply(try Self.slice(leaving, Self.endpoint("10.97.0.6", pod: "web-b", ready: false, serving: false)))
                == ["-endpoint web 10.97.0.6", "endpoint web 10.97.0.5 leaving"])
        #expect(
            apply(.podRemoved(ObjectName(namespace: "shop", name: "web-a"))) == [
                "-endpoint web 10.97.0.5", "-workload web-a",
            ])
    }

    @Test func aPodThatServesNoMoreIsNotKept() throws {
        _ = apply(
            try Self.service(), try Self.pod("web-a", "10.97.0.5"),
            try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a")))
        let gone = Self.endpoint("10.97.0.5", pod: "web-a", ready: false, serving: false, terminating: true)
        #expect(apply(try Self.slice(gone)) == ["-endpoint web 10.97.0.5"])
    }

    @Test func aPodThatIsNotReadyIsNoEndpoint() throws {
        _ = apply(try Self.service(), try Self.pod("web-a", "10.97.0.5"))
        #expect(
            apply(try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a", ready: false, serving: false))) == [
                "workload web-a"
            ])
    }

    @Test func notReadyAddressesArePublishedWhereTheServiceAsksForThem() throws {
        _ = apply(try Self.service(publishNotReady: true), try Self.pod("web-a", "10.97.0.5"))
        #expect(
            apply(try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a"))) == [
                "workload web-a", "endpoint web 10.97.0.5",
            ])
        #expect(
            apply(try Self.pod("web-a", "10.97.0.5", terminating: true))
                == ["workload web-a", "endpoint web 10.97.0.5"])
        #expect(apply(try Self.slice()) == ["workload web-a", "-endpoint web 10.97.0.5"])
    }

    @Test func aPodOfTheSameNameIsAnother() throws {
        _ = apply(
            try Self.service(), try Self.slice(Self.endpoint("10.97.0.5", pod: "web-0", uid: "old")),
            try Self.pod("web-0", "10.97.0.9", uid: "new"))
        #expect(
            apply(try Self.slice(Self.endpoint("10.97.0.9", pod: "web-0", uid: "new"))) == ["endpoint web 10.97.0.9"])
    }

    @Test func aFinishedPodIsNeitherWorkloadNorEndpoint() throws {
        _ = apply(
            try Self.service(), try Self.pod("web-a", "10.97.0.5"),
            try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a")))
        #expect(
            apply(try Self.pod("web-a", "10.97.0.5", phase: "Failed")) == [
                "-workload web-a", "-endpoint web 10.97.0.5",
            ])
    }

    @Test func aPodWithoutAnAddressIsNotToldYet() throws {
        #expect(apply(try Self.pod("web-a", nil, phase: "Pending")) == [])
        #expect(apply(try Self.pod("web-a", "10.97.0.5")) == ["workload web-a"])
    }

    @Test func theSameDocumentTwiceSaysNothing() throws {
        let inputs = [
            try Self.service(), try Self.pod("web-a", "10.97.0.5"),
            try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a")),
        ]
        for input in inputs { _ = reducer.apply(input) }
        for input in inputs { #expect(Self.words(reducer.apply(input)) == []) }
    }

    @Test func aRemovedServiceTakesItsEndpointsAlong() throws {
        _ = apply(
            try Self.service(), try Self.pod("web-a", "10.97.0.5"),
            try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a")))
        #expect(apply(.serviceRemoved(Self.web)) == ["-endpoint web 10.97.0.5", "workload web-a", "-service web"])
        #expect(apply(.sliceRemoved(ObjectName(namespace: "shop", name: "web-1"))) == [])
        // Both come back.
        _ = apply(try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a")))
        #expect(apply(try Self.service()) == ["service web", "workload web-a", "endpoint web 10.97.0.5"])
    }

    // MARK: - Ports

    @Test func namedPortsOfDifferentPodsAreJoinedFromTheirSlices() throws {
        let ports: [JSONValue] = [
            ["name": "http", "port": 80], ["name": "metrics", "port": 9000],
            ["name": "dns", "port": 53, "protocol": "UDP"],
        ]
        _ = apply(
            try Self.service(ports: ports), try Self.pod("web-a", "10.97.0.5"), try Self.pod("web-b", "10.97.0.6"))
        let first = try Self.slice(
            ports: [["name": "http", "port": 8080], ["name": "metrics", "port": 9100]],
            Self.endpoint("10.97.0.5", pod: "web-a"))
        let second = try Self.slice(
            named: "web-2", ports: [["name": "http", "port": 8081]], Self.endpoint("10.97.0.6", pod: "web-b"))
        var endpoints: [String: [UInt16: UInt16]] = [:]
        for input in [first, second] {
            for case .endpoint(let endpoint) in reducer.apply(input) {
                endpoints["\(endpoint.address)"] = endpoint.targetPorts
            }
        }
        #expect(endpoints == ["10.97.0.5": [80: 8080, 9000: 9100], "10.97.0.6": [80: 8081]])
    }

    @Test func aChangedPortOfTheServiceChangesItsEndpoints() throws {
        _ = apply(
            try Self.service(), try Self.pod("web-a", "10.97.0.5"),
            try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a")))
        let events = reducer.apply(
            try Self.service(ports: [["name": "http", "port": 8000, "appProtocol": "kubernetes.io/h2c"]]))
        #expect(Self.words(events) == ["service web", "workload web-a", "endpoint web 10.97.0.5"])
        guard case .endpoint(let endpoint) = events.last else { return #expect(Bool(false), "no endpoint") }
        #expect(endpoint.targetPorts == [8000: 8080])
        #expect(endpoint.workload?.ports == [8080: .http2])
    }

    @Test func anAnnotationAloneDoesNotTouchEndpoints() throws {
        _ = apply(
            try Self.service(), try Self.pod("web-a", "10.97.0.5"),
            try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a")))
        #expect(apply(try Self.service(annotations: ["apus.dev/retry-count": "5"])) == ["service web"])
    }

    @Test func containerPortsDeclareWhatNoServiceDoes() throws {
        let events = reducer.apply(try Self.pod("web-a", "10.97.0.5", portName: "grpc-api"))
        guard case .workload(let workload) = events.first else { return #expect(Bool(false), "no workload") }
        #expect(workload.ports == [8080: .grpc])
        #expect(workload.service == nil)
    }

    // MARK: - Other shapes

    @Test func twoServicesOfOnePodAreNeitherItsName() throws {
        _ = apply(
            try Self.service(), try Self.service("other"), try Self.pod("web-a", "10.97.0.5"),
            try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a")))
        let events = reducer.apply(
            try Self.slice(named: "other-1", service: "other", Self.endpoint("10.97.0.5", pod: "web-a")))
        #expect(Self.words(events) == ["workload web-a", "endpoint other 10.97.0.5", "endpoint web 10.97.0.5"])
        guard case .workload(let workload) = events.first else { return #expect(Bool(false), "no workload") }
        #expect(workload.service == nil)
    }

    @Test func anAddressWithoutAPodIsAnEndpointWithoutAWorkload() throws {
        _ = apply(try Self.service("external"))
        let events = reducer.apply(
            try Self.slice(
                named: "x", service: "external", ports: [["name": "http", "port": 443]],
                Self.endpoint("192.0.2.7", pod: nil)))
        guard case .endpoint(let endpoint) = events.first else { return #expect(Bool(false), "no endpoint") }
        #expect(endpoint.workload == nil)
        #expect(endpoint.targetPorts == [80: 443])
        // Unless a pod turns out to have the address.
        let later = reducer.apply(try Self.pod("web-a", "192.0.2.7"))
        #expect(Self.words(later) == ["workload web-a", "endpoint external 192.0.2.7"])
    }

    @Test func aHeadlessServiceHasEndpointsButNoAddress() throws {
        let events = reducer.apply(try Self.service(clusterIP: "None"))
        guard case .service(let service) = events.first else { return #expect(Bool(false), "no service") }
        #expect(service.addresses.isEmpty)
        _ = apply(try Self.pod("web-a", "10.97.0.5"))
        #expect(
            apply(try Self.slice(Self.endpoint("10.97.0.5", pod: "web-a"))) == [
                "workload web-a", "endpoint web 10.97.0.5",
            ])
    }

    @Test func aPodOnItsNodesNetworkHasNoAddressOfItsOwn() throws {
        let events = reducer.apply(try Self.pod("agent", "192.0.2.1", meshed: false, hostNetwork: true))
        guard case .workload(let workload) = events.first else { return #expect(Bool(false), "no workload") }
        #expect(workload.addresses.isEmpty)
        #expect(!workload.isMeshed)
    }

    /// Whatever the order of changes, the endpoints told are those that the final documents have.
    @Test func anyOrderOfChangesEndsInTheSameCatalog() throws {
        var random = SeededRandom(seed: 11)
        for round in 0..<200 {
            var reducer = CatalogReducer(trustDomain: "cluster.local")
            var told: [String: Endpoint] = [:]
            var workloads: Set<ObjectName> = []
            var fresh = CatalogReducer(trustDomain: "cluster.local")
            var final: [String: CatalogReducer.Input] = [:]
            for _ in 0..<40 {
                let number = Int.random(in: 0..<3, using: &random)
                let name = "web-\(number)"
                let input: (String, CatalogReducer.Input)
                switch Int.random(in: 0..<7, using: &random) {
                case 0: input = ("s", try Self.service())
                case 1: input = ("s", .serviceRemoved(Self.web))
                case 2, 3:
                    input = (
                        name,
                        try Self.pod(
                            name, "10.97.0.\(number)", terminating: Bool.random(using: &random), uid: "u\(number)")
                    )
                case 4: input = (name, .podRemoved(ObjectName(namespace: "shop", name: name)))
                default:
                    let entries = (0..<3).filter { _ in Bool.random(using: &random) }.map {
                        Self.endpoint(
                            "10.97.0.\($0)", pod: "web-\($0)", ready: Bool.random(using: &random),
                            serving: Bool.random(using: &random),
                            terminating: Bool.random(using: &random), uid: "u\($0)")
                    }
                    let json: JSONValue = [
                        "metadata": [
                            "name": "web-1", "namespace": "shop", "labels": ["kubernetes.io/service-name": "web"],
                        ],
                        "addressType": "IPv4", "ports": [["name": "http", "port": 8080]], "endpoints": .array(entries),
                    ]
                    input = ("slice", .slice(try #require(EndpointSliceView(KubernetesObject(json)))))
                }
                final[input.0] = input.1
                Self.take(reducer.apply(input.1), &told, &workloads)
            }
            var expected: [String: Endpoint] = [:]
            var expectedWorkloads: Set<ObjectName> = []
            for key in final.keys.sorted() {
                guard let input = final[key] else { continue }
                Self.take(fresh.apply(input), &expected, &expectedWorkloads)
            }
            #expect(told == expected, "round \(round)")
            #expect(workloads == expectedWorkloads, "round \(round)")
        }
    }

    static func take(
        _ events: [CatalogEvent], _ endpoints: inout [String: Endpoint], _ workloads: inout Set<ObjectName>
    ) {
        for event in events {
            switch event {
            case .endpoint(let endpoint): endpoints[endpoint.id] = endpoint
            case .endpointRemoved(let service, let address):
                #expect(endpoints.removeValue(forKey: "\(service)/\(address)") != nil)
            case .workload(let workload): workloads.insert(workload.pod)
            case .workloadRemoved(let name): #expect(workloads.remove(name) != nil)
            default: break
            }
        }
    }
}
