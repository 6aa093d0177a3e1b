import MeshAPI
import MeshAddress
import MeshCore
import MeshHTTP
import MeshXDS
import SwiftProtobuf
import Testing

/// What the table does for a subscriber that lags, without sockets.
@Suite struct SlowSubscriberTests {
    private func subscribed(_ table: inout DiscoveryTable) -> Subscriber {
        let subscriber = Subscriber(id: 1, pod: ObjectName("client"))
        var view = DiscoveryView(pod: ObjectName("client"))
        _ = view.subscribe(webAddress)
        for request in view.openingRequests(version: "1") {
            let failure = table.handle(request, subscriber)
            #expect(failure == nil)
        }
        return subscriber
    }

    private func next(
        _ table: inout DiscoveryTable, _ subscriber: Subscriber
    ) throws -> Envoy_Service_Discovery_V3_DeltaDiscoveryResponse? {
        try table.withResponse(for: subscriber, nowNanoseconds: 0) { [UInt8]($0) }.map {
            try Envoy_Service_Discovery_V3_DeltaDiscoveryResponse(serializedBytes: $0)
        }
    }

    private func acknowledge(
        _ table: inout DiscoveryTable, _ subscriber: Subscriber,
        _ response: Envoy_Service_Discovery_V3_DeltaDiscoveryResponse
    ) {
        let request = DiscoveryView.acknowledgement(typeURL: response.typeURL, nonce: response.nonce, refusals: [])
        let failure = table.handle(request, subscriber)
        #expect(failure == nil)
    }

    @Test func theAnswerComesInTheOrderInWhichItIsNeeded() throws {
        let source = shopSource(endpoints: 3)
        var table = DiscoveryTable(source: source)
        let subscriber = subscribed(&table)
        var types: [String] = []
        while let response = try next(&table, subscriber) {
            types.append(ResourceType(typeURL: response.typeURL)?.name ?? "")
        }
        #expect(types == ["TrustBundle", "Self", "Service", "Endpoint", "Destination"])
    }

    @Test func theLatestWinsWhenAcknowledgementsStayAway() throws {
        let source = shopSource(endpoints: 1)
        var table = DiscoveryTable(source: source)
        let subscriber = subscribed(&table)
        let web = ObjectName("web")
        var responses: [Envoy_Service_Discovery_V3_DeltaDiscoveryResponse] = []
        while let response = try next(&table, subscriber) { responses.append(response) }
        for version in 0..<1000 {
            var endpoint = try #require(source.endpoints[web]?[ip(1, net: 1)])
            endpoint.workload?.version = "v\(version)"
            source.endpoints[web]?[endpoint.address] = endpoint
            let isChanged = table.endpointChanged(endpoint, Change(arrivedNanoseconds: 0))
            #expect(isChanged)
            while let response = try next(&table, subscriber) { responses.append(response) }
        }
        #expect(responses.count == Subscriber.outstandingLimit)
        #expect(table.statistics.waitsForAcknowledgement > 0)
        for response in responses { acknowledge(&table, subscriber, response) }
        let newest = try next(&table, subscriber)
        let last = try #require(newest)
        #expect(last.resources.count == 1)
        let endpoint = try ResourceDecoding.endpoint([UInt8](last.resources[0].resource.value))
        #expect(endpoint.workload?.version == "v999")
        let more = try next(&table, subscriber)
        #expect(more == nil)
    }

    @Test func aLongAnswerIsSplitBelowTheMessageLimit() throws {
        let source = shopSource(endpoints: 20_000)
        // Addresses of shopSource repeat above 255; these do not.
        let web = ObjectName("web")
        source.endpoints[web] = [:]
        for index in 0..<20_000 {
            let address = IPAddress(v4: 0x0a10_0000 + UInt32(index))
            source.endpoints[web]?[address] = Endpoint(
                service: web, address: address, targetPorts: [80: 8080], workload: workload("web-\(index)", address))
        }
        var table = DiscoveryTable(source: source)
        let subscriber = subscribed(&table)
        var names: Set<String> = []
        var endpointResponses = 0
        while let bytes = table.withResponse(for: subscriber, nowNanoseconds: 0, { [UInt8]($0) }) {
            #expect(bytes.count < 2 * 1024 * 1024)
            let response = try Envoy_Service_Discovery_V3_DeltaDiscoveryResponse(serializedBytes: bytes)
            if ResourceType(typeURL: response.typeURL) == .endpoint {
                endpointResponses += 1
                names.formUnion(response.resources.map(\.name))
            }
        }
        #expect(names.count == 20_000 && endpointResponses > 1)
    }

    @Test func requestsThatCannotBeServedEndTheStreamWithAReason() {
        let source = shopSource(endpoints: 0)
        var table = DiscoveryTable(source: source)
        let subscriber = Subscriber(id: 1, pod: ObjectName("client"))
        typealias Request = Envoy_Service_Discovery_V3_DeltaDiscoveryRequest
        func request(_ type: String, _ names: [String]) -> Request {
            .with {
                $0.typeURL = type
                $0.resourceNamesSubscribe = names
            }
        }
        let many = (0...DiscoveryLimits.subscriptions).map { "10.1.\($0 / 256).\($0 % 256):80" }
        let cases: [(Request, GRPCStatus.Code)] = [
            (request("type.googleapis.com/x", []), .invalidArgument),
            (request(ResourceType.sidecar.typeURL, ["shop/other"]), .permissionDenied),
            (request(ResourceType.endpoint.typeURL, ["a/b/1.2.3.4"]), .invalidArgument),
            (request(ResourceType.destination.typeURL, many), .resourceExhausted),
        ]
        for (request, code) in cases {
            let status = table.handle(request, subscriber)
            #expect(status?.code == code)
        }
    }

    @Test func aNameThatIsNoAddressIsAnsweredAsGone() throws {
        let source = shopSource(endpoints: 0)
        var table = DiscoveryTable(source: source)
        let subscriber = Subscriber(id: 1, pod: ObjectName("client"))
        let request = Envoy_Service_Discovery_V3_DeltaDiscoveryRequest.with {
            $0.typeURL = ResourceType.destination.typeURL
            $0.resourceNamesSubscribe = ["example.org:80", "10.0.0.1", "010.0.0.1:80"]
        }
        let failure = table.handle(request, subscriber)
        #expect(failure == nil)
        let answer = try next(&table, subscriber)
        let response = try #require(answer)
        #expect(
            response.removedResources == ["example.org:80", "10.0.0.1", "010.0.0.1:80"] && response.resources.isEmpty)
    }
}
