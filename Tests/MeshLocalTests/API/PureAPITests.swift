import MeshAddress
import MeshKubernetes
import MeshLocal
import Testing

@Suite struct PureAPITests {
    @Test(arguments: [
        ("/api/v1/pods", RequestTarget.ResourcePath(group: "", version: "v1", plural: "pods")),
        (
            "/api/v1/namespaces/shop/pods/web/log",
            RequestTarget.ResourcePath(
                group: "", version: "v1", plural: "pods", namespace: "shop", name: "web", subresource: "log")
        ),
        (
            "/api/v1/namespaces/shop",
            RequestTarget.ResourcePath(group: "", version: "v1", plural: "namespaces", name: "shop")
        ),
        (
            "/api/v1/namespaces/shop/finalize",
            RequestTarget.ResourcePath(
                group: "", version: "v1", plural: "namespaces", name: "shop", subresource: "finalize")
        ),
        (
            "/apis/apps/v1/namespaces/shop/deployments/web",
            RequestTarget.ResourcePath(
                group: "apps", version: "v1", plural: "deployments", namespace: "shop", name: "web")
        ),
        (
            "/api/v1/namespaces/shop/services/web:80/proxy/a%2Fb/c/",
            RequestTarget.ResourcePath(
                group: "", version: "v1", plural: "services", namespace: "shop", name: "web:80", subresource: "proxy",
                rest: "/a%2Fb/c/")
        ),
    ])
    func pathsNameResources(path: String, expected: RequestTarget.ResourcePath) {
        #expect(RequestTarget(path: path) == .resource(expected))
    }

    @Test(arguments: ["/", "", "/nothing", "/api/v1/namespaces/a/pods/b/log/more", "/openapi/v1", "/%zz"])
    func otherPathsNameNothing(path: String) {
        #expect(RequestTarget(path: path) == .unknown)
    }

    @Test(
        arguments: [
            (["a", "sidecar", "b"], ["a", "b"], ["a", "sidecar", "b"]),
            (["sidecar", "a", "b"], ["b", "a"], ["sidecar", "b", "a"]),
            (["a", "b", "x", "y"], ["a", "b"], ["a", "b", "x", "y"]),
            (["a"], ["gone", "a"], ["a"]), (["x"], [], ["x"]),
        ] as [([String], [String], [String])])
    func anOrderMovesOnlyWhatItNames(live: [String], order: [String], expected: [String]) {
        func volumes(_ names: [String]) -> JSONValue { .array(names.map { ["name": .string($0)] }) }
        let patched = StrategicMerge.apply(
            ["spec": ["$setElementOrder/volumes": volumes(order)]], to: ["spec": ["volumes": volumes(live)]])
        #expect(patched == ["spec": ["volumes": volumes(expected)]])
    }

    @Test func aStrategicPatchMergesListsByTheirKeys() {
        let target: JSONValue = [
            "spec": [
                "containers": [
                    ["name": "a", "image": "1", "env": [["name": "X", "value": "1"]]], ["name": "b", "image": "1"],
                ]
            ],
            "metadata": ["finalizers": ["one"]],
        ]
        let patch: JSONValue = [
            "spec": [
                "$setElementOrder/containers": [["name": "b"], ["name": "a"]],
                "containers": [
                    [
                        "name": "a", "image": "2",
                        "env": [["name": "Y", "value": "2"], ["name": "X", "$patch": "delete"]],
                    ]
                ],
            ],
            "metadata": ["finalizers": ["two"], "labels": ["a": "b"]],
        ]
        #expect(
            StrategicMerge.apply(patch, to: target) == [
                "spec": [
                    "containers": [
                        ["name": "b", "image": "1"],
                        ["name": "a", "image": "2", "env": [["name": "Y", "value": "2"]]],
                    ]
                ],
                "metadata": ["finalizers": ["one", "two"], "labels": ["a": "b"]],
            ])
    }

    @Test(arguments: [
        (".spec.weight", JSONValue.int(3)), (".status.conditions[?(@.type==\"Ready\")].status", "True"),
        (".list[1]", "b"),
        (".metadata.labels['a.b/c']", "x"), (".metadata.labels.a\\.b/c", "x"),
    ])
    func printerPathsFindTheirValue(path: String, expected: JSONValue) {
        let json: JSONValue = [
            "spec": ["weight": 3], "list": ["a", "b"], "metadata": ["labels": ["a.b/c": "x"]],
            "status": ["conditions": [["type": "Other", "status": "False"], ["type": "Ready", "status": "True"]]],
        ]
        #expect(PrinterPath(path).value(in: json) == expected)
    }

    @Test(arguments: ["[[[", "..", "spec", ".a[?(@.b)]", ".a['", ""])
    func printerPathsThatAreNotUnderstoodFindNothingOfUse(path: String) {
        let value = PrinterPath(path).value(in: ["a": ["b": 1]])
        #expect(value == nil || value == ["a": ["b": 1]])
    }

    @Test(arguments: [
        (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (600, "10m"), (10_800, "3h"), (11_000, "3h3m"),
        (86_400, "24h"),
        (172_800, "2d"), (180_000, "2d2h"), (10_000_000, "115d"), (100_000_000, "3y"), (-5, "0s"),
    ])
    func agesAreShort(seconds: Int, expected: String) {
        #expect(TablePrinter.duration(Int64(seconds)) == expected)
    }

    @Test(
        arguments: [
            (["type": "string"], JSONValue.int(1), "must be of type string"),
            (["type": "string", "pattern": "^a+$"], "ab", "must match the pattern"),
            (["type": "string", "maxLength": 2], "abc", "Too long"),
            (["type": "integer", "maximum": 5], 6, "must be less than or equal to 5"),
            (["type": "number", "minimum": 1, "exclusiveMinimum": true], 1, "must be greater than 1"),
            (["type": "array", "minItems": 1], [], "must have at least 1 items"),
            (
                ["type": "array", "items": ["type": "string"]], ["a", 2],
                "field[1]: Invalid value: 2: must be of type string"
            ),
            (["type": "object", "required": ["a"]], [:], "field.a: Required value"),
            (["x-kubernetes-int-or-string": true], true, "must be an integer or a string"),
        ] as [(JSONValue, JSONValue, String)])
    func schemasNameWhatIsWrong(schema: JSONValue, value: JSONValue, expected: String) {
        let errors = StructuralSchema(["type": "object", "properties": ["field": schema]]).errors(in: ["field": value])
        #expect(errors.count == 1)
        #expect(errors.first?.text.contains(expected) == true)
    }

    @Test func addressesOfServicesAreUniqueAndRunOut() throws {
        let addresses = try ServiceAddresses(subnet: "10.1.0.0/27")
        #expect(addresses.platform.description == "10.1.0.1")
        let taken = (0..<20).compactMap { _ in addresses.allocate() }
        #expect(Set(taken).count == 20)
        #expect(addresses.allocate() == nil)
        addresses.release(taken[3])
        #expect(addresses.allocate() == taken[3])
        for wrong in ["10.1.0.0", "10.1.0.0/33", "x/24", "10.1.0.0/30"] {
            #expect(throws: StatusError.self) { try ServiceAddresses(subnet: wrong) }
        }
    }
}
