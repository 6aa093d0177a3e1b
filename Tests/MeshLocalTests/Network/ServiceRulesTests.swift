import MeshAddress
import MeshKubernetes
import MeshLocal
import Testing

struct ServiceRulesTests {
    private func service(_ spec: [String: JSONValue]) throws -> Kubernetes.Service {
        let document: JSONValue = ["metadata": ["name": "web", "namespace": "shop"], "spec": .object(spec)]
        return try document.decoded()
    }

    private func slice(_ endpoints: [JSONValue], port: Int64 = 8080, portName: String = "http") throws
        -> Kubernetes.EndpointSlice
    {
        let document: JSONValue = [
            "metadata": ["name": "web-1"], "addressType": "IPv4", "endpoints": .array(endpoints),
            "ports": [["name": .string(portName), "port": .int(port), "protocol": "TCP"]],
        ]
        return try document.decoded()
    }

    private func endpoint(_ address: String, ready: Bool, terminating: Bool = false, serving: Bool = true) -> JSONValue
    {
        [
            "addresses": [.string(address)],
            "conditions": ["ready": .bool(ready), "terminating": .bool(terminating), "serving": .bool(serving)],
        ]
    }

    private func texts(_ rule: ServicePortRule) -> [String] { rule.endpoints.map(\.description) }

    private let port: JSONValue = ["name": "http", "port": 80, "targetPort": 8080]

    @Test func onlyReadyEndpointsAreUsed() throws {
        let rules = ServiceRules.rules(
            try service(["clusterIP": "10.96.0.5", "ports": [port]]),
            slices: [
                try slice([
                    endpoint("10.97.0.9", ready: true), endpoint("10.97.0.3", ready: true),
                    endpoint("10.97.0.4", ready: false),
                ])
            ])
        #expect(rules.map(texts) == [["10.97.0.3:8080", "10.97.0.9:8080"]])
    }

    @Test func endpointsThatLeaveServeWhenThereIsNoOther() throws {
        let leaving = endpoint("10.97.0.3", ready: false, terminating: true)
        let gone = endpoint("10.97.0.4", ready: false, terminating: true, serving: false)
        let web = try service(["clusterIP": "10.96.0.5", "ports": [port]])
        #expect(ServiceRules.rules(web, slices: [try slice([leaving, gone])]).map(texts) == [["10.97.0.3:8080"]])
        let ready = endpoint("10.97.0.5", ready: true)
        #expect(ServiceRules.rules(web, slices: [try slice([leaving, ready])]).map(texts) == [["10.97.0.5:8080"]])
    }

    @Test func headlessAndExternalServicesHaveNoRules() throws {
        let slices = [try slice([endpoint("10.97.0.3", ready: true)])]
        #expect(ServiceRules.rules(try service(["clusterIP": "None", "ports": [port]]), slices: slices).isEmpty)
        #expect(
            ServiceRules.rules(
                try service([
                    "type": "ExternalName", "externalName": "example.com", "clusterIP": "10.96.0.5", "ports": [port],
                ]), slices: slices
            ).isEmpty)
    }

    @Test func portsOutsideTheRangeAreLeftOut() throws {
        let web = try service(["clusterIP": "10.96.0.5", "ports": [["name": "http", "port": 70_000]]])
        #expect(ServiceRules.rules(web, slices: []).isEmpty)
        let strange = try slice([endpoint("10.97.0.3", ready: true)], port: -1)
        #expect(
            ServiceRules.rules(try service(["clusterIP": "10.96.0.5", "ports": [port]]), slices: [strange]).first?
                .endpoints == [])
    }

    @Test func aChangeTouchesOnlyWhatChanged() throws {
        var table = ServiceTable(
            name: "apus_t", bridge: "t0", podSubnet: try #require(IPv4Subnet("10.97.0.0/16")),
            serviceSubnet: try #require(IPv4Subnet("10.96.0.0/16")))
        func rules(_ name: String, _ addresses: [String]) throws -> [String: ServicePortRule] {
            let web = try service(["clusterIP": .string(name), "ports": [port]])
            let made = ServiceRules.rules(web, slices: [try slice(addresses.map { endpoint($0, ready: true) })])
            return Dictionary(uniqueKeysWithValues: made.map { ($0.chain, $0) })
        }
        let first = try rules("10.96.0.5", ["10.97.0.3"])
        let other = try rules("10.96.0.6", ["10.97.0.8"])
        let whole = table.change(to: first.merging(other) { $1 })
        let made = try #require(whole)
        #expect(made.contains("add chain inet apus_t service-10.96.0.5-tcp-80\n"))
        #expect(made.contains("goto service-10.96.0.6-tcp-80"))
        let nothing = table.change(to: first.merging(other) { $1 })
        #expect(nothing == nil)

        let more = table.change(to: try rules("10.96.0.5", ["10.97.0.3", "10.97.0.4"]).merging(other) { $1 })
        let changed = try #require(more)
        #expect(changed.contains("flush chain inet apus_t service-10.96.0.5-tcp-80"))
        #expect(!changed.contains("10.96.0.6"))

        let none = table.change(to: try rules("10.96.0.5", []).merging(other) { $1 })
        let emptied = try #require(none)
        #expect(emptied.contains("delete element inet apus_t services { 10.96.0.5 . tcp . 80 }"))
        #expect(emptied.contains("delete chain inet apus_t service-10.96.0.5-tcp-80"))
        let withoutEmpty = table.change(to: other)
        #expect(withoutEmpty == nil, "a Service without endpoints has nothing left to remove")
        let last = table.change(to: [:])
        #expect(last?.contains("delete chain inet apus_t service-10.96.0.6-tcp-80") == true)
    }

    @Test func addressesRestBeforeTheyAreGivenAgain() throws {
        var pool = AddressPool(try #require(IPv4Subnet("10.97.0.0/29")))
        var given: [IPAddress] = []
        while let address = pool.take() { given.append(address) }
        #expect(given.map(\.description) == (2...6).map { "10.97.0.\($0)" })
        pool.giveBack(given[0])
        pool.giveBack(given[3])
        let again = [pool.take(), pool.take(), pool.take()]
        #expect(again == [given[0], given[3], nil])
    }

    @Test(arguments: [
        "10.97.0.0", "10.97.0.0/33", "10.97.0.1/16", "fd00::/64", "10.97.0.0/31", "10.97.0.0/-1", "x/16", "",
    ])
    func whatIsNoSubnetIsRefused(_ text: String) {
        #expect(IPv4Subnet(text) == nil)
    }
}
