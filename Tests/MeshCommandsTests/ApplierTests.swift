import MeshCommands
import MeshKubernetes
import Testing

/// The merge patch that `apus apply` sends.
@Suite struct ApplierTests {
    @Test func whatIsAlreadySoIsNotSent() {
        let live: JSONValue = ["spec": ["replicas": 2, "paused": false], "status": ["ready": 2]]
        #expect(Applier.patch(live: live, last: .null, wanted: ["spec": ["replicas": 2]]) == .object([:]))
    }

    @Test func whatDiffersIsSentAndNothingElse() {
        let live: JSONValue = ["spec": ["replicas": 2, "template": ["image": "a", "args": ["x", "y"]]]]
        let wanted: JSONValue = ["spec": ["replicas": 3, "template": ["image": "a", "args": ["x"]]]]
        #expect(
            Applier.patch(live: live, last: .null, wanted: wanted) == [
                "spec": ["replicas": 3, "template": ["args": ["x"]]]
            ])
    }

    @Test func whatTheManifestNoLongerSaysIsTakenOut() {
        let live: JSONValue = ["metadata": ["labels": ["a": "1", "b": "2"]], "spec": ["x": 1]]
        let last: JSONValue = ["metadata": ["labels": ["a": "1", "b": "2"]], "spec": ["x": 1]]
        let wanted: JSONValue = ["metadata": ["labels": ["a": "1"]]]
        #expect(
            Applier.patch(live: live, last: last, wanted: wanted) == [
                "metadata": ["labels": ["b": .null]], "spec": .null,
            ])
    }

    @Test func whatOthersAddedStays() {
        let live: JSONValue = ["metadata": ["annotations": ["theirs": "1"]], "spec": ["replicas": 5]]
        #expect(Applier.patch(live: live, last: ["spec": [:]], wanted: ["spec": [:], "metadata": [:]]) == .object([:]))
    }

    @Test func whatAdmissionMadeOfAPodIsNoDifference() {
        let container: JSONValue = ["name": "a", "readinessProbe": ["httpGet": ["port": 8080]]]
        let sidecar: JSONValue = ["name": "apus-proxy"]
        let applied: JSONValue = [
            "kind": "Pod", "metadata": ["labels": ["x": "1"]], "spec": ["containers": [container]],
        ]
        let live: JSONValue = [
            "kind": "Pod", "metadata": ["labels": ["x": "1"]],
            "spec": [
                "initContainers": [sidecar],
                "containers": [["name": "a", "readinessProbe": ["httpGet": ["port": 15021]]]],
            ],
        ]
        func patch(_ wanted: JSONValue) -> JSONValue {
            Applier.patch(live: Applier.basis(live: live, last: applied), last: applied, wanted: wanted)
        }
        #expect(patch(applied) == .object([:]))
        var labelled = applied
        labelled["metadata"] = ["labels": ["x": "2"]]
        #expect(patch(labelled) == ["metadata": ["labels": ["x": "2"]]])
        var other = applied
        other["spec"] = ["containers": [["name": "b"]]]
        #expect(patch(other) == ["spec": ["containers": [["name": "b"]]]])
        #expect(Applier.basis(live: live, last: .null) == live)
    }

    @Test(arguments: [
        (0, "0B"), (0.4, "0B"), (999, "999B"), (1000, "1.0kB"), (12_345, "12kB"), (3.2e6, "3.2MB"), (5e17, "500000TB"),
    ])
    func bytesHaveOneUnit(count: Double, text: String) {
        #expect(Figures.bytes(count) == text)
    }

    @Test(
        arguments: [
            (["pods"], "pods", nil), (["po"], "pods", nil), (["Pod", "web-1"], "pods", "web-1"),
            (["deployment/web"], "deployments", "web"),
            (["SVC/catalog"], "services", "catalog"), (["endpointslices.discovery.k8s.io"], "endpointslices", nil),
        ] as [([String], String, String?)])
    func resourcesAreNamedAsPeopleNameThem(words: [String], plural: String, name: String?) throws {
        let found = try ResourceCatalog.builtIn.parse(words)
        #expect(found.map(\.kind.plural) == [plural])
        #expect(found.first?.name == name)
    }

    @Test(arguments: [[], ["unicorns"], ["pods/"], ["pods,services", "x"]])
    func whatNamesNothingIsRefused(words: [String]) {
        #expect(throws: (any Error).self) { try ResourceCatalog.builtIn.parse(words) }
    }

    @Test func columnsAreAsWideAsTheirWidestCell() {
        var table = TextTable("NAME", "READY")
        table.add("a-long-name", "1/1")
        table.add("\u{1B}[32mgreen\u{1B}[0m", "0/1")
        #expect(table.text == "NAME          READY\na-long-name   1/1\n\u{1B}[32mgreen\u{1B}[0m         0/1\n")
    }

    @Test(arguments: [
        (0, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (3599, "59m"), (7200, "2h"), (90_000, "25h"),
        (180_000, "2d2h"),
    ])
    func agesHaveTwoUnitsAtMost(seconds: Int, text: String) {
        #expect(Figures.age(seconds: Double(seconds)) == text)
    }

    @Test(
        arguments: [(nil, "-"), (1.0, "100%"), (0.99999, "99.99%"), (0.5, "50.00%"), (0, "0.00%")]
            as [(Double?, String)])
    func aFailureIsNeverRoundedAway(share: Double?, text: String) {
        #expect(Figures.percent(share) == text)
    }
}
