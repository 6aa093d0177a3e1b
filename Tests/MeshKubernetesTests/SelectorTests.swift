import MeshKubernetes
import Testing

@Suite struct SelectorTests {
    static let labels = ["app": "shop", "tier": "web", "apus.dev/inject": "enabled", "empty": ""]

    @Test(arguments: [
        ("", true), ("app=shop", true), ("app==shop", true), ("app = shop , tier = web", true), ("app=other", false),
        ("app!=other", true), ("app!=shop", false), ("missing!=x", true), ("tier in (web,api)", true),
        ("tier in (api)", false),
        ("tier notin (web)", false), ("tier notin (api, db)", true), ("missing notin (a)", true),
        ("missing in (a)", false),
        ("app", true), ("missing", false), ("!missing", true), ("!app", false), ("apus.dev/inject=enabled,!x", true),
        ("empty=", true),
        ("app=", false), ("tier in (web,),app", true), ("in in (a)", false), ("app,tier in (web)", true),
    ])
    func aLabelSelectorMatches(text: String, expected: Bool) throws {
        let selector = try LabelSelector(parsing: text)
        #expect(selector.matches(Self.labels) == expected)
        #expect(try LabelSelector(parsing: selector.queryText) == selector)
    }

    @Test(arguments: [
        ("=a", "expected a label's key, found '='"), ("a=b,", "expected a label's key, found the end"),
        ("a b", "found 'b'"),
        ("a in b", "expected '('"), ("a in (b", "expected ')'"), ("a=b c=d", "expected ','"),
        ("!", "expected a label's key"),
        ("-a=b", "the name in the key '-a'"), ("a=-b", "the value '-b'"), ("A_B/c=d", "the prefix of the key"),
        ("a>1", "must have 1 to 63"),
        ("a/b/c", "must have 1 to 63"), (String(repeating: "a", count: 20_000), "longer than"),
        (Array(repeating: "a", count: 300).joined(separator: ","), "more than 256"),
    ])
    func aLabelSelectorThatCannotBeReadSaysWhy(text: String, reason: String) {
        let error = #expect(throws: SelectorError.self) { try LabelSelector(parsing: text) }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test func aSelectorOfADocumentMatches() throws {
        let json: JSONValue = [
            "matchLabels": ["app": "shop"],
            "matchExpressions": [
                ["key": "tier", "operator": "In", "values": ["web"]], ["key": "x", "operator": "DoesNotExist"],
            ],
        ]
        let selector: LabelSelector = try json.decoded()
        #expect(selector.matches(Self.labels))
        #expect(!selector.matches(["app": "shop"]))
        #expect(selector.queryText == "app=shop,tier=web,!x")
        #expect(try JSONValue.object([:]).decoded(as: LabelSelector.self).matches([:]))
    }

    @Test(arguments: [
        ("", true), ("metadata.name=a", true), ("metadata.name==a,status.phase!=Failed", true),
        ("metadata.name=b", false),
        ("spec.replicas=3", true), ("spec.paused=false", true), ("metadata.namespace=", true),
        ("metadata.namespace!=x", true),
        ("metadata.annotations.x=a\\,b\\=c", true),
    ])
    func aFieldSelectorMatches(text: String, expected: Bool) throws {
        let object: JSONValue = [
            "metadata": ["name": "a", "annotations": ["x": "a,b=c"]], "spec": ["replicas": 3, "paused": false],
            "status": ["phase": "Running"],
        ]
        #expect(try FieldSelector(parsing: text).matches(object) == expected)
    }

    @Test(arguments: ["a", "=a", "a=b,", "a!b", ",", "a=b\\", "a\\=b=c"])
    func aFieldSelectorThatCannotBeReadIsRefused(text: String) {
        #expect(throws: SelectorError.self) { try FieldSelector(parsing: text) }
    }
}
